import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import { GraphBuilder, replay } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import { inferTypes } from "../../src/graph/infer.ts";
import type { Op, OpKind } from "../../src/graph/op.ts";
import { ShapeError } from "../../src/graph/op-rules.ts";
import { opTable } from "../../src/graph/op-table.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { randomGraphs } from "./random-graphs.ts";

const type: TensorType = { dtype: "f32", shape: [2, 3] };

describe("equal operations", () => {
  test("in one group and phase are made once", () => {
    const builder = new GraphBuilder();
    const x = builder.input("x", "data", type);
    expect(f.tanh(x)).toBe(f.tanh(x));
    expect(f.scalar(x, 2)).toBe(f.scalar(x, 2));
    expect(builder.build().nodes).toHaveLength(2);
  });

  test("in another group or phase, on other operands, or with other attributes are different", () => {
    const builder = new GraphBuilder();
    const [x, y] = [builder.input("x", "data", type), builder.input("y", "data", type)];
    const made = new Set([
      f.tanh(x),
      builder.within({ group: "g" }, () => f.tanh(x)),
      builder.within({ phase: "B" }, () => f.tanh(x)),
      f.tanh(y),
      f.sub(x, y),
      f.sub(y, x),
      f.sum(x, [0]),
      f.sum(x, [0], true),
    ]);
    expect(made.size).toBe(8);
  });

  test("have equal numbers: 0, -0, NaN and the infinities differ", () => {
    const builder = new GraphBuilder();
    const values = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, "-0"];
    const made = new Set(values.map((value) => f.constant(builder, "f64", [], value as number)));
    expect(made.size).toBe(5);
  });
});

test("groups and phases nest, and are left when building fails", () => {
  const builder = new GraphBuilder();
  const x = builder.input("x", "data", type);
  builder.within({ group: "outer" }, () => {
    f.neg(x);
    builder.within({ phase: "B" }, () => f.abs(x));
    expect(() =>
      builder.within({ group: "inner", phase: "W" }, () => {
        throw new Error("stop");
      }),
    ).toThrow("stop");
    f.exp(x);
  });
  f.sin(x);
  expect(builder.build().nodes.map(({ op, group, phase }) => `${op.kind} ${group} ${phase}`)).toEqual([
    "neg outer F",
    "abs outer B",
    "exp outer F",
    "sin model F",
  ]);
  expect(builder.groupOf(x)).toBeUndefined();
});

test("an input is declared once, and again only with the same role and type", () => {
  const builder = new GraphBuilder();
  const x = builder.input("x", "parameter", type);
  expect(builder.within({ group: "other" }, () => builder.input("x", "parameter", type))).toBe(x);
  expect(() => builder.input("x", "parameter", { dtype: "f32", shape: [3, 2] })).toThrow(
    'input "x" is used as parameter f32[3,2] in group "model", but was declared as parameter f32[2,3] in group "model"',
  );
  expect(() => builder.input("x", "data", type)).toThrow(UserError);
  expect(builder.build().inputs).toEqual([{ name: "x", role: "parameter", group: "model" }]);
});

test("a mistake names operation, group and both shapes", () => {
  const builder = new GraphBuilder();
  const [x, y] = [
    builder.input("x", "data", type),
    builder.input("y", "data", { dtype: "f32", shape: [4, 3] }),
  ];
  const build = () => builder.within({ group: "decode" }, () => f.matmul(x, y));
  expect(build).toThrow(UserError);
  expect(build).toThrow('matmul in group "decode": f32[2,3] x f32[4,3]: the inner dims are 3 and 4');
});

test("tensors of another graph are refused", () => {
  const [x, y] = [new GraphBuilder(), new GraphBuilder()].map((builder) =>
    builder.input("x", "data", type),
  ) as [Tensor, Tensor];
  expect(() => f.add(x, y)).toThrow('add in group "model": an operand belongs to another graph');
});

test("functions that leave their operand as it is add nothing, but still check it", () => {
  const builder = new GraphBuilder();
  const x = builder.input("x", "data", type);
  for (const same of [
    f.transpose(x, [0, 1]),
    f.reshape(x, [2, 3]),
    f.broadcast(x, [2, 3]),
    f.cast(x, "f32"),
    f.sum(x, []),
  ])
    expect(same).toBe(x);
  expect(f.sliceDim(x, -1, 0, 3)).toBe(x);
  expect(() => f.transpose(x, [0])).toThrow("[0] is not a permutation of the dims of f32[2,3]");
  expect(() => f.sum(x, [2])).toThrow("sum: dim 2 does not exist in a tensor of shape [2,3]");
  expect(() => f.concat([], 0)).toThrow(UserError);
  expect(() => f.reshape(x, [-2, -3])).toThrow("the result f32[-2,-3] has a size that is not a whole number");
  expect(() => f.slice(x, [0, 0], [2, 3], [1, 1.5])).toThrow("does not lie in f32[2,3]");
  expect(() => f.pad(x, [0.5, 0], [0.5, 0])).toThrow("do not give counts for every dim");
});

describe("any number of operands", () => {
  /** Attributes that let every kind's shape rule run. */
  const attributes = {
    dims: [],
    keep: false,
    dtype: "f32",
    shape: [1],
    dim: 0,
    value: 0,
    permutation: [],
    start: [],
    stop: [],
    step: [],
    sizes: [1],
    before: [],
    after: [],
    size: 1,
    ignore: -1,
    epsilon: 1,
    groups: 1,
    height: 1,
    width: 1,
    kernel: [1, 1],
    window: { stride: [1, 1], pad: [0, 0, 0, 0], dilation: [1, 1] },
    strides: [1],
    transposeA: false,
    transposeB: false,
  };

  /** Kinds that take as many as there are; every other one takes one number of operands only. */
  const anyCount: readonly OpKind[] = ["concat", "all-reduce", "all-gather"];

  test.each(Object.keys(opTable) as OpKind[])("%s gives types or a ShapeError", (kind) => {
    const op = { ...attributes, keep: kind === "dropout-mask" ? 0.5 : false, kind } as unknown as Op;
    const shapes = fc.array(fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 4 }), { maxLength: 11 });
    let refused = 0;
    const run = (inputs: readonly TensorType[]): void => {
      try {
        inferTypes(op, inputs);
      } catch (error) {
        expect(error).toBeInstanceOf(ShapeError);
        refused++;
      }
    };
    for (let count = 0; count < 12; count++)
      run(Array.from({ length: count }, () => ({ dtype: "f32", shape: [1, 1] })));
    expect(refused).toBeGreaterThanOrEqual(anyCount.includes(kind) ? 1 : 11);
    fc.assert(
      fc.property(shapes, fc.constantFrom("f32", "i32", "bool" as const), (list, dtype) =>
        run(list.map((shape) => ({ dtype, shape }))),
      ),
      { numRuns: 30 },
    );
  });
});

test("a replayed graph is the same graph", () => {
  fc.assert(
    fc.property(randomGraphs({ phases: ["F", "B"] }), ({ graph, inputs }) => {
      const builder = new GraphBuilder();
      const tensors = replay(builder, graph);
      for (const { name, value } of graph.outputs) builder.output(name, tensors[value] as Tensor);
      const again = builder.build();
      expect(again).toEqual(graph);
      expect(evaluateGraph(again, inputs)).toEqual(evaluateGraph(graph, inputs));
    }),
  );
});

test("the reference says which input is missing, and which has the wrong size", () => {
  const builder = new GraphBuilder();
  builder.output("y", f.neg(builder.input("x", "data", type)));
  expect(() => evaluateGraph(builder.build(), new Map())).toThrow('input "x" (f32[2,3]) was not given');
  const short = new Map([["x", { shape: [2], data: new Float64Array(2) }]]);
  expect(() => evaluateGraph(builder.build(), short)).toThrow('input "x" is f32[2,3], but [2] was given');
});
