/** Random graphs of many operations on f32 tensors of many shapes, whose values stay within a few units. */

import fc from "fast-check";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import { broadcastShapes, sizeOf, type TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { randomDense } from "../graph/dense.ts";
import type { Case } from "./cases.ts";

/** Makes a tensor from two others; `pick` chooses one of n. */
type Make = (a: Tensor, b: Tensor, pick: (n: number) => number) => Tensor;

const dims = (x: Tensor): number[] => [...x.shape.keys()];
const half = (x: Tensor): Tensor => f.mul(x, f.scalar(x, 0.5));

/** Swaps the last two dims. */
function turned(x: Tensor): Tensor {
  const rank = x.shape.length;
  return f.transpose(x, [...dims(x).slice(0, rank - 2), rank - 1, rank - 2]);
}

function binary(combine: (a: Tensor, b: Tensor) => Tensor): Make {
  return (a, b) => (broadcastShapes([a.shape, b.shape]) ? half(combine(a, b)) : half(combine(a, a)));
}

/** Derivatives of all of these are continuous. */
const smooth: readonly Make[] = [
  ...[f.tanh, f.sigmoid, f.sin, f.cos, f.gelu, f.geluTanh, f.silu, f.softplus, f.erf].map(
    (op): Make =>
      (a) =>
        op(a),
  ),
  binary(f.add),
  binary(f.sub),
  binary(f.mul),
  binary((a, b) => f.div(a, f.add(f.square(b), f.scalar(b, 1.5)))),
  (a) => f.exp(f.neg(f.square(a))),
  (a) => f.log(f.add(f.square(a), f.scalar(a, 1.25))),
  (a) => f.sqrt(f.add(f.square(a), f.scalar(a, 0.5))),
  (a, _b, pick) =>
    a.shape.length < 2
      ? a
      : f.tanh(f.matmul(a, a, pick(2) === 0 ? { transposeA: true } : { transposeB: true })),
  (a, b) =>
    a.shape.length < 2 || b.shape.length < 2 || a.shape.at(-1) !== b.shape.at(-2) || a.shape.length > 2
      ? a
      : f.tanh(f.matmul(a, b)),
  (a) => (a.shape.length < 2 ? a : f.tanh(f.matmul(turned(a), a))),
  (a, _b, pick) => (a.shape.length === 0 ? a : f.tanh(f.sum(a, [pick(a.shape.length)], pick(2) === 0))),
  (a, _b, pick) => (a.shape.length === 0 ? a : f.mean(a, [pick(a.shape.length)], pick(2) === 0)),
  (a) => f.mean(f.square(a)),
  (a, _b, pick) => f.tanh(f.sum(f.square(a), a.shape.length === 0 ? [] : [pick(a.shape.length)])),
  (a) => f.reshape(a, [sizeOf(a.shape)]),
  (a) => f.reshape(a, a.shape.toReversed()),
  (a) => f.transpose(a, dims(a).reverse()),
  (a, _b, pick) => (a.shape.length > 3 ? a : f.broadcast(a, [1 + pick(3), ...a.shape])),
  (a) => (a.shape.length === 0 ? a : f.softmax(a)),
  (a) => (a.shape.length === 0 ? a : half(f.logSoftmax(a))),
  (a, _b, pick) => {
    if (a.shape.length === 0) return a;
    const dim = pick(a.shape.length);
    return f.concat([a, half(a)], dim);
  },
  (a, _b, pick) => {
    if (a.shape.length === 0) return a;
    const dim = pick(a.shape.length);
    const size = a.shape[dim] as number;
    return f.sliceDim(a, dim, pick(size), size);
  },
  (a, _b, pick) =>
    f.pad(
      a,
      a.shape.map(() => pick(2)),
      a.shape.map(() => pick(2)),
      0.25,
    ),
  (a, _b, pick) => {
    const at = a.shape.findIndex((size) => size > 1);
    if (at < 0) return a;
    const size = a.shape[at] as number;
    const cut = 1 + pick(size - 1);
    const [first, second] = f.split(a, at, [cut, size - cut]) as [Tensor, Tensor];
    return f.concat([second, first], at);
  },
  (a, b) => {
    const fits = broadcastShapes([a.shape, b.shape]) !== undefined && a.shape.length > 0;
    if (!fits) return a;
    const positions = f.iota(a.scope, "f32", a.shape, a.shape.length - 1);
    return f.where(f.less(positions, f.scalar(a, 1)), a, b);
  },
  (a) => f.mul(f.constant(a.scope, "f32", a.shape, -0.75), a),
];

/** Continuous, but not so their derivatives. */
const bent: readonly Make[] = [
  (a) => f.relu(a),
  (a) => f.abs(a),
  binary(f.maximum),
  binary(f.minimum),
  (a, _b, pick) => (a.shape.length === 0 ? a : f.reduceMax(a, [pick(a.shape.length)])),
];

interface Built {
  readonly builder: GraphBuilder;
  readonly names: readonly string[];
  readonly types: readonly TensorType[];
  readonly seed: number;
}

/** Tensors larger than this are not used further, so that graphs stay quick. */
const largest = 2000;

function built(makers: readonly Make[]): fc.Arbitrary<Built> {
  const shape = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 0, maxLength: 3 });
  const step = fc.record({
    make: fc.nat(makers.length - 1),
    a: fc.nat(99),
    b: fc.nat(99),
    pick: fc.nat(999),
  });
  return fc
    .record({
      shapes: fc.array(shape, { minLength: 1, maxLength: 3 }),
      steps: fc.array(step, { minLength: 2, maxLength: 10 }),
      seed: fc.nat(100_000),
    })
    .map(({ shapes, steps, seed }) => {
      const builder = new GraphBuilder();
      const types = shapes.map((one): TensorType => ({ dtype: "f32", shape: one }));
      const names = types.map((_, i) => `x${i}`);
      const tensors = types.map((type, i) => builder.input(`x${i}`, "parameter", type));
      for (const { make, a, b, pick } of steps) {
        const recent = (index: number) =>
          tensors[tensors.length - 1 - (index % Math.min(tensors.length, 4))] as Tensor;
        const made = (makers[make] as Make)(recent(a), recent(b), (n) => pick % n);
        if (sizeOf(made.shape) <= largest) tensors.push(made);
      }
      tensors.slice(-2).forEach((tensor, i) => {
        builder.output(`y${i}`, tensor);
      });
      builder.output("loss", f.mean(f.tanh(tensors.at(-1) as Tensor)));
      return { builder, names, types, seed };
    });
}

function values(types: readonly TensorType[], seed: number): Case["inputs"] {
  return types.map(({ shape }, i) => randomDense(shape, seed + i));
}

export const mixedGraphs: fc.Arbitrary<Case> = built([...smooth, ...bent]).map(
  ({ builder, types, seed }) => ({
    graph: builder.build(),
    inputs: values(types, seed),
  }),
);

/** Graphs with the gradients of their loss. */
export const derivedGraphs: fc.Arbitrary<Case> = built(smooth).map(({ builder, names, types, seed }) => ({
  graph: differentiate(builder.build(), [{ output: "loss", gradient: "one" }], names).graph,
  inputs: values(types, seed),
}));
