/**
 * The operations as functions on symbolic tensors. Model code and derivative rules are written with these; each adds one
 * operation (or a few) to the graph its operands belong to.
 */

import { UserError } from "../base/errors.ts";
import type { DType } from "./dtype.ts";
import type { BinaryKind, CompareKind, ReduceKind, UnaryKind, Window } from "./op.ts";
import { normalizeDim, type Shape, sameShape } from "./shape.ts";
import type { Scope, Tensor } from "./tensor.ts";

type Unary = (x: Tensor) => Tensor;
type Binary = (a: Tensor, b: Tensor) => Tensor;

/** The result of an operation that has exactly one. */
export function only(results: readonly Tensor[]): Tensor {
  const [result] = results;
  if (result === undefined || results.length !== 1) throw new Error("internal: expected one result");
  return result;
}

function unary(kind: UnaryKind): Unary {
  return (x) => only(x.scope.apply({ kind }, [x]));
}

function binary(kind: BinaryKind | CompareKind): Binary {
  return (a, b) => only(a.scope.apply({ kind }, [a, b]));
}

export const neg: Unary = unary("neg");
export const abs: Unary = unary("abs");
export const sign: Unary = unary("sign");
export const exp: Unary = unary("exp");
export const log: Unary = unary("log");
export const sqrt: Unary = unary("sqrt");
export const reciprocal: Unary = unary("reciprocal");
export const square: Unary = unary("square");
export const sin: Unary = unary("sin");
export const cos: Unary = unary("cos");
export const erf: Unary = unary("erf");
export const sigmoid: Unary = unary("sigmoid");
export const tanh: Unary = unary("tanh");
export const relu: Unary = unary("relu");
export const gelu: Unary = unary("gelu");
export const geluTanh: Unary = unary("gelu-tanh");
export const silu: Unary = unary("silu");
export const softplus: Unary = unary("softplus");
export const not: Unary = unary("not");

export const add: Binary = binary("add");
export const sub: Binary = binary("sub");
export const mul: Binary = binary("mul");
export const div: Binary = binary("div");
export const pow: Binary = binary("pow");
export const maximum: Binary = binary("max");
export const minimum: Binary = binary("min");
export const and: Binary = binary("and");
export const or: Binary = binary("or");
export const equal: Binary = binary("equal");
export const less: Binary = binary("less");
export const lessEqual: Binary = binary("less-equal");
export const greater: Binary = binary("greater");
export const greaterEqual: Binary = binary("greater-equal");

export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  return only(condition.scope.apply({ kind: "where" }, [condition, a, b]));
}

export function cast(x: Tensor, dtype: DType): Tensor {
  return x.dtype === dtype ? x : only(x.scope.apply({ kind: "cast", dtype }, [x]));
}

/** A tensor whose every element is `value`. */
export function constant(scope: Scope, dtype: DType, shape: Shape, value: number): Tensor {
  return only(scope.apply({ kind: "constant", dtype, shape, value }, []));
}

/** A scalar of the dtype of `like`. */
export function scalar(like: Tensor, value: number): Tensor {
  return constant(like.scope, like.dtype, [], value);
}

/** Element index along `dim`. */
export function iota(scope: Scope, dtype: DType, shape: Shape, dim: number): Tensor {
  return only(scope.apply({ kind: "iota", dtype, shape, dim }, []));
}

function reduce(kind: ReduceKind, x: Tensor, dims: readonly number[] | undefined, keep: boolean): Tensor {
  const all = dims ?? x.shape.map((_, dim) => dim);
  const sorted = all.map((dim) => checkedDim(kind, x, dim)).toSorted((a, b) => a - b);
  return sorted.length === 0 ? x : only(x.scope.apply({ kind, dims: sorted, keep }, [x]));
}

/** Sum over `dims` (default: all of them). */
export function sum(x: Tensor, dims?: readonly number[], keep = false): Tensor {
  return reduce("sum", x, dims, keep);
}

export function mean(x: Tensor, dims?: readonly number[], keep = false): Tensor {
  return reduce("mean", x, dims, keep);
}

export function reduceMax(x: Tensor, dims?: readonly number[], keep = false): Tensor {
  return reduce("reduce-max", x, dims, keep);
}

export function broadcast(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : only(x.scope.apply({ kind: "broadcast", shape }, [x]));
}

export function reshape(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : only(x.scope.apply({ kind: "reshape", shape }, [x]));
}

export function transpose(x: Tensor, permutation: readonly number[]): Tensor {
  if (permutation.length === x.shape.length && permutation.every((dim, i) => dim === i)) return x;
  return only(x.scope.apply({ kind: "transpose", permutation }, [x]));
}

/** Elements `start` to `stop` (exclusive) of one dim. */
export function sliceDim(x: Tensor, dim: number, start: number, stop: number): Tensor {
  const at = checkedDim("slice", x, dim);
  if (start === 0 && stop === x.shape[at]) return x;
  return slice(
    x,
    x.shape.map((_, i) => (i === at ? start : 0)),
    x.shape.map((size, i) => (i === at ? stop : size)),
  );
}

/** Elements start, start+step, ... below stop along every dim; one entry per dim. */
export function slice(
  x: Tensor,
  start: readonly number[],
  stop: readonly number[],
  step?: readonly number[],
): Tensor {
  return only(x.scope.apply({ kind: "slice", start, stop, step: step ?? start.map(() => 1) }, [x]));
}

export function concat(parts: readonly Tensor[], dim: number): Tensor {
  const [first] = parts;
  if (first === undefined) throw new UserError("concat: needs at least one tensor");
  return parts.length === 1
    ? first
    : only(first.scope.apply({ kind: "concat", dim: checkedDim("concat", first, dim) }, parts));
}

/** Cuts `dim` into parts of the given sizes. */
export function split(x: Tensor, dim: number, sizes: readonly number[]): readonly Tensor[] {
  return x.scope.apply({ kind: "split", dim: checkedDim("split", x, dim), sizes }, [x]);
}

export function pad(x: Tensor, before: readonly number[], after: readonly number[], value = 0): Tensor {
  return only(x.scope.apply({ kind: "pad", before, after, value }, [x]));
}

/** Matrix product over the last two dims; leading dims broadcast. */
export function matmul(
  a: Tensor,
  b: Tensor,
  options: { transposeA?: boolean; transposeB?: boolean } = {},
): Tensor {
  const { transposeA = false, transposeB = false } = options;
  return only(a.scope.apply({ kind: "matmul", transposeA, transposeB }, [a, b]));
}

/** Rows of `table` at `indices` (i32). */
export function gather(table: Tensor, indices: Tensor): Tensor {
  return only(table.scope.apply({ kind: "gather" }, [table, indices]));
}

/** Zeros of `size` rows with `updates` added at the rows `indices`. */
export function scatterAdd(indices: Tensor, updates: Tensor, size: number): Tensor {
  return only(indices.scope.apply({ kind: "scatter-add", size }, [indices, updates]));
}

/** One element of the last dim for each index; an index out of range gives 0. */
export function take(x: Tensor, indices: Tensor): Tensor {
  return only(x.scope.apply({ kind: "take" }, [x, indices]));
}

export function softmax(x: Tensor): Tensor {
  return only(x.scope.apply({ kind: "softmax" }, [x]));
}

export function logSoftmax(x: Tensor): Tensor {
  return only(x.scope.apply({ kind: "log-softmax" }, [x]));
}

/** Cross-entropy of each row of logits; 0 where the target equals `ignore`. */
export function crossEntropy(logits: Tensor, targets: Tensor, ignore = -1): Tensor {
  return first(logits.scope.apply({ kind: "cross-entropy", ignore }, [logits, targets]));
}

/** Normalises the last dim to mean 0 and variance 1, then scales and shifts (Ba et al. 2016). */
export function layerNorm(x: Tensor, scale: Tensor, shift: Tensor, epsilon = 1e-5): Tensor {
  return first(x.scope.apply({ kind: "layer-norm", epsilon }, [x, scale, shift]));
}

/** Normalises every channel (dim 1) by the statistics of this batch; returns y, mean and biased variance. */
export function batchNorm(x: Tensor, scale: Tensor, shift: Tensor, epsilon = 1e-5): readonly Tensor[] {
  return x.scope.apply({ kind: "batch-norm", epsilon }, [x, scale, shift]);
}

/** 2-D cross-correlation, NCHW. */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  options: Partial<Window> & { groups?: number } = {},
): Tensor {
  const { groups = 1, ...window } = options;
  return only(x.scope.apply({ kind: "conv2d", window: windowOf(window), groups }, [x, weight]));
}

export function maxPool(x: Tensor, kernel: readonly [number, number], options: Partial<Window> = {}): Tensor {
  return only(
    x.scope.apply({ kind: "max-pool", kernel, window: windowOf({ stride: kernel, ...options }) }, [x]),
  );
}

export function avgPool(x: Tensor, kernel: readonly [number, number], options: Partial<Window> = {}): Tensor {
  return only(
    x.scope.apply({ kind: "avg-pool", kernel, window: windowOf({ stride: kernel, ...options }) }, [x]),
  );
}

export interface LstmOperands {
  readonly x: Tensor;
  readonly w: Tensor;
  readonly u: Tensor;
  readonly b: Tensor;
  readonly h0: Tensor;
  readonly c0: Tensor;
}

/** An LSTM over time; see `Op` for the operands. Returns h [T, B, H], last h [B, H], last c [B, H]. */
export function lstm({ x, w, u, b, h0, c0 }: LstmOperands): readonly [Tensor, Tensor, Tensor] {
  const [h, hLast, cLast] = x.scope.apply({ kind: "lstm" }, [x, w, u, b, h0, c0]);
  return [h as Tensor, hLast as Tensor, cLast as Tensor];
}

export interface GruOperands {
  readonly x: Tensor;
  readonly w: Tensor;
  readonly u: Tensor;
  readonly b: Tensor;
  readonly p: Tensor;
  readonly h0: Tensor;
}

/** A GRU over time; see `Op` for the operands. Returns h [T, B, H] and last h [B, H]. */
export function gru({ x, w, u, b, p, h0 }: GruOperands): readonly [Tensor, Tensor] {
  const [h, hLast] = x.scope.apply({ kind: "gru" }, [x, w, u, b, p, h0]);
  return [h as Tensor, hLast as Tensor];
}

/** The first of several results. */
function first(results: readonly Tensor[]): Tensor {
  const [result] = results;
  if (result === undefined) throw new Error("internal: expected a result");
  return result;
}

function windowOf(window: Partial<Window>): Window {
  return {
    stride: window.stride ?? [1, 1],
    pad: window.pad ?? [0, 0, 0, 0],
    dilation: window.dilation ?? [1, 1],
  };
}

function checkedDim(kind: string, x: Tensor, dim: number): number {
  const index = normalizeDim(dim, x.shape.length);
  if (index === undefined)
    throw new UserError(`${kind}: dim ${dim} does not exist in a tensor of shape [${x.shape}]`);
  return index;
}
