/** Elementwise operations: one line per kind, its derivative beside it; binary operations broadcast as in NumPy. */

import { isFloat } from "../dtype.ts";
import {
  add,
  cast,
  constant,
  cos,
  div,
  equal,
  exp,
  greater,
  less,
  log,
  mul,
  neg,
  pow,
  reshape,
  scalar,
  sigmoid,
  sign,
  sin,
  square,
  sub,
  sum,
  tanh,
  where,
} from "../functions.ts";
import type { BinaryKind, CompareKind, UnaryKind } from "../op.ts";
import { type Dense, type DimIndex, type IterationSpace, type OpRules, ShapeError } from "../op-rules.ts";
import { broadcastShapes, type Shape, showType, sizeOf, stridesOf, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { erf } from "./erf.ts";

type ElementwiseKind = UnaryKind | BinaryKind | CompareKind | "where" | "cast";

/** Kinds that are defined for whole numbers, too. */
const keepsWhole: ReadonlySet<UnaryKind> = new Set<UnaryKind>(["neg", "abs", "sign", "square", "relu"]);

/** Gradient of a unary operation from operand x, result y and the result's gradient dy. */
type UnaryDerivative = (x: Tensor, y: Tensor, dy: Tensor) => Tensor;

function unary(
  flops: number,
  evaluate: (x: number) => number,
  derivative: UnaryDerivative | null,
): OpRules<UnaryKind> {
  return {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const expected = op.kind === "not" ? "bool" : keepsWhole.has(op.kind) ? "numbers" : "floats";
      const fits =
        expected === "floats" ? isFloat(type.dtype) : (type.dtype === "bool") === (expected === "bool");
      if (!fits) throw new ShapeError(`expects ${expected}, got ${showType(type)}`);
      return [type];
    },
    space: (_op, inputs, results) => elementwiseSpace(inputs, results, flops),
    derive:
      derivative &&
      ((_op, at) => {
        const [x, y, dy] = [at.inputs[0], at.outputs[0], at.gradients[0]];
        return x && y && dy ? [derivative(x, y, dy)] : [undefined];
      }),
    evaluate: (_op, [x]) => [{ shape: (x as Dense).shape, data: (x as Dense).data.map(evaluate) }],
  };
}

/** Gradients of both operands, before they are summed down to the operands' shapes. */
type BinaryDerivative = (
  a: Tensor,
  b: Tensor,
  y: Tensor,
  dy: Tensor,
) => readonly [() => Tensor, () => Tensor];

function binary(
  evaluate: (a: number, b: number) => number,
  derivative: BinaryDerivative | null,
  result: "same" | "bool" = "same",
): OpRules<BinaryKind | CompareKind> {
  return {
    infer: (op, inputs) => {
      const [a, b] = inputs as [TensorType, TensorType];
      const shape = broadcastShapes([a.shape, b.shape]);
      if (shape === undefined || a.dtype !== b.dtype) {
        throw new ShapeError(`operands ${showType(a)} and ${showType(b)} do not fit together`);
      }
      const logical = op.kind === "and" || op.kind === "or";
      if (logical !== (a.dtype === "bool")) throw new ShapeError(`is not defined for ${showType(a)}`);
      return [{ dtype: result === "bool" ? "bool" : a.dtype, shape }];
    },
    space: (_op, inputs, results) => elementwiseSpace(inputs, results, 1),
    derive:
      derivative &&
      ((_op, at) => {
        const [a, b] = at.inputs as [Tensor, Tensor];
        const [y, dy] = [at.outputs[0], at.gradients[0]];
        if (!(y && dy)) return [undefined, undefined];
        const gradients = derivative(a, b, y, dy);
        return [a, b].map((operand, i) =>
          at.wanted[i] ? sumTo((gradients[i] as () => Tensor)(), operand.shape) : undefined,
        );
      }),
    evaluate: (_op, inputs, [type]) => {
      const { dtype, shape } = type as TensorType;
      const isWhole = dtype === "i32" || dtype === "i64";
      return [
        zip(inputs, shape, ([a, b]) => {
          const value = evaluate(a as number, b as number);
          return isWhole ? Math.trunc(value) : value;
        }),
      ];
    },
  };
}

function compare(evaluate: (a: number, b: number) => boolean): OpRules<BinaryKind | CompareKind> {
  return binary((a, b) => (evaluate(a, b) ? 1 : 0), null, "bool");
}

const half = (like: Tensor): Tensor => scalar(like, 0.5);
const one = (like: Tensor): Tensor => scalar(like, 1);
/** 1 where the condition holds, else 0, in the dtype of `like`. */
const indicator = (condition: Tensor, like: Tensor): Tensor => cast(condition, like.dtype);

const GELU_TANH_SCALE = Math.sqrt(2 / Math.PI);
const GELU_TANH_CUBIC = 0.044715;

/** d/dx of x·Φ(x) = Φ(x) + x·φ(x), from erf and exp. */
function geluDerivative(x: Tensor): Tensor {
  const phi = mul(exp(mul(square(x), scalar(x, -0.5))), scalar(x, 1 / Math.sqrt(2 * Math.PI)));
  const scaled = mul(x, scalar(x, Math.SQRT1_2));
  const cumulative = mul(add(one(x), only(scaled.scope.apply({ kind: "erf" }, [scaled]))), half(x));
  return add(cumulative, mul(x, phi));
}

/** With u = s(x + c·x³): y = x(1 + tanh u)/2, so dy/dx = (1 + tanh u)/2 + x(1 - tanh² u)·s(1 + 3c·x²)/2. */
function geluTanhDerivative(x: Tensor): Tensor {
  const squared = square(x);
  const inner = mul(x, add(one(x), mul(squared, scalar(x, GELU_TANH_CUBIC))));
  const t = tanh(mul(inner, scalar(x, GELU_TANH_SCALE)));
  const slope = add(
    scalar(x, GELU_TANH_SCALE),
    mul(squared, scalar(x, 3 * GELU_TANH_CUBIC * GELU_TANH_SCALE)),
  );
  const bend = mul(mul(x, sub(one(x), square(t))), slope);
  return mul(add(add(one(x), t), bend), half(x));
}

function only(results: readonly Tensor[]): Tensor {
  return results[0] as Tensor;
}

/** Both operands share the gradient equally where they are equal. */
function extremeDerivative(wins: (a: Tensor, b: Tensor) => Tensor): BinaryDerivative {
  const share = (a: Tensor, b: Tensor, dy: Tensor) =>
    mul(dy, add(indicator(wins(a, b), dy), mul(indicator(equal(a, b), dy), half(dy))));
  return (a, b, _y, dy) => [() => share(a, b, dy), () => share(b, a, dy)];
}

const stableSigmoid = (x: number): number =>
  x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
const geluTanhValue = (x: number): number =>
  0.5 * x * (1 + Math.tanh(GELU_TANH_SCALE * (x + GELU_TANH_CUBIC * x * x * x)));

export const elementwise: { readonly [K in ElementwiseKind]: OpRules<K> } = {
  neg: unary(
    1,
    (x) => -x,
    (_x, _y, dy) => neg(dy),
  ),
  abs: unary(1, Math.abs, (x, _y, dy) => mul(dy, sign(x))),
  sign: unary(1, Math.sign, (x, _y, dy) => mul(dy, constant(x.scope, x.dtype, x.shape, 0))),
  exp: unary(4, Math.exp, (_x, y, dy) => mul(dy, y)),
  log: unary(4, Math.log, (x, _y, dy) => div(dy, x)),
  sqrt: unary(2, Math.sqrt, (x, y, dy) => div(mul(dy, half(x)), y)),
  reciprocal: unary(
    1,
    (x) => 1 / x,
    (_x, y, dy) => neg(mul(dy, square(y))),
  ),
  square: unary(
    1,
    (x) => x * x,
    (x, _y, dy) => mul(dy, mul(x, scalar(x, 2))),
  ),
  sin: unary(4, Math.sin, (x, _y, dy) => mul(dy, cos(x))),
  cos: unary(4, Math.cos, (x, _y, dy) => neg(mul(dy, sin(x)))),
  erf: unary(8, erf, (x, _y, dy) => mul(dy, mul(exp(neg(square(x))), scalar(x, 2 / Math.sqrt(Math.PI))))),
  sigmoid: unary(4, stableSigmoid, (x, y, dy) => mul(dy, mul(y, sub(one(x), y)))),
  tanh: unary(4, Math.tanh, (x, y, dy) => mul(dy, sub(one(x), square(y)))),
  relu: unary(
    1,
    (x) => Math.max(x, 0),
    (x, y, dy) => mul(dy, indicator(greater(y, scalar(x, 0)), dy)),
  ),
  gelu: unary(
    10,
    (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
    (x, _y, dy) => mul(dy, geluDerivative(x)),
  ),
  "gelu-tanh": unary(10, geluTanhValue, (x, _y, dy) => mul(dy, geluTanhDerivative(x))),
  silu: unary(
    5,
    (x) => x * stableSigmoid(x),
    (x, y, dy) => {
      const gate = sigmoid(x);
      return mul(dy, add(gate, mul(y, sub(one(x), gate))));
    },
  ),
  softplus: unary(
    6,
    (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
    (x, _y, dy) => mul(dy, sigmoid(x)),
  ),
  not: unary(1, (x) => (x === 0 ? 1 : 0), null),
  add: binary(
    (a, b) => a + b,
    (_a, _b, _y, dy) => [() => dy, () => dy],
  ),
  sub: binary(
    (a, b) => a - b,
    (_a, _b, _y, dy) => [() => dy, () => neg(dy)],
  ),
  mul: binary(
    (a, b) => a * b,
    (a, b, _y, dy) => [() => mul(dy, b), () => mul(dy, a)],
  ),
  div: binary(
    (a, b) => a / b,
    (_a, b, y, dy) => [() => div(dy, b), () => neg(mul(div(dy, b), y))],
  ),
  pow: binary(Math.pow, (a, b, y, dy) => [
    () => mul(dy, mul(b, pow(a, sub(b, one(b))))),
    () => mul(dy, mul(y, log(a))),
  ]),
  max: binary(Math.max, extremeDerivative(greater)),
  min: binary(Math.min, extremeDerivative(less)),
  and: binary((a, b) => a * b, null),
  or: binary((a, b) => Math.max(a, b), null),
  equal: compare((a, b) => a === b),
  less: compare((a, b) => a < b),
  "less-equal": compare((a, b) => a <= b),
  greater: compare((a, b) => a > b),
  "greater-equal": compare((a, b) => a >= b),
  where: {
    infer: (_op, inputs) => {
      const [condition, a, b] = inputs as [TensorType, TensorType, TensorType];
      const shape = broadcastShapes(inputs.map((type) => type.shape));
      if (shape === undefined || condition.dtype !== "bool" || a.dtype !== b.dtype) {
        throw new ShapeError(`operands ${inputs.map(showType).join(", ")} do not fit together`);
      }
      return [{ dtype: a.dtype, shape }];
    },
    space: (_op, inputs, results) => elementwiseSpace(inputs, results, 1),
    derive: (_op, { inputs, gradients: [dy], wanted }) => {
      const [condition, a, b] = inputs as [Tensor, Tensor, Tensor];
      if (!dy) return [undefined, undefined, undefined];
      const zero = scalar(dy, 0);
      return [
        undefined,
        wanted[1] ? sumTo(where(condition, dy, zero), a.shape) : undefined,
        wanted[2] ? sumTo(where(condition, zero, dy), b.shape) : undefined,
      ];
    },
    evaluate: (_op, inputs, [type]) => [
      zip(inputs, (type as TensorType).shape, ([c, a, b]) => (c === 0 ? b : a) as number),
    ],
  },
  cast: {
    infer: (op, [x]) => [{ dtype: op.dtype, shape: (x as TensorType).shape }],
    space: (_op, inputs, results) => elementwiseSpace(inputs, results, 1),
    derive: (op, { inputs: [x], gradients: [dy] }) =>
      x && dy && isFloat(op.dtype) && isFloat(x.dtype) ? [cast(dy, x.dtype)] : [undefined],
    evaluate: (op, [x]) => [
      { shape: (x as Dense).shape, data: (x as Dense).data.map((value) => converted(value, op.dtype)) },
    ],
  },
};

function converted(value: number, dtype: TensorType["dtype"]): number {
  if (dtype === "bool") return value === 0 ? 0 : 1;
  if (dtype === "f32") return Math.fround(value);
  return dtype === "i32" || dtype === "i64" ? Math.trunc(value) : value;
}

/** One parallel loop for each dim of the result. */
export function elementwiseSpace(
  inputs: readonly TensorType[],
  results: readonly TensorType[],
  flopsPerPoint: number,
): IterationSpace {
  const shape = (results[0] as TensorType).shape;
  return {
    loops: shape.map((size, dim) => ({ name: `d${dim}`, size, kind: "parallel" as const })),
    operands: inputs.map((type) => broadcastIndex(type.shape, shape)),
    results: results.map(() => shape.map((_, dim) => [dim])),
    flopsPerPoint,
  };
}

/** Which dims of a result index each dim of an operand that is broadcast to it. */
export function broadcastIndex(operand: Shape, result: Shape): readonly DimIndex[] {
  const shift = result.length - operand.length;
  return operand.map((size, dim) => (size === 1 && result[dim + shift] !== 1 ? [] : [dim + shift]));
}

/** Undoes broadcasting: sums `gradient` down to `shape`. */
export function sumTo(gradient: Tensor, shape: Shape): Tensor {
  const shift = gradient.shape.length - shape.length;
  const dims = gradient.shape.flatMap((size, dim) =>
    dim < shift || (shape[dim - shift] === 1 && size !== 1) ? [dim] : [],
  );
  return dims.length === 0 ? gradient : reshape(sum(gradient, dims), shape);
}

/** Applies `combine` to the broadcast operands' elements. */
function zip(inputs: readonly Dense[], shape: Shape, combine: (values: readonly number[]) => number): Dense {
  const strides = inputs.map((input) => {
    const own = stridesOf(input.shape);
    const shift = shape.length - input.shape.length;
    return shape.map((_, dim) => ((input.shape[dim - shift] ?? 1) === 1 ? 0 : (own[dim - shift] as number)));
  });
  const resultStrides = stridesOf(shape);
  const data = Float64Array.from({ length: sizeOf(shape) }, (_, element) =>
    combine(
      inputs.map((input, operand) => {
        let offset = 0;
        for (let dim = 0; dim < shape.length; dim++) {
          const index = Math.floor(element / (resultStrides[dim] as number)) % (shape[dim] as number);
          offset += index * ((strides[operand] as number[])[dim] as number);
        }
        return input.data[offset] as number;
      }),
    ),
  );
  return { shape, data };
}
