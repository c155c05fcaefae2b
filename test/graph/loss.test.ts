import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { uniform } from "../../src/base/random.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { crossEntropy, div, scalar, sum } from "../../src/graph/functions.ts";
import type { Op } from "../../src/graph/op.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { stridesOf, type TensorType } from "../../src/graph/shape.ts";
import { expectClose } from "./dense.ts";
import { pytorchCases } from "./pytorch-cases.ts";
import { dense, seeds } from "./shapes.ts";

describe("cross-entropy", () => {
  test.each(pytorchCases("cross-entropy"))("agrees with PyTorch: $name", ({ input, output, gradient }) => {
    const [logits, targets] = [input("logits"), input("targets")];
    const builder = new GraphBuilder();
    const loss = crossEntropy(
      builder.input("logits", "parameter", { dtype: "f64", shape: logits.shape }),
      builder.input("targets", "data", { dtype: "i32", shape: targets.shape }),
    );
    const valid = targets.data.filter((target) => target !== -1).length;
    builder.output("perRow", loss);
    builder.output("loss", div(sum(loss), scalar(loss, valid)));
    const derivative = differentiate(builder.build(), [{ output: "loss", gradient: "one" }], ["logits"]);
    const results = evaluateGraph(derivative.graph, new Map(Object.entries({ logits, targets })));
    for (const name of ["perRow", "loss"]) expectClose(results.get(name) as Dense, output(name), 1e-12, name);
    expectClose(results.get("grad:logits") as Dense, gradient("logits"), 1e-12);
  });

  test("a target that is neither a class nor ignored is an error of the reference, not a number", () => {
    const op: Op = { kind: "cross-entropy", ignore: -1 };
    const evaluate = (target: number) => () =>
      rulesOf(op.kind).evaluate(op, [dense([2, 2], 1, 2, 3, 4), dense([2], 0, target)], []);
    expect(evaluate(2)).toThrow("cross-entropy: target 2 is outside 0..1");
    expect(evaluate(-2)).toThrow("target -2");
    expect(evaluate(-1)).not.toThrow();
  });

  test("targets must be i32, one for each row, and the gradient too", () => {
    const type = (dtype: TensorType["dtype"], ...shape: number[]): TensorType => ({ dtype, shape });
    const infer =
      (op: Op, ...inputs: TensorType[]) =>
      () =>
        rulesOf(op.kind).infer(op, inputs);
    expect(infer({ kind: "cross-entropy", ignore: -1 }, type("f32", 2, 3), type("i32", 3))).toThrow(
      "logits f32[2,3] need i32 targets of shape [2], got i32[3]",
    );
    expect(infer({ kind: "cross-entropy", ignore: -1 }, type("f32", 2, 3), type("f32", 2))).toThrow(
      "got f32[2]",
    );
    const grad: Op = { kind: "cross-entropy-grad", ignore: -1 };
    const rows = [type("f32", 2), type("f32", 3)] as const;
    for (const [dTarget, dLogSum] of [rows, rows.toReversed()] as [TensorType, TensorType][])
      expect(infer(grad, type("f32", 2, 3), type("i32", 2), dTarget, dLogSum)).toThrow(
        "the gradient must be f32[2], got f32[3]",
      );
  });
});

describe("dropout-mask", () => {
  const mask = (
    shape: readonly number[],
    strides: readonly number[],
    keep: number,
    key: number,
    base: number,
  ) => {
    const op: Op = { kind: "dropout-mask", dtype: "f64", shape, strides, keep };
    return rulesOf(op.kind).evaluate(
      op,
      [dense([], key), dense([], base)],
      [{ dtype: "f64", shape }],
    )[0] as Dense;
  };
  const sizes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });
  const cuts = sizes.chain((shape) =>
    fc.tuple(
      fc.constant(shape),
      fc.tuple(...shape.map((size) => fc.nat(size - 1))),
      fc.tuple(...shape.map((size) => fc.integer({ min: 1, max: size }))),
    ),
  );

  test("element i is 1/keep where uniform(key, base + i) is below keep, else 0", () => {
    fc.assert(
      fc.property(
        sizes,
        fc.integer(),
        fc.nat(1000),
        fc.double({ min: 0.1, max: 1, noNaN: true }),
        (shape, key, base, keep) => {
          const expected = mask(shape, stridesOf(shape), keep, key, base).data;
          expected.forEach((value, i) => {
            expect(value).toBe(uniform(key, base + i) < keep ? 1 / keep : 0);
          });
        },
      ),
    );
  });

  test("a slice of the mask of a tensor is the mask of the slice", () => {
    fc.assert(
      fc.property(cuts, seeds, ([shape, start, lengths], key) => {
        const counts = lengths.map((length, dim) =>
          Math.min(length, (shape[dim] as number) - (start[dim] as number)),
        );
        const strides = stridesOf(shape);
        const base = start.reduce((sum, at, dim) => sum + at * (strides[dim] as number), 0);
        const whole = mask(shape, strides, 0.5, key, 0);
        const slice: Op = {
          kind: "slice",
          start,
          stop: start.map((at, dim) => at + (counts[dim] as number)),
          step: start.map(() => 1),
        };
        const [expected] = rulesOf("slice").evaluate(slice, [whole], [{ dtype: "f64", shape: counts }]);
        expect(mask(counts, strides, 0.5, key, base)).toEqual(expected);
      }),
    );
  });

  test("keeps the share that it should, and its mean is 1", () => {
    const { data } = mask([20_000], [1], 0.8, 77, 0);
    const kept = data.filter((value) => value > 0).length / data.length;
    expect(Math.abs(kept - 0.8)).toBeLessThan(4 * Math.sqrt((0.8 * 0.2) / data.length));
    expect(data.reduce((a, b) => a + b, 0) / data.length).toBeCloseTo(kept / 0.8, 12);
  });
});
