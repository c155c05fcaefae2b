import fc from "fast-check";
import { expect, test } from "vitest";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { buildForward, lossScale } from "../../src/model/forward.ts";
import { accuracy } from "../../src/model/metric.ts";
import { dense } from "../graph/shapes.ts";

type Role = "batch" | { readonly size: number };

function graphOf(classes: number, time: number, targetDims: readonly Role[], dtype: "i32" | "f32" = "i32") {
  const inputs = [
    { name: "outputs", dtype: "f32" as const, dims: [{ size: time }, "batch" as const, { size: classes }] },
    { name: "targets", dtype, dims: targetDims },
  ];
  const model = ({ outputs }: { readonly [input: string]: unknown }) => outputs as never;
  const shape = { item: { batch: 5 }, total: { batch: 5 } };
  return buildForward({ model, loss: accuracy, inputs }, { shape, training: false, dtype: "f64" }).graph;
}

function isRight(outputs: readonly number[], target: number): boolean {
  return target >= 0 && outputs.every((output, i) => i === target || output < (outputs[target] as number));
}

test("accuracy is the share of targets whose output is above all others; ignored targets and ties do not count", () => {
  const rows = fc.integer({ min: 1, max: 5 }).chain((classes) => {
    const outputs = fc.array(fc.integer({ min: -2, max: 2 }), { minLength: classes, maxLength: classes });
    return fc.array(fc.tuple(outputs, fc.integer({ min: -1, max: classes - 1 })), {
      minLength: 10,
      maxLength: 10,
    });
  });
  fc.assert(
    fc.property(rows, (samples) => {
      const classes = samples[0]?.[0].length ?? 0;
      const graph = graphOf(classes, 2, [{ size: 2 }, "batch"]);
      const results = evaluateGraph(
        graph,
        new Map([
          ["outputs", dense([2, 5, classes], ...samples.flatMap(([outputs]) => outputs))],
          ["targets", dense([2, 5], ...samples.map(([, target]) => target))],
          [lossScale, dense([], 1 / 10)],
        ]),
      );
      const right = samples.filter(([outputs, target]) => isRight(outputs, target)).length;
      expect(results.get("loss")?.data[0]).toBeCloseTo(right / 10, 12);
    }),
  );
});

test("accuracy refuses targets that are not classes of the outputs", () => {
  expect(() => graphOf(3, 2, ["batch"])).toThrow(
    'accuracy: the output [2,5,3] needs a data input "targets" of classes, i32 [2,5]; there is i32 [5]',
  );
  expect(() => graphOf(3, 2, [{ size: 2 }, "batch"], "f32")).toThrow("there is f64 [2,5]");
});
