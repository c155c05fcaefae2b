/** The weight gradients of several items as one computation: where it is right, and where it would not be. */

import { describe, expect, test } from "vitest";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { stackRows } from "../../src/partition/stack-rows.ts";
import { randomDense } from "../graph/dense.ts";

/** A segment over a and b (two rows, different for every item) and w (the same for all). */
function segmentOf(build: (a: Tensor, b: Tensor, w: Tensor) => readonly Tensor[]): Graph {
  const builder = new GraphBuilder();
  const [a, b] = [
    [2, 3],
    [2, 4],
  ].map((shape, i) => builder.input(`x${i}`, "data", { dtype: "f64", shape }));
  const w = builder.input("w", "parameter", { dtype: "f64", shape: [3, 4] });
  build(a as Tensor, b as Tensor, w).forEach((tensor, i) => {
    builder.output(`y${i}`, tensor);
  });
  return builder.build();
}

const varying: ReadonlySet<number> = new Set([0, 1]);
const items = 3;

function concatRows(parts: readonly Dense[]): Dense {
  const [first] = parts as readonly [Dense, ...Dense[]];
  const shape = first.shape.with(0, (first.shape[0] as number) * parts.length);
  return { shape, data: Float64Array.from(parts.flatMap(({ data }) => [...data])) };
}

function sumOf(parts: readonly Dense[]): Dense {
  const [first] = parts as readonly [Dense, ...Dense[]];
  return {
    ...first,
    data: first.data.map((_, i) => parts.reduce((sum, { data }) => sum + (data[i] as number), 0)),
  };
}

/** What the items give one by one against what they give at once. */
function compare(segment: Graph): void {
  const joined = stackRows(segment, varying, items);
  if (joined === undefined) throw new Error("the segment was not joined");
  const shapeOf = (value: number) => (segment.types[value] as TensorType).shape;
  const w = randomDense([3, 4], 9);
  const values = Array.from({ length: items }, (_, item) => [
    randomDense(shapeOf(0), item),
    randomDense(shapeOf(1), 10 + item),
  ]);
  const apart = values.map(([a, b]) =>
    evaluateGraph(
      segment,
      new Map([
        ["x0", a as Dense],
        ["x1", b as Dense],
        ["w", w],
      ]),
    ),
  );
  const [a, b] = [0, 1].map((i) => concatRows(values.map((pair) => pair[i] as Dense)));
  const together = evaluateGraph(
    joined.graph,
    new Map([
      ["x0", a as Dense],
      ["x1", b as Dense],
      ["w", w],
    ]),
  );
  segment.outputs.forEach(({ name }, position) => {
    const parts = apart.map((results) => results.get(name) as Dense);
    const expected = joined.stackedOutputs.includes(position) ? concatRows(parts) : sumOf(parts);
    const actual = together.get(name) as Dense;
    expect(actual.shape).toEqual(expected.shape);
    actual.data.forEach((value, i) => {
      expect(value).toBeCloseTo(expected.data[i] as number, 12);
    });
  });
}

describe("a segment is joined", () => {
  const legal: { readonly [what: string]: (a: Tensor, b: Tensor, w: Tensor) => readonly Tensor[] } = {
    "that multiplies rows by rows": (a, b) => [f.matmul(a, b, { transposeA: true })],
    "that adds rows up": (a, b) => [f.sum(a, [0]), f.sum(f.square(b))],
    "that keeps rows apart": (a, b, w) => [f.add(f.matmul(f.tanh(a), w), b)],
    "that keeps some and adds up others": (a, b, w) => {
      const y = f.matmul(b, w, { transposeB: true });
      return [y, f.matmul(f.mul(a, y), b, { transposeA: true })];
    },
    "whose sum goes through what is linear": (a, b, w) => {
      const sum = f.matmul(a, b, { transposeA: true });
      return [f.transpose(f.mul(f.sub(sum, f.neg(sum)), w), [1, 0]), f.sum(f.div(sum, f.exp(w)))];
    },
    "that adds updates at rows of a table": (a) => [f.scatterAdd(f.cast(f.relu(f.sum(a, [1])), "i32"), a, 9)],
  };
  test.each(Object.entries(legal))("%s", (_what, build) => {
    compare(segmentOf(build));
  });
});

describe("a segment is left to each item", () => {
  const illegal: { readonly [what: string]: (a: Tensor, b: Tensor, w: Tensor) => readonly Tensor[] } = {
    "whose result is the same for all items": (a, _b, w) => [f.sum(a, [0]), f.square(w)],
    "that squares a sum": (a) => [f.square(f.sum(a, [0]))],
    "that multiplies two sums": (a) => [f.mul(f.sum(a, [0]), f.sum(f.tanh(a), [0]))],
    "that divides by a sum": (a, b) => [f.div(f.sum(b), f.sum(a))],
    "that adds to a sum what all items have": (a, b, w) => [f.add(f.matmul(a, b, { transposeA: true }), w)],
    "that compares rows with their mean": (a) => [f.sub(a, f.mean(a, [0], true))],
    "that compares rows with their sum": (a) => [f.sub(a, f.sum(a, [0], true))],
    "that mixes the dim of the rows with others": (a) => [f.reshape(f.transpose(a, [1, 0]), [6])],
    "that multiplies rows of one item by each other": (a) => [f.matmul(a, a, { transposeB: true })],
  };
  test.each(Object.entries(illegal))("%s", (_what, build) => {
    expect(stackRows(segmentOf(build), varying, items)).toBeUndefined();
  });

  test("that has an input without rows which differs between items", () => {
    const builder = new GraphBuilder();
    const [x, scale] = [[2, 3], []].map((shape, i) =>
      builder.input(`x${i}`, "data", { dtype: "f64", shape }),
    );
    builder.output("y", f.sum(f.mul(x as Tensor, scale as Tensor), [0]));
    expect(stackRows(builder.build(), varying, items)).toBeUndefined();
  });
});
