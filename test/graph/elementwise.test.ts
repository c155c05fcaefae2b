import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { Op } from "../../src/graph/op.ts";
import { type Dense, ShapeError } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import { erf } from "../../src/graph/ops/erf.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { broadcastShapes, sizeOf, type TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { expectClose, randomDense } from "./dense.ts";
import { pytorchCases } from "./pytorch-cases.ts";
import { broadcastable, dense, seeds } from "./shapes.ts";

function types(...shapes: (readonly number[])[]): readonly TensorType[] {
  return shapes.map((shape) => ({ dtype: "f64", shape }));
}

function run(op: Op, ...inputs: Dense[]): Dense {
  const rules = rulesOf(op.kind);
  const [result] = rules.evaluate(op, inputs, rules.infer(op, types(...inputs.map(({ shape }) => shape))));
  return result as Dense;
}

/** The result of a function of float64 inputs, and the gradients of its sum. */
function withGradients(
  inputs: { readonly [name: string]: Dense },
  build: (inputs: { readonly [name: string]: Tensor }) => Tensor,
): { readonly [name: string]: Dense } {
  const builder = new GraphBuilder();
  const tensors = Object.entries(inputs).map(
    ([name, { shape }]) => [name, builder.input(name, "parameter", { dtype: "f64", shape })] as const,
  );
  builder.output("y", build(Object.fromEntries(tensors)));
  const seedsOf = [{ output: "y", gradient: "one" as const }];
  const { graph } = differentiate(builder.build(), seedsOf, Object.keys(inputs));
  return Object.fromEntries(evaluateGraph(graph, new Map(Object.entries(inputs))));
}

describe("gelu", () => {
  test.each(pytorchCases("gelu"))("agrees with PyTorch: $name", ({ name, input, output, gradient }) => {
    const gelu = name === "tanh" ? f.geluTanh : f.gelu;
    const results = withGradients({ x: input("x") }, ({ x }) => gelu(x as Tensor));
    expectClose(results["y"] as Dense, output("y"), 1e-14);
    expectClose(results["grad:x"] as Dense, gradient("x"), 1e-13);
  });
});

test("erf has the values of the tables (Abramowitz and Stegun, table 7.1) on both sides of its change of formula", () => {
  expect(erf(0)).toBe(0);
  expect(erf(0.5)).toBeCloseTo(0.5204998778, 10);
  expect(erf(1)).toBeCloseTo(0.842700792949715, 14);
  expect(erf(-2)).toBeCloseTo(-0.995322265018953, 14);
  expect(erf(2.999999999)).toBeCloseTo(erf(3), 11);
  expect(1 - erf(3.5)).toBeCloseTo(7.430983723e-7, 15);
  expect(erf(30)).toBe(1);
  expect(erf(Number.NaN)).toBeNaN();
});

describe("at a kink", () => {
  test("equal operands of max and min share the gradient equally", () => {
    const inputs = { a: dense([3], 1, 2, 3), b: dense([3], 2, 2, 2) };
    const largest = withGradients(inputs, ({ a, b }) => f.maximum(a as Tensor, b as Tensor));
    expect([...(largest["grad:a"] as Dense).data]).toEqual([0, 0.5, 1]);
    expect([...(largest["grad:b"] as Dense).data]).toEqual([1, 0.5, 0]);
    const smallest = withGradients(inputs, ({ a, b }) => f.minimum(a as Tensor, b as Tensor));
    expect([...(smallest["grad:a"] as Dense).data]).toEqual([1, 0.5, 0]);
    expect([...(smallest["grad:b"] as Dense).data]).toEqual([0, 0.5, 1]);
  });

  test("the maxima of a reduction share the gradient equally", () => {
    const x = dense([2, 3], 5, 5, 1, 7, 7, 7);
    const results = withGradients({ x }, (at) => f.reduceMax(at["x"] as Tensor, [1]));
    expect([...(results["y"] as Dense).data]).toEqual([5, 7]);
    expectClose(results["grad:x"] as Dense, dense([2, 3], 0.5, 0.5, 0, 1 / 3, 1 / 3, 1 / 3), 1e-15);
  });

  test("relu and abs have the gradient 0 at 0", () => {
    for (const kinked of [f.relu, f.abs]) {
      const results = withGradients({ x: dense([3], -2, 0, 2) }, ({ x }) => kinked(x as Tensor));
      expect((results["grad:x"] as Dense).data[1]).toBe(0);
    }
  });
});

test("powers of negative numbers have their gradient for whole exponents", () => {
  const results = withGradients({ x: dense([2], -3, 2) }, ({ x }) =>
    f.pow(x as Tensor, f.scalar(x as Tensor, 2)),
  );
  expect([...(results["y"] as Dense).data]).toEqual([9, 4]);
  expect([...(results["grad:x"] as Dense).data]).toEqual([-6, 4]);
});

test("squashing functions do not overflow", () => {
  const x = dense([4], -1000, -40, 40, 1000);
  expectClose(run({ kind: "sigmoid" }, x), dense([4], 0, Math.exp(-40), 1, 1), 1e-15);
  expectClose(run({ kind: "softplus" }, x), dense([4], 0, Math.exp(-40), 40, 1000), 1e-15);
  expectClose(run({ kind: "silu" }, x), dense([4], 0, -40 * Math.exp(-40), 40, 1000), 1e-15);
});

test("binary operations broadcast as nested loops over the aligned indices do", () => {
  fc.assert(
    fc.property(broadcastable(2), seeds, ([left = [], right = []], seed) => {
      const [a, b] = [randomDense(left, seed), randomDense(right, seed + 1)];
      const shape = broadcastShapes([left, right]) as number[];
      const at = (x: Dense, index: readonly number[]): number =>
        x.shape.reduce(
          ({ offset }, size, dim) => {
            const i = size === 1 ? 0 : (index[dim + index.length - x.shape.length] as number);
            return { offset: offset * size + i };
          },
          { offset: 0 },
        ).offset;
      const expected = indicesOf(shape).map(
        (index) => (a.data[at(a, index)] as number) - (b.data[at(b, index)] as number),
      );
      expect(run({ kind: "sub" }, a, b)).toEqual({ shape, data: Float64Array.from(expected) });
    }),
  );
});

/** All indices of a shape, in C order. */
function indicesOf(shape: readonly number[]): number[][] {
  return shape.reduce<number[][]>(
    (indices, size) => indices.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])),
    [[]],
  );
}

test("shapes broadcast where NumPy's do", () => {
  expect(broadcastShapes([[3, 1], [4]])).toEqual([3, 4]);
  expect(broadcastShapes([[], [2]])).toEqual([2]);
  expect(broadcastShapes([[2], [3]])).toBeUndefined();
  expect(broadcastShapes([[0], [1]])).toEqual([0]);
  expect(sizeOf([])).toBe(1);
});

test("a cast truncates to whole numbers, rounds to float32 and compares with zero for bool", () => {
  const x = dense([3], -1.7, 0.1, 2.9);
  expect([...run({ kind: "cast", dtype: "i32" }, x).data]).toEqual([-1, 0, 2]);
  expect([...run({ kind: "cast", dtype: "f32" }, x).data]).toEqual([-1.7, 0.1, 2.9].map(Math.fround));
  expect([...run({ kind: "cast", dtype: "bool" }, dense([3], -1, 0, 0.5)).data]).toEqual([1, 0, 1]);
});

test("whole numbers divide toward zero", () => {
  const type: TensorType = { dtype: "i32", shape: [4] };
  const operands = [dense([4], 7, -7, 7, 6), dense([4], 2, 2, -2, 3)];
  expect([...(rulesOf("div").evaluate({ kind: "div" }, operands, [type])[0] as Dense).data]).toEqual([
    3, -3, -3, 2,
  ]);
});

describe("operands that do not fit", () => {
  const f64 = (...shape: number[]): TensorType => ({ dtype: "f64", shape });
  const bool = (...shape: number[]): TensorType => ({ dtype: "bool", shape });
  test.each<[Op, TensorType[], string]>([
    [{ kind: "add" }, [f64(2), f64(3)], "operands f64[2] and f64[3] do not fit together"],
    [
      { kind: "add" },
      [f64(2), { dtype: "f32", shape: [2] }],
      "operands f64[2] and f32[2] do not fit together",
    ],
    [{ kind: "add" }, [bool(2), bool(2)], "is not defined for bool[2]"],
    [{ kind: "and" }, [f64(2), f64(2)], "is not defined for f64[2]"],
    [{ kind: "exp" }, [{ dtype: "i32", shape: [2] }], "expects floats, got i32[2]"],
    [{ kind: "neg" }, [bool(2)], "expects numbers, got bool[2]"],
    [{ kind: "mean", dims: [0], keep: false }, [{ dtype: "i32", shape: [2] }], "expects floats, got i32[2]"],
    [{ kind: "not" }, [f64(2)], "expects bool, got f64[2]"],
    [{ kind: "where" }, [f64(2), f64(2), f64(2)], "operands f64[2], f64[2], f64[2] do not fit together"],
    [{ kind: "sum", dims: [2], keep: false }, [f64(2, 3)], "dims 2 do not exist in f64[2,3]"],
  ])("%j", (op, inputs, message) => {
    const infer = () => rulesOf(op.kind).infer(op, inputs);
    expect(infer).toThrow(ShapeError);
    expect(infer).toThrow(message);
  });
});
