import { describe, expect, test } from "vitest";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { inferTypes } from "../../src/graph/infer.ts";
import type { Op } from "../../src/graph/op.ts";
import { type Dense, ShapeError } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import type { Shape, TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { parseGraph, printGraph } from "../../src/graph/text.ts";
import { dense } from "./shapes.ts";

const sum = { kind: "all-reduce", reduce: "sum" } as const;
const max = { kind: "all-reduce", reduce: "max" } as const;
const gather = { kind: "all-gather" } as const;
const scatter = (...sizes: readonly number[]): Op => ({ kind: "reduce-scatter", sizes });

const f64 = (...shape: Shape): TensorType => ({ dtype: "f64", shape });

/** What each rank gets; every result has the shape of its inferred type. */
function evaluate(op: Op, ...inputs: readonly Dense[]): readonly Dense[] {
  const types = inputs.map(({ shape }) => f64(...shape));
  const inferred = inferTypes(op, types);
  const results = rulesOf(op.kind).evaluate(op, inputs, inferred);
  expect(results.map(({ shape }) => shape)).toEqual(inferred.map(({ shape }) => shape));
  return results;
}

const refusal = (op: Op, ...inputs: readonly TensorType[]) => expect(() => inferTypes(op, inputs));

const three = [dense([2, 2], 1, -2, 3, 4), dense([2, 2], 10, 20, -30, 40), dense([2, 2], 5, 6, 7, -100)];

describe("an all-reduce", () => {
  test("gives every rank the sum of all", () => {
    const total = dense([2, 2], 16, 24, -20, -56);
    expect(evaluate(sum, ...three)).toEqual([total, total, total]);
  });

  test("gives every rank the largest of all", () => {
    const largest = dense([2, 2], 10, 20, 7, 40);
    expect(evaluate(max, ...three)).toEqual([largest, largest, largest]);
  });

  test("adds in the order of the ranks", () => {
    const [large, one, back] = [dense([], 1e16), dense([], 1), dense([], -1e16)];
    expect(evaluate(sum, large, one, back)[0]).toEqual(dense([], 0));
    expect(evaluate(sum, large, back, one)[0]).toEqual(dense([], 1));
  });

  test.each([sum, max])("of one rank leaves its tensor as it is: $reduce", (op) => {
    expect(evaluate(op, dense([3], 1, 2, 3))).toEqual([dense([3], 1, 2, 3)]);
  });

  test.each([sum, max])("shows on every rank what is not a number on one: $reduce", (op) => {
    expect(evaluate(op, dense([2], 1, Number.NaN), dense([2], 2, 3))[1]?.data[1]).toBeNaN();
  });

  test("of tensors without elements has none", () => {
    expect(evaluate(sum, dense([0, 3]), dense([0, 3]))).toEqual([dense([0, 3]), dense([0, 3])]);
  });

  test("refuses operands of different types, and what is no number", () => {
    refusal(sum, f64(2, 3), f64(3, 2)).toThrow(
      new ShapeError("operands must have one type, got f64[2,3], f64[3,2]"),
    );
    refusal(max, f64(2), { dtype: "f32", shape: [2] }).toThrow(
      new ShapeError("operands must have one type, got f64[2], f32[2]"),
    );
    const bool: TensorType = { dtype: "bool", shape: [2] };
    refusal(max, bool, bool).toThrow(new ShapeError("expects numbers, got bool[2]"));
    refusal(sum).toThrow(ShapeError);
  });
});

describe("an all-gather", () => {
  test("gives every rank the rows of all, in the order of the ranks", () => {
    const all = dense([4, 2], 1, 2, 3, 4, 5, 6, 7, 8);
    expect(evaluate(gather, dense([2, 2], 1, 2, 3, 4), dense([2, 2], 5, 6, 7, 8))).toEqual([all, all]);
  });

  test("takes parts of different numbers of rows, and none", () => {
    const all = dense([4], 1, 2, 3, 4);
    const parts = [dense([3], 1, 2, 3), dense([0]), dense([1], 4)];
    expect(evaluate(gather, ...parts)).toEqual([all, all, all]);
    expect(evaluate(gather, dense([0, 2]), dense([0, 2]))).toEqual([dense([0, 2]), dense([0, 2])]);
  });

  test("moves truth values as well", () => {
    const bool = (rows: number): TensorType => ({ dtype: "bool", shape: [rows] });
    expect(inferTypes(gather, [bool(1), bool(2)])).toEqual([bool(3), bool(3)]);
  });

  test("refuses operands that differ in more than their rows, or have none", () => {
    refusal(gather, f64(2, 3), f64(2, 4)).toThrow(
      new ShapeError("operands must differ in dim 0 only, got f64[2,3], f64[2,4]"),
    );
    refusal(gather, f64(2), { dtype: "f32", shape: [2] }).toThrow(
      new ShapeError("operands must differ in dim 0 only, got f64[2], f32[2]"),
    );
    refusal(gather, f64(2), f64(2, 1)).toThrow(ShapeError);
    refusal(gather, f64(), f64()).toThrow(
      new ShapeError("operands must differ in dim 0 only, got f64[], f64[]"),
    );
    refusal(gather).toThrow(ShapeError);
  });
});

describe("a reduce-scatter", () => {
  test("gives every rank its rows of the sum", () => {
    expect(evaluate(scatter(1, 1), ...three.slice(0, 2))).toEqual([
      dense([1, 2], 11, 18),
      dense([1, 2], -27, 44),
    ]);
  });

  test("cuts into parts of different numbers of rows, and none", () => {
    const parts = [dense([4], 1, 2, 3, 4), dense([4], 10, 20, 30, 40), dense([4], 100, 200, 300, 400)];
    expect(evaluate(scatter(3, 0, 1), ...parts)).toEqual([
      dense([3], 111, 222, 333),
      dense([0]),
      dense([1], 444),
    ]);
    expect(evaluate(scatter(0, 0), dense([0, 2]), dense([0, 2]))).toEqual([dense([0, 2]), dense([0, 2])]);
  });

  test("and an all-gather of what it gives is an all-reduce", () => {
    const parts = [dense([3, 2], 1, 2, 3, 4, 5, 6), dense([3, 2], 6, 5, 4, 3, 2, 1)];
    expect(evaluate(gather, ...evaluate(scatter(2, 1), ...parts))).toEqual(evaluate(sum, ...parts));
  });

  test("refuses operands of different types, and parts that do not make up their rows", () => {
    refusal(scatter(1, 1), f64(2), f64(3)).toThrow(
      new ShapeError("operands must have one type, got f64[2], f64[3]"),
    );
    refusal(scatter(2, 2), f64(3, 1), f64(3, 1)).toThrow(
      new ShapeError("parts of [2,2] rows do not make up 2 operands of f64[3,1]"),
    );
    refusal(scatter(1, 1, 1), f64(3), f64(3)).toThrow(
      new ShapeError("parts of [1,1,1] rows do not make up 2 operands of f64[3]"),
    );
    refusal(scatter(0, 0), f64(), f64()).toThrow(
      new ShapeError("parts of [0,0] rows do not make up 2 operands of f64[]"),
    );
    refusal(scatter(4, -1), f64(3), f64(3)).toThrow(
      new ShapeError("the result f64[-1] has a size that is not a whole number"),
    );
    const bool: TensorType = { dtype: "bool", shape: [2] };
    refusal(scatter(1, 1), bool, bool).toThrow(new ShapeError("expects numbers, got bool[2]"));
  });
});

test("a graph with collective operations is read as it was printed", () => {
  const builder = new GraphBuilder();
  const parts = [0, 1].map((rank) => builder.input(`x#${rank}`, "data", f64(3, 2)));
  const own = builder.apply(scatter(2, 1), parts);
  const all = builder.apply(gather, own);
  const totals = [...builder.apply(sum, parts), ...builder.apply(max, all)];
  totals.forEach((total: Tensor, i) => {
    builder.output(`y${i}`, total);
  });
  const graph = builder.build();
  expect(parseGraph(printGraph(graph))).toEqual(graph);
});
