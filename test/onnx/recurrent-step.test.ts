import { afterAll, describe, test } from "vitest";
import { GraphBuilder } from "../../src/graph/builder.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { constant, matmul } from "../../src/graph/functions.ts";
import type { Op } from "../../src/graph/op.ts";
import type { Shape } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { onnxRuntimeEngine } from "../../src/node/onnxruntime/engine.ts";
import { expectAgrees } from "../execute/engine-run.ts";
import { randomDense } from "../graph/dense.ts";

const engine = onnxRuntimeEngine();
afterAll(() => engine[Symbol.asyncDispose]());

/** 7 of 11 units, 3 samples. */
const [batch, units, all] = [3, 7, 11];
const state: Shape = [batch, units];
const lstmShapes: readonly Shape[] = [[batch, 4 * units], [4 * units, all], [batch, all], state];
const gruShapes: readonly Shape[] = [[batch, 3 * units], [3 * units, all], [3 * units], [batch, all], state];

/** Builds a graph from inputs of these shapes, and compares all of its outputs with the reference. */
async function check(
  [dtype, tolerance]: readonly [DType, number],
  shapes: readonly Shape[],
  build: (inputs: readonly Tensor[]) => readonly Tensor[],
): Promise<void> {
  const builder = new GraphBuilder();
  const inputs = shapes.map((shape, i) => builder.input(`x${i}`, "data", { dtype, shape }));
  build(inputs).forEach((result, i) => {
    builder.output(`y${i}`, result);
  });
  const values = shapes.map((shape, i) => randomDense(shape, i + 1));
  await expectAgrees(engine, builder.build(), values, { tolerance, floor: 0.1 });
}

function apply(op: Op, inputs: readonly Tensor[]): readonly Tensor[] {
  return (inputs[0] as Tensor).scope.apply(op, inputs);
}

/** The results of these indices. */
function only(results: readonly Tensor[], ...wanted: readonly number[]): readonly Tensor[] {
  return wanted.map((index) => results[index] as Tensor);
}

const types: readonly (readonly [DType, number])[] = [
  ["f32", 1e-5],
  ["f64", 1e-12],
];

describe.each(types)("on ONNX Runtime in %s, for an uneven share of an odd number of units", (...type) => {
  test("lstm-step", () => check(type, lstmShapes, (inputs) => apply({ kind: "lstm-step" }, inputs)));

  test("lstm-step without what a derivative needs", () =>
    check(type, lstmShapes, (inputs) => only(apply({ kind: "lstm-step" }, inputs), 0, 1)));

  test("lstm-step with some of what it saves", () =>
    check(type, lstmShapes, (inputs) => only(apply({ kind: "lstm-step" }, inputs), 0, 4, 7)));

  test("two steps of an lstm, where the second reads the first one's share", () =>
    check(type, [...lstmShapes, [units, all]], ([zx, u, h, c, spread]) => {
      const first = apply({ kind: "lstm-step" }, [zx, u, h, c] as Tensor[]) as [Tensor, Tensor];
      const before = matmul(first[0], spread as Tensor);
      const second = apply({ kind: "lstm-step" }, [zx, u, before, first[1]] as Tensor[]);
      return [...first, ...second];
    }));

  test("lstm-step-grad", () =>
    check(
      type,
      Array.from({ length: 8 }, () => state),
      (inputs) => apply({ kind: "lstm-step-grad" }, inputs),
    ));

  test("lstm-step-grad of the last step, whose c has no gradient", () =>
    check(
      type,
      Array.from({ length: 7 }, () => state),
      (inputs) => {
        const zero = constant((inputs[0] as Tensor).scope, type[0], state, 0);
        return apply({ kind: "lstm-step-grad" }, [...inputs, zero]);
      },
    ));

  test("gru-step", () => check(type, gruShapes, (inputs) => apply({ kind: "gru-step" }, inputs)));

  test("gru-step without what a derivative needs", () =>
    check(type, gruShapes, (inputs) => only(apply({ kind: "gru-step" }, inputs), 0)));

  test("gru-step-grad", () =>
    check(
      type,
      Array.from({ length: 6 }, () => state),
      (inputs) => apply({ kind: "gru-step-grad" }, inputs),
    ));
});
