/** Programs carried out on paper: against the planner, which never sees programs, and against closed forms. */

import { expect, test } from "vitest";
import type { BatchShape } from "../../src/data/dataset.ts";
import { type Layout, oneDevice, withMesh, withReplicas } from "../../src/layout/layout.ts";
import { parseDevices } from "../../src/layout/place.ts";
import { linear, sequential } from "../../src/model/layers/basic.ts";
import { sgd } from "../../src/model/optimizer.ts";
import { type CompileSource, compileTraining } from "../../src/partition/compile.ts";
import { choosePipeline } from "../../src/plan/pipeline.ts";
import { predictStep, type StepPrediction } from "../../src/plan/predict-step.ts";
import { mainModel } from "../cost/models.ts";

const optimizer = sgd({ rate: 0.1, clipNorm: 5 });
const main: CompileSource = { ...mainModel, dtype: "f32", optimizer };
const second = { name: "cpu:1", threads: 1 };

function predicted(source: CompileSource, layout: Layout, shape: BatchShape): StepPrediction {
  return predictStep(compileTraining(source, layout, shape).programs, {
    speeds: layout.devices.map(({ threads }) => threads),
  });
}

test("a pipeline takes about as long in its programs as in the planner's schedule", () => {
  const shape: BatchShape = { batch: 20, time: 32 };
  const planned = choosePipeline({ source: main, shapes: [shape], devices: parseDevices("cpu:2") });
  const { seconds, busy } = predicted(main, planned.layout, shape);
  expect(Math.abs(seconds / planned.seconds - 1)).toBeLessThan(0.03);
  planned.prediction.idle.forEach((idle, device) => {
    expect(Math.abs(1 - idle - (busy[device] ?? 0))).toBeLessThan(0.04);
  });
});

const [inputs, hidden] = [1024, 1024];
const wide: CompileSource = {
  model: sequential([linear({ units: hidden, group: "a" }), linear({ units: inputs, group: "b" })]),
  loss: "mean-squared-error",
  inputs: ["x", "targets"].map((name) => ({ name, dtype: "f32", dims: ["batch", { size: inputs }] })),
  optimizer: sgd({ rate: 0.1 }),
  dtype: "f32",
};
const rows = 4096;
const alone = predicted(wide, oneDevice(["a", "b"]), { batch: rows }).seconds;

/** Products of x with both weights in F, of both in W, and of one in B, at 200 GFLOP/s. */
const products = (5 * 2 * rows * inputs * hidden) / 200e9;

/** Their right operands, at 12 GB/s: both weights in F, one in B, and in W the inputs of both layers. */
const packing = (4 * (3 * inputs * hidden + 2 * rows * inputs)) / 12e9;

test("one device takes the time of its products, and little more", () => {
  expect(alone).toBeGreaterThan(products + packing);
  expect(alone).toBeLessThan(1.15 * (products + packing));
});

test("two halves of a pair of layers take half of the products and one sum of the results", () => {
  const layout = withMesh(oneDevice(["a", "b"]), { tensor: 2 }, [[second]]);
  const { seconds } = predicted(wide, layout, { batch: rows });
  const sum = (4 * rows * inputs) / 5e9;
  expect(seconds).toBeGreaterThan(products / 2 + sum);
  expect(seconds).toBeLessThan(1.1 * (alone / 2) + sum);
});

test("replicas take their share of the products and one sum of the gradients", () => {
  const layout = withReplicas(oneDevice(["a", "b"]), [[second]]);
  const { seconds, busy } = predicted(wide, layout, { batch: rows });
  const sum = (4 * 2 * inputs * hidden) / 5e9;
  expect(seconds).toBeGreaterThan(products / 2 + sum);
  expect(seconds).toBeLessThan(1.1 * (alone / 2) + 1.1 * sum);
  expect(busy[0]).toBeCloseTo(1 - sum / seconds, 2);
});

test("a device of two threads computes twice as fast", () => {
  const { seconds } = predicted(wide, oneDevice(["a", "b"], 2), { batch: rows });
  expect(seconds / alone).toBeCloseTo(0.5, 2);
});
