import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { BinaryKind, Op, OpKind, UnaryKind } from "../../src/graph/op.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { opTable } from "../../src/graph/op-table.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { broadcastShapes } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { distinctDense, randomDense } from "./dense.ts";
import { checkGradients } from "./gradient-check.ts";
import {
  bits,
  broadcastable,
  dense,
  distinctPair,
  integers,
  nonZero,
  permutations,
  positive,
  seeds,
  shapesOf,
  signed,
} from "./shapes.ts";

/** A check of the derivative, or the reason why there is none. */
type Entry = (() => void) | string;

const noGradient = "its results are true or false";
const secondOrder = "it is a derivative whose own derivative no training step needs";
const afterDifferentiation = "graphs have it only after they were differentiated and split";
const noFloats = "it has no operand with a gradient";

function apply(op: Op, ...inputs: [Tensor, ...Tensor[]]): readonly Tensor[] {
  return inputs[0].scope.apply(op, inputs);
}

function runs<T>(numRuns: number, arbitrary: fc.Arbitrary<T>, check: (value: T, seed: number) => void): void {
  fc.assert(fc.property(arbitrary, seeds, check), { numRuns });
}

function unary(kind: UnaryKind, values = signed): Entry {
  return () =>
    runs(15, shapesOf(0, 3), (shape, seed) => {
      checkGradients({ inputs: { x: values(shape, seed) }, build: ({ x }) => apply({ kind }, x) });
    });
}

function binary(kind: BinaryKind, a = signed, b = signed): Entry {
  return () =>
    runs(25, broadcastable(2), ([left = [], right = []], seed) => {
      checkGradients({
        inputs: { a: a(left, seed), b: b(right, seed + 1) },
        build: (at) => apply({ kind }, at.a, at.b),
      });
    });
}

function extreme(kind: "max" | "min"): Entry {
  return () =>
    runs(25, broadcastable(2), ([left = [], right = []], seed) => {
      const [a, b] = distinctPair(left, right, seed);
      checkGradients({ inputs: { a, b }, build: (at) => apply({ kind }, at.a, at.b) });
    });
}

function reduction(kind: "sum" | "mean" | "reduce-max"): Entry {
  const which = fc.tuple(
    shapesOf(1, 3),
    fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    fc.boolean(),
  );
  return () =>
    runs(25, which, ([shape, chosen, keep], seed) => {
      const dims = shape.flatMap((_, dim) => (chosen[dim] ? [dim] : []));
      checkGradients({
        inputs: { x: distinctDense(shape, seed) },
        build: ({ x }) => apply({ kind, dims, keep }, x),
      });
    });
}

const indices = (shape: readonly number[], seed: number, below: number) => ({
  ...integers(shape, seed, below),
  dtype: "i32" as const,
});

/** Indices of rank 0 to 2, the rest of a row of rank 0 to 2, and the number of rows. */
const lookups = fc.tuple(shapesOf(0, 2), shapesOf(0, 2), fc.integer({ min: 1, max: 4 }));

const windows = fc.constantFrom(
  { stride: [1, 1], pad: [0, 0, 0, 0], dilation: [1, 1] } as const,
  { stride: [2, 1], pad: [1, 0, 1, 1], dilation: [1, 2] } as const,
);

const recurrences = fc.record({
  steps: fc.integer({ min: 1, max: 4 }),
  batch: fc.integer({ min: 1, max: 3 }),
  width: fc.integer({ min: 1, max: 3 }),
  units: fc.integer({ min: 1, max: 3 }),
});

const checks: { readonly [K in OpKind]: Entry } = {
  neg: unary("neg"),
  abs: unary("abs", nonZero),
  sign: unary("sign", nonZero),
  exp: unary("exp"),
  log: unary("log", positive),
  sqrt: unary("sqrt", positive),
  reciprocal: unary("reciprocal", nonZero),
  square: unary("square"),
  sin: unary("sin"),
  cos: unary("cos"),
  erf: unary("erf"),
  sigmoid: unary("sigmoid"),
  tanh: unary("tanh"),
  relu: unary("relu", nonZero),
  gelu: unary("gelu"),
  "gelu-tanh": unary("gelu-tanh"),
  silu: unary("silu"),
  softplus: unary("softplus"),
  not: noGradient,
  add: binary("add"),
  sub: binary("sub"),
  mul: binary("mul"),
  div: binary("div", signed, nonZero),
  pow: binary("pow", positive, signed),
  max: extreme("max"),
  min: extreme("min"),
  and: noGradient,
  or: noGradient,
  equal: noGradient,
  less: noGradient,
  "less-equal": noGradient,
  greater: noGradient,
  "greater-equal": noGradient,
  where: () =>
    runs(25, broadcastable(3), ([condition = [], a = [], b = []], seed) => {
      checkGradients({
        inputs: { a: signed(a, seed), b: signed(b, seed + 1) },
        fixed: { condition: { ...bits(condition, seed + 2), dtype: "bool" } },
        build: (at) => f.where(at.condition, at.a, at.b),
      });
    }),
  cast: () => {
    const builder = new GraphBuilder();
    const x = builder.input("x", "parameter", { dtype: "f64", shape: [2] });
    const scale = builder.input("scale", "data", { dtype: "f32", shape: [2] });
    builder.output("y", f.mul(f.cast(x, "f32"), scale));
    const { graph } = differentiate(builder.build(), [{ output: "y", gradient: "one" }], ["x"]);
    const weights = dense([2], 0.5, -3);
    const given = { x: dense([2], 1, 2), scale: weights };
    const values = evaluateGraph(graph, new Map(Object.entries(given)));
    expect(values.get("grad:x")).toEqual(weights);
  },
  sum: reduction("sum"),
  mean: reduction("mean"),
  "reduce-max": reduction("reduce-max"),
  constant: noFloats,
  iota: noFloats,
  broadcast: () =>
    runs(25, broadcastable(2), ([small = [], large = []], seed) => {
      const shape = broadcastShapes([small, large]) ?? [];
      checkGradients({
        inputs: { x: signed(small, seed) },
        build: ({ x }) => apply({ kind: "broadcast", shape }, x),
      });
    }),
  reshape: () =>
    runs(15, shapesOf(0, 3), (shape, seed) => {
      const flat = [1, shape.reduce((a, b) => a * b, 1)];
      checkGradients({
        inputs: { x: signed(shape, seed), y: signed(flat, seed + 1) },
        build: ({ x, y }) =>
          [apply({ kind: "reshape", shape: flat }, x), apply({ kind: "reshape", shape }, y)].flat(),
      });
    }),
  transpose: () =>
    runs(20, fc.tuple(permutations(3), shapesOf(3, 3)), ([permutation, shape], seed) => {
      checkGradients({
        inputs: { x: signed(shape, seed) },
        build: ({ x }) => apply({ kind: "transpose", permutation }, x),
      });
    }),
  slice: () => {
    const dim = fc.record({
      start: fc.nat(3),
      count: fc.integer({ min: 1, max: 4 }),
      step: fc.integer({ min: 1, max: 3 }),
      after: fc.nat(2),
    });
    runs(30, fc.array(dim, { minLength: 1, maxLength: 2 }), (dims, seed) => {
      const start = dims.map((at) => at.start);
      const stop = dims.map((at) => at.start + at.count);
      const step = dims.map((at) => at.step);
      const shape = dims.map((at) => at.start + at.count + at.after);
      checkGradients({
        inputs: { x: signed(shape, seed) },
        build: ({ x }) => apply({ kind: "slice", start, stop, step }, x),
      });
    });
  },
  concat: () =>
    runs(20, fc.tuple(shapesOf(1, 3), fc.nat(2), shapesOf(1, 3)), ([shape, at, sizes], seed) => {
      const dim = at % shape.length;
      const parts = sizes.map((size, i) => [`x${i}`, signed(shape.with(dim, size), seed + i)] as const);
      checkGradients({
        inputs: Object.fromEntries(parts) as { readonly [name: string]: Dense },
        build: (inputs) =>
          apply({ kind: "concat", dim }, ...(Object.values(inputs) as [Tensor, ...Tensor[]])),
      });
    }),
  split: () =>
    runs(
      20,
      fc.tuple(shapesOf(1, 3), fc.nat(2), shapesOf(1, 3), fc.nat(2)),
      ([shape, at, sizes, left], seed) => {
        const dim = at % shape.length;
        const total = sizes.reduce((a, b) => a + b, 0);
        checkGradients({
          inputs: { x: signed(shape.with(dim, total), seed) },
          build: ({ x }) => {
            const parts = apply({ kind: "split", dim, sizes }, x);
            return parts.length > 1 ? parts.filter((_, i) => i !== left % parts.length) : parts;
          },
        });
      },
    ),
  pad: () =>
    runs(
      20,
      fc.tuple(shapesOf(2, 2), fc.array(fc.nat(2), { minLength: 4, maxLength: 4 })),
      ([shape, counts], seed) => {
        const [before, after] = [counts.slice(0, 2), counts.slice(2)];
        checkGradients({
          inputs: { x: signed(shape, seed) },
          build: ({ x }) => apply({ kind: "pad", before, after, value: 7 }, x),
        });
      },
    ),
  matmul: () => {
    const sizes = fc.tuple(broadcastable(2), shapesOf(3, 3), fc.boolean(), fc.boolean());
    runs(40, sizes, ([[left = [], right = []], [m = 1, n = 1, k = 1], transposeA, transposeB], seed) => {
      checkGradients({
        inputs: {
          a: signed([...left, ...(transposeA ? [k, m] : [m, k])], seed),
          b: signed([...right, ...(transposeB ? [n, k] : [k, n])], seed + 1),
        },
        build: (at) => apply({ kind: "matmul", transposeA, transposeB }, at.a, at.b),
      });
    });
  },
  gather: () =>
    runs(20, lookups, ([lead, row, count], seed) => {
      checkGradients({
        inputs: { table: signed([count, ...row], seed) },
        fixed: { at: indices(lead, seed + 1, count) },
        build: ({ table, at }) => f.gather(table, at),
      });
    }),
  "scatter-add": () =>
    runs(20, lookups, ([lead, row, size], seed) => {
      checkGradients({
        inputs: { updates: signed([...lead, ...row], seed) },
        fixed: { at: indices(lead, seed + 1, size) },
        build: ({ updates, at }) => f.scatterAdd(at, updates, size),
      });
    }),
  take: () =>
    runs(20, lookups, ([lead, , size], seed) => {
      checkGradients({
        inputs: { x: signed([...lead, size], seed) },
        fixed: { at: { ...indices(lead, seed + 1, size + 2), dtype: "i32" } },
        build: ({ x, at }) => f.take(x, f.sub(at, f.constant(at.scope, "i32", [], 1))),
      });
    }),
  "take-grad": () =>
    runs(20, lookups, ([lead, , size], seed) => {
      checkGradients({
        inputs: { updates: signed(lead, seed) },
        fixed: { at: indices(lead, seed + 1, size + 1) },
        build: ({ updates, at }) => apply({ kind: "take-grad", size }, at, updates),
      });
    }),
  softmax: () =>
    runs(10, shapesOf(1, 3), (shape, seed) => {
      checkGradients({ inputs: { x: signed(shape, seed) }, build: ({ x }) => f.softmax(x) });
    }),
  "log-softmax": () =>
    runs(10, shapesOf(1, 3), (shape, seed) => {
      checkGradients({ inputs: { x: signed(shape, seed) }, build: ({ x }) => f.logSoftmax(x) });
    }),
  "softmax-grad": () =>
    runs(10, shapesOf(1, 3), (shape, seed) => {
      checkGradients({
        inputs: { y: signed(shape, seed), dy: signed(shape, seed + 1) },
        build: ({ y, dy }) => apply({ kind: "softmax-grad" }, y, dy),
      });
    }),
  "cross-entropy": () =>
    runs(
      25,
      fc.tuple(shapesOf(0, 2), fc.integer({ min: 1, max: 4 }), fc.nat(1)),
      ([rows, classes, ignore], seed) => {
        checkGradients({
          inputs: { logits: signed([...rows, classes], seed) },
          fixed: { targets: indices(rows, seed + 1, classes) },
          build: ({ logits, targets }) => f.crossEntropy(logits, targets, ignore),
        });
      },
    ),
  "cross-entropy-grad": secondOrder,
  "layer-norm": () =>
    runs(10, shapesOf(1, 3), (shape, seed) => {
      const width = shape.slice(-1);
      checkGradients({
        inputs: { x: signed(shape, seed), scale: signed(width, seed + 1), shift: signed(width, seed + 2) },
        build: ({ x, scale, shift }) => f.layerNorm(x, scale, shift, 0.1),
      });
    }),
  "layer-norm-grad": secondOrder,
  "batch-norm": () =>
    runs(10, shapesOf(2, 4), (shape, seed) => {
      const channels = shape.slice(1, 2);
      checkGradients({
        inputs: {
          x: signed(shape, seed),
          scale: signed(channels, seed + 1),
          shift: signed(channels, seed + 2),
        },
        build: ({ x, scale, shift }) => f.only(f.batchNorm(x, scale, shift, 0.1).slice(0, 1)),
      });
    }),
  "batch-norm-grad": secondOrder,
  conv2d: () =>
    runs(4, windows, (window, seed) => {
      checkGradients({
        inputs: { x: randomDense([1, 2, 5, 5], seed), w: randomDense([2, 1, 2, 2], seed + 1) },
        build: ({ x, w }) => f.conv2d(x, w, { ...window, groups: 2 }),
      });
    }),
  "conv2d-input-grad": () =>
    runs(2, fc.constant({}), (_, seed) => {
      const op = { kind: "conv2d-input-grad", groups: 1, height: 4, width: 3 } as const;
      const window = { stride: [2, 1], pad: [1, 0, 0, 0], dilation: [1, 1] } as const;
      checkGradients({
        inputs: { dy: randomDense([1, 1, 2, 2], seed), w: randomDense([1, 2, 2, 2], seed + 1) },
        build: ({ dy, w }) => apply({ ...op, window }, dy, w),
      });
    }),
  "conv2d-weight-grad": () =>
    runs(2, fc.constant({}), (_, seed) => {
      const window = { stride: [2, 1], pad: [1, 0, 0, 0], dilation: [1, 1] } as const;
      checkGradients({
        inputs: { x: randomDense([1, 2, 4, 3], seed), dy: randomDense([1, 1, 2, 2], seed + 1) },
        build: ({ x, dy }) => apply({ kind: "conv2d-weight-grad", groups: 1, window, kernel: [2, 2] }, x, dy),
      });
    }),
  "max-pool": () =>
    runs(4, windows, (window, seed) => {
      checkGradients({
        inputs: { x: distinctDense([1, 2, 5, 5], seed) },
        build: ({ x }) => f.maxPool(x, [2, 2], window),
      });
    }),
  "max-pool-grad": secondOrder,
  "avg-pool": () =>
    runs(4, windows, (window, seed) => {
      checkGradients({
        inputs: { x: signed([1, 2, 5, 5], seed) },
        build: ({ x }) => f.avgPool(x, [2, 2], window),
      });
    }),
  "avg-pool-grad": () =>
    runs(2, fc.constant({}), (_, seed) => {
      const window = { stride: [1, 2], pad: [0, 0, 0, 0], dilation: [1, 1] } as const;
      checkGradients({
        inputs: { dy: signed([1, 1, 3, 2], seed) },
        build: ({ dy }) => apply({ kind: "avg-pool-grad", window, kernel: [2, 2], height: 4, width: 4 }, dy),
      });
    }),
  "dropout-mask": noFloats,
  lstm: () =>
    runs(25, recurrences, ({ steps, batch, width, units }, seed) => {
      checkGradients({
        inputs: {
          x: signed([steps, batch, width], seed),
          w: signed([4 * units, width], seed + 1),
          u: signed([4 * units, units], seed + 2),
          b: signed([4 * units], seed + 3),
          h0: signed([batch, units], seed + 4),
          c0: signed([batch, units], seed + 5),
        },
        build: (operands) => f.lstm(operands),
      });
    }),
  "lstm-grad": secondOrder,
  gru: () =>
    runs(25, recurrences, ({ steps, batch, width, units }, seed) => {
      checkGradients({
        inputs: {
          x: signed([steps, batch, width], seed),
          w: signed([3 * units, width], seed + 1),
          u: signed([3 * units, units], seed + 2),
          b: signed([3 * units], seed + 3),
          p: signed([3 * units], seed + 4),
          h0: signed([batch, units], seed + 5),
        },
        build: (operands) => f.gru(operands),
      });
    }),
  "gru-grad": secondOrder,
  "lstm-step": afterDifferentiation,
  "lstm-step-grad": afterDifferentiation,
  "gru-step": afterDifferentiation,
  "gru-step-grad": afterDifferentiation,
  "all-reduce": afterDifferentiation,
  "all-gather": afterDifferentiation,
  "reduce-scatter": afterDifferentiation,
};

describe("the derivative of every operation agrees with central differences", () => {
  const entries = Object.entries(checks).filter(
    (entry): entry is [string, () => void] => typeof entry[1] !== "string",
  );
  test.each(entries)("%s", (_kind, check) => check());

  test("an operation without a derivative says why, and no other operation lacks one", () => {
    const without = Object.entries(checks).flatMap(([kind, entry]) =>
      typeof entry === "string" ? [[kind, entry]] : [],
    );
    const lacking = Object.entries(opTable).flatMap(([kind, { derive }]) => (derive === null ? [kind] : []));
    const expected = without.flatMap(([kind, reason]) => (reason === noFloats ? [] : [kind]));
    expect(expected.toSorted()).toEqual(lacking.toSorted());
    expect(Object.keys(checks).toSorted()).toEqual(Object.keys(opTable).toSorted());
  });
});
