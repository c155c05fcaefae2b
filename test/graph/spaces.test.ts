import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { BinaryKind, CompareKind, Op, OpKind, UnaryKind } from "../../src/graph/op.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { opTable, rulesOf } from "../../src/graph/op-table.ts";
import { type Shape, stridesOf, type TensorType } from "../../src/graph/shape.ts";
import { randomDense } from "./dense.ts";
import { bits, dense, integers, nonZero, positive } from "./shapes.ts";
import { checkSpace, flopsOf, type SpaceCheck } from "./space-check.ts";

/** A case, the loops that can be cut, and the floating-point operations of the whole. */
interface Entry extends SpaceCheck {
  readonly cut: readonly string[];
  readonly flops?: number;
}

const window = { stride: [1, 1], pad: [0, 0, 0, 0], dilation: [1, 1] } as const;
const x = randomDense([2, 3, 4], 1);
const images = randomDense([2, 4, 5, 5], 2);

const f64 = (shape: Shape): TensorType => ({ dtype: "f64", shape });

function unary(kind: UnaryKind, values: Dense = positive([2, 3], 3)): Entry {
  return { op: { kind }, inputs: [values], dtypes: [kind === "not" ? "bool" : "f64"], cut: ["d0", "d1"] };
}

/** [2, 1, 4] with [3, 4]: the loop over dim 1 leaves the first operand alone. */
function binary(kind: BinaryKind | CompareKind, dtype: "f64" | "bool" = "f64"): Entry {
  const values = dtype === "bool" ? bits : nonZero;
  return {
    op: { kind },
    inputs: [values([2, 1, 4], 4), values([3, 4], 5)],
    dtypes: [dtype, dtype],
    cut: ["d0", "d1", "d2"],
    flops: 24,
  };
}

/** Forward values of a recurrent layer, as the operands of its derivative. */
function saved(kind: "lstm" | "gru", gates: number): { forward: readonly Dense[]; saved: readonly Dense[] } {
  const forward = [
    randomDense([2, 3, 5], 6),
    randomDense([gates * 2, 5], 7),
    randomDense([gates * 2, 2], 8),
    randomDense([gates * 2], 9),
    kind === "gru" ? randomDense([gates * 2], 10) : randomDense([3, 2], 10),
    randomDense([3, 2], 11),
  ];
  const rules = rulesOf(kind);
  const types = rules.infer(
    { kind },
    forward.map(({ shape }) => f64(shape)),
  );
  return { forward, saved: rules.evaluate({ kind }, forward, types) };
}

const lstm = saved("lstm", 4);
const gru = saved("gru", 3);
const states = [randomDense([2, 3, 2], 12), randomDense([3, 2], 13), randomDense([3, 2], 14)] as const;

/** [2, 3, 4] as [6, 2, 2] when one of the loops 2, 3, 2, 2 is cut to `size`. */
const cutReshape: { readonly [loop: string]: (size: number) => number[] } = {
  d0: (size) => [size * 3, 2, 2],
  d1: (size) => [2 * size, 2, 2],
  d2: (size) => [6, size, 2],
  d3: (size) => [6, 2, size],
};

/** Operands of these rows for three ranks; what ranks exchange cannot be cut. */
function together(op: Op, rows: readonly number[]): Entry {
  return {
    op,
    inputs: rows.map((count, i) => randomDense([count, 2], i)),
    uncovered: rows.flatMap((_, i) => [`result ${i}, dim 0`, `result ${i}, dim 1`]),
    cut: [],
    flops: 0,
  };
}

const spaces: { readonly [K in OpKind]: Entry } = {
  neg: unary("neg"),
  abs: unary("abs"),
  sign: unary("sign"),
  exp: unary("exp"),
  log: unary("log"),
  sqrt: unary("sqrt"),
  reciprocal: unary("reciprocal"),
  square: unary("square"),
  sin: unary("sin"),
  cos: unary("cos"),
  erf: unary("erf"),
  sigmoid: unary("sigmoid"),
  tanh: unary("tanh"),
  relu: unary("relu"),
  gelu: unary("gelu"),
  "gelu-tanh": unary("gelu-tanh"),
  silu: unary("silu"),
  softplus: unary("softplus"),
  not: unary("not", bits([2, 3], 3)),
  add: binary("add"),
  sub: binary("sub"),
  mul: binary("mul"),
  div: binary("div"),
  pow: { op: { kind: "pow" }, inputs: [positive([3], 1), randomDense([2, 3], 2)], cut: ["d0", "d1"] },
  max: binary("max"),
  min: binary("min"),
  and: binary("and", "bool"),
  or: binary("or", "bool"),
  equal: binary("equal"),
  less: binary("less"),
  "less-equal": binary("less-equal"),
  greater: binary("greater"),
  "greater-equal": binary("greater-equal"),
  where: {
    op: { kind: "where" },
    inputs: [bits([3, 1], 1), randomDense([], 2), randomDense([2, 3, 4], 3)],
    dtypes: ["bool", "f64", "f64"],
    cut: ["d0", "d1", "d2"],
  },
  cast: { op: { kind: "cast", dtype: "i32" }, inputs: [x], cut: ["d0", "d1", "d2"] },
  sum: { op: { kind: "sum", dims: [0, 2], keep: false }, inputs: [x], cut: ["d0", "d1", "d2"], flops: 24 },
  mean: { op: { kind: "mean", dims: [0, 2], keep: true }, inputs: [x], cut: ["d1"] },
  "reduce-max": { op: { kind: "reduce-max", dims: [1], keep: false }, inputs: [x], cut: ["d0", "d2"] },
  constant: {
    op: { kind: "constant", dtype: "f64", shape: [2, 4], value: 3 },
    inputs: [],
    resize: (name, size) => ({
      kind: "constant",
      dtype: "f64",
      shape: name === "d0" ? [size, 4] : [2, size],
      value: 3,
    }),
    cut: ["d0", "d1"],
  },
  iota: {
    op: { kind: "iota", dtype: "f64", shape: [2, 4], dim: 1 },
    inputs: [],
    resize: (_name, size) => ({ kind: "iota", dtype: "f64", shape: [size, 4], dim: 1 }),
    cut: ["d0"],
  },
  broadcast: {
    op: { kind: "broadcast", shape: [2, 3, 4] },
    inputs: [randomDense([3, 1], 1)],
    resize: (name, size) => ({
      kind: "broadcast",
      shape: [2, 3, 4].map((whole, dim) => (name === `d${dim}` ? size : whole)),
    }),
    cut: ["d0", "d1", "d2"],
  },
  reshape: {
    op: { kind: "reshape", shape: [6, 2, 2] },
    inputs: [x],
    resize: (name, size) => ({ kind: "reshape", shape: cutReshape[name]?.(size) ?? [] }),
    cut: ["d0", "d1", "d2", "d3"],
  },
  transpose: { op: { kind: "transpose", permutation: [2, 0, 1] }, inputs: [x], cut: ["d0", "d1", "d2"] },
  slice: {
    op: { kind: "slice", start: [0, 0, 1], stop: [2, 3, 4], step: [1, 1, 2] },
    inputs: [x],
    resize: (name, size) => ({
      kind: "slice",
      start: [0, 0, 1],
      stop: name === "d0" ? [size, 3, 4] : [2, size, 4],
      step: [1, 1, 2],
    }),
    cut: ["d0", "d1"],
  },
  concat: { op: { kind: "concat", dim: 1 }, inputs: [x, randomDense([2, 2, 4], 5)], cut: ["d0", "d2"] },
  split: {
    op: { kind: "split", dim: 1, sizes: [1, 2] },
    inputs: [x],
    uncovered: ["result 0, dim 1", "result 1, dim 1"],
    cut: ["d0", "d2"],
  },
  pad: { op: { kind: "pad", before: [0, 1, 0], after: [0, 0, 0], value: 7 }, inputs: [x], cut: ["d0", "d2"] },
  matmul: {
    op: { kind: "matmul", transposeA: true, transposeB: false },
    inputs: [randomDense([2, 1, 5, 3], 1), randomDense([4, 5, 6], 2)],
    cut: ["b0", "b1", "m", "n", "k"],
    flops: 2 * 2 * 4 * 3 * 6 * 5,
  },
  gather: {
    op: { kind: "gather" },
    inputs: [randomDense([5, 2, 3], 1), integers([4, 2], 2, 5)],
    dtypes: ["f64", "i32"],
    cut: ["i0", "i1", "r0", "r1"],
  },
  "scatter-add": {
    op: { kind: "scatter-add", size: 5 },
    inputs: [integers([4, 2], 2, 5), randomDense([4, 2, 3], 1)],
    dtypes: ["i32", "f64"],
    uncovered: ["result 0, dim 0"],
    cut: ["i0", "i1", "r0"],
  },
  take: {
    op: { kind: "take" },
    inputs: [x, integers([2, 3], 2, 4)],
    dtypes: ["f64", "i32"],
    cut: ["d0", "d1"],
  },
  "take-grad": {
    op: { kind: "take-grad", size: 4 },
    inputs: [integers([2, 3], 2, 4), randomDense([2, 3], 1)],
    dtypes: ["i32", "f64"],
    cut: ["d0", "d1"],
  },
  softmax: { op: { kind: "softmax" }, inputs: [x], cut: ["d0", "d1"] },
  "log-softmax": { op: { kind: "log-softmax" }, inputs: [x], cut: ["d0", "d1"] },
  "softmax-grad": { op: { kind: "softmax-grad" }, inputs: [x, x], cut: ["d0", "d1"] },
  "cross-entropy": {
    op: { kind: "cross-entropy", ignore: 1 },
    inputs: [x, integers([2, 3], 2, 4)],
    dtypes: ["f64", "i32"],
    cut: ["d0", "d1"],
  },
  "cross-entropy-grad": {
    op: { kind: "cross-entropy-grad", ignore: 1 },
    inputs: [x, integers([2, 3], 2, 4), randomDense([2, 3], 3), randomDense([2, 3], 4)],
    dtypes: ["f64", "i32", "f64", "f64"],
    cut: ["d0", "d1"],
  },
  "layer-norm": {
    op: { kind: "layer-norm", epsilon: 0.1 },
    inputs: [x, randomDense([4], 2), randomDense([4], 3)],
    cut: ["d0", "d1"],
  },
  "layer-norm-grad": {
    op: { kind: "layer-norm-grad" },
    inputs: [x, randomDense([4], 2), randomDense([2, 3, 1], 3), positive([2, 3, 1], 4), x],
    cut: ["d0", "d1"],
  },
  "batch-norm": {
    op: { kind: "batch-norm", epsilon: 0.1 },
    inputs: [x, randomDense([3], 2), randomDense([3], 3)],
    cut: ["c"],
  },
  "batch-norm-grad": {
    op: { kind: "batch-norm-grad", epsilon: 0.1 },
    inputs: [x, randomDense([3], 2), randomDense([3], 3), positive([3], 4), x],
    cut: ["c"],
  },
  conv2d: {
    op: { kind: "conv2d", window, groups: 1 },
    inputs: [images, randomDense([3, 4, 2, 2], 1)],
    cut: ["n", "o", "c"],
    flops: 2 * 2 * 3 * 4 * 4 * 4 * 2 * 2,
  },
  "conv2d-input-grad": {
    op: { kind: "conv2d-input-grad", window, groups: 1, height: 5, width: 5 },
    inputs: [randomDense([2, 3, 4, 4], 1), randomDense([3, 4, 2, 2], 2)],
    cut: ["n", "c", "o"],
  },
  "conv2d-weight-grad": {
    op: { kind: "conv2d-weight-grad", window, groups: 1, kernel: [2, 2] },
    inputs: [images, randomDense([2, 3, 4, 4], 1)],
    cut: ["o", "c", "n"],
  },
  "max-pool": { op: { kind: "max-pool", window, kernel: [2, 2] }, inputs: [images], cut: ["n", "c"] },
  "max-pool-grad": {
    op: { kind: "max-pool-grad", window, kernel: [2, 2] },
    inputs: [images, randomDense([2, 4, 4, 4], 1), randomDense([2, 4, 4, 4], 2)],
    cut: ["n", "c"],
  },
  "avg-pool": { op: { kind: "avg-pool", window, kernel: [2, 2] }, inputs: [images], cut: ["n", "c"] },
  "avg-pool-grad": {
    op: { kind: "avg-pool-grad", window, kernel: [2, 2], height: 5, width: 5 },
    inputs: [randomDense([2, 4, 4, 4], 1)],
    cut: ["n", "c"],
  },
  "dropout-mask": {
    op: { kind: "dropout-mask", dtype: "f64", shape: [6], strides: [0], keep: 0.5 },
    inputs: [dense([], 1), dense([], 2)],
    dtypes: ["i32", "i32"],
    resize: (_name, size) => ({ kind: "dropout-mask", dtype: "f64", shape: [size], strides: [0], keep: 0.5 }),
    cut: ["d0"],
    flops: 60,
  },
  lstm: { op: { kind: "lstm" }, inputs: lstm.forward, cut: ["batch"], flops: 2 * 2 * 3 * 4 * 2 * (5 + 2) },
  "lstm-grad": {
    op: { kind: "lstm-grad" },
    inputs: [lstm.forward[2] as Dense, ...lstm.saved.slice(4), ...states],
    cut: ["batch"],
    flops: 2 * 2 * 3 * 4 * 2 * 2,
  },
  gru: { op: { kind: "gru" }, inputs: gru.forward, cut: ["batch"], flops: 2 * 2 * 3 * 3 * 2 * (5 + 2) },
  "gru-grad": {
    op: { kind: "gru-grad" },
    inputs: [gru.forward[2] as Dense, ...gru.saved.slice(3), ...states.slice(0, 2)],
    cut: ["batch"],
    flops: 2 * 2 * 3 * 3 * 2 * 2,
  },
  "lstm-step": {
    op: { kind: "lstm-step" },
    inputs: [
      [3, 8],
      [8, 5],
      [3, 5],
      [3, 2],
    ].map((shape, i) => randomDense(shape, i)),
    cut: ["batch", "unit"],
    flops: 2 * 3 * 4 * 2 * 5,
  },
  "lstm-step-grad": {
    op: { kind: "lstm-step-grad" },
    inputs: [1, 2, 3, 4, 5, 6, 7, 8].map((seed) => randomDense([3, 2], seed)),
    cut: ["batch", "unit"],
    flops: 2 * 3 * 4 * 2,
  },
  "gru-step": {
    op: { kind: "gru-step" },
    inputs: [[3, 6], [6, 5], [6], [3, 5], [3, 2]].map((shape, i) => randomDense(shape, i)),
    cut: ["batch", "unit"],
    flops: 2 * 3 * 3 * 2 * 5,
  },
  "gru-step-grad": {
    op: { kind: "gru-step-grad" },
    inputs: [1, 2, 3, 4, 5, 6].map((seed) => randomDense([3, 2], seed)),
    cut: ["batch", "unit"],
    flops: 2 * 3 * 3 * 2,
  },
  "all-reduce": together({ kind: "all-reduce", reduce: "sum" }, [4, 4, 4]),
  "all-gather": together({ kind: "all-gather" }, [2, 1, 3]),
  "reduce-scatter": together({ kind: "reduce-scatter", sizes: [2, 0, 4] }, [6, 6, 6]),
};

describe("the iteration space of every operation keeps its word when loops are cut", () => {
  test.each(Object.entries(spaces))("%s", (_kind, entry) => {
    expect(checkSpace(entry)).toEqual(entry.cut);
    if (entry.flops !== undefined)
      expect(flopsOf(spaceOf(entry.op, entry.inputs, entry.dtypes))).toBe(entry.flops);
  });

  test("no operation is left out", () => {
    expect(Object.keys(spaces).toSorted()).toEqual(Object.keys(opTable).toSorted());
  });
});

function spaceOf(op: Op, inputs: readonly Dense[], dtypes: SpaceCheck["dtypes"] = []) {
  const types = inputs.map(({ shape }, i): TensorType => ({ dtype: dtypes[i] ?? "f64", shape }));
  const rules = rulesOf(op.kind);
  return rules.space(op, types, rules.infer(op, types));
}

describe("recurrent spaces do not depend on sizes that agree by chance", () => {
  test.each(["lstm", "gru"] as const)(
    "%s with as many samples as rows of weights, and inputs as wide as units",
    (kind) => {
      const gates = kind === "lstm" ? 4 : 3;
      const rows = gates * 2;
      const shapes = [
        [2, rows, 2],
        [rows, 2],
        [rows, 2],
        [rows],
        kind === "lstm" ? [rows, 2] : [rows],
        [rows, 2],
      ];
      const inputs = shapes.map((shape, i) => randomDense(shape, i));
      expect(checkSpace({ op: { kind }, inputs })).toEqual(["batch"]);
      const { operands } = spaceOf({ kind }, inputs);
      expect(operands.slice(0, 3)).toEqual([
        [[0], [1], []],
        [[2, 3], []],
        [[2, 3], []],
      ]);
    },
  );
});

describe("a reshape", () => {
  const space = (from: Shape, to: Shape) =>
    rulesOf("reshape").space({ kind: "reshape", shape: to }, [f64(from)], [f64(to)]);
  const index = (from: Shape, to: Shape) => {
    const { loops, operands, results } = space(from, to);
    return { loops: loops.map(({ size, kind }) => `${kind} ${size}`), from: operands[0], to: results[0] };
  };

  test("that joins dims indexes the joint one by all of its loops, outermost first", () => {
    expect(index([2, 3, 4], [6, 4])).toEqual({
      loops: ["parallel 2", "parallel 3", "parallel 4"],
      from: [[0], [1], [2]],
      to: [[0, 1], [2]],
    });
    expect(space([2, 3, 4], [6, 4]).loops.map(({ name }) => name)).toEqual(["d0", "d1", "d2"]);
  });

  test("that cuts a dim indexes it by the loops of the parts", () => {
    expect(index([2, 12], [2, 3, 4]).from).toEqual([[0], [1, 2]]);
  });

  test("that does neither needs the dims whole", () => {
    expect(index([2, 3], [3, 2])).toEqual({ loops: ["whole 3", "whole 2"], from: [[], []], to: [[0], [1]] });
  });

  test("adds and drops dims of size 1 anywhere", () => {
    expect(index([5], [5, 1])).toEqual({
      loops: ["parallel 5", "parallel 1"],
      from: [[0, 1]],
      to: [[0], [1]],
    });
    expect(index([1, 5], [5])).toEqual({
      loops: ["parallel 1", "parallel 5"],
      from: [[0], [1]],
      to: [[0, 1]],
    });
    expect(index([1], [])).toEqual({ loops: ["parallel 1"], from: [[0]], to: [] });
    expect(index([], [1, 1]).to).toEqual([[0], [1]]);
  });

  test("of a tensor without elements has a space, too", () => {
    expect(index([0, 3], [0])).toEqual({ loops: ["whole 0"], from: [[], []], to: [[0]] });
  });

  test("between any two shapes of as many elements keeps its word", () => {
    const factors = fc.array(fc.constantFrom(1, 2, 3), { minLength: 0, maxLength: 4 });
    const joined = fc.tuple(factors, fc.infiniteStream(fc.boolean()), fc.infiniteStream(fc.boolean()));
    fc.assert(
      fc.property(joined, ([sizes, left, right]) => {
        const join = (isJoined: Iterator<boolean>) => {
          const shape: number[] = [];
          for (const size of sizes) {
            const last = isJoined.next().value === true ? shape.pop() : undefined;
            shape.push((last ?? 1) * size);
          }
          return shape;
        };
        const [from, to] = [join(left), join(right)];
        const { operands, results, loops } = space(from, to);
        const elements = randomDense(from, 1).data;
        const isWhole = loops.some(({ kind }) => kind === "whole");
        if (isWhole) return;
        for (const [at, [shape, indices]] of [
          [from, operands[0]] as const,
          [to, results[0]] as const,
        ].entries()) {
          const strides = stridesOf(shape);
          const order = pointsOf(loops.map(({ size }) => size)).map((point) =>
            (indices ?? []).reduce((sum, dim, i) => {
              const offset = dim.reduce(
                (o, loop) => o * (loops[loop]?.size ?? 0) + (point[loop] as number),
                0,
              );
              return sum + offset * (strides[i] as number);
            }, 0),
          );
          expect(order, `side ${at}`).toEqual([...elements.keys()]);
        }
      }),
    );
  });
});

/** All points of a space with loops of these sizes, the last one fastest. */
function pointsOf(sizes: readonly number[]): number[][] {
  return sizes.reduce<number[][]>(
    (points, size) => points.flatMap((point) => Array.from({ length: size }, (_, i) => [...point, i])),
    [[]],
  );
}
