import { expect, test } from "vitest";
import { arrays } from "../../../src/data/arrays.ts";
import { crossEntropy } from "../../../src/graph/functions.ts";
import type { Tensor } from "../../../src/graph/tensor.ts";
import type { Job } from "../../../src/model/job.ts";
import { dropout, linear, sequential, tanh } from "../../../src/model/layers/basic.ts";
import { accuracy, type Metric } from "../../../src/model/metric.ts";
import { adam } from "../../../src/model/optimizer.ts";
import type { EvaluationEvent } from "../../../src/node/train/events.ts";
import type { TrainOptions } from "../../../src/node/train/plan-run.ts";
import { trainJob } from "../../../src/node/train/train-job.ts";

const samples = 120;
const points = Float32Array.from({ length: 2 * samples }, (_, i) => Math.sin(1.7 * i * i));
/** The half plane that a point is in. */
const classes = Int32Array.from({ length: samples }, (_, i) =>
  (points[2 * i] as number) > (points[2 * i + 1] as number) ? 1 : 0,
);

function job(metrics: NonNullable<Job["metrics"]>): Job {
  return {
    model: sequential([
      linear({ units: 16, group: "hidden" }),
      tanh({ group: "hidden" }),
      dropout({ rate: 0.2, group: "hidden" }),
      linear({ units: 2, group: "classes" }),
    ]),
    loss: "cross-entropy",
    metrics,
    optimizer: adam({ rate: 0.05 }),
    // 31 samples for validation: the last batch is smaller.
    data: arrays(
      {
        points: { dtype: "f32", shape: [samples, 2], data: points },
        targets: { dtype: "i32", shape: [samples], data: classes },
      },
      { batch: 16, validationShare: 31 / samples, split: "position", lastBatch: "keep" },
    ),
    epochs: 20,
  };
}

async function evaluationsOf(given: Job, options: TrainOptions): Promise<readonly EvaluationEvent[]> {
  const events: EvaluationEvent[] = [];
  const summary = await trainJob(given, { ...options, runs: false }, (event) => {
    if (event.kind === "evaluation") events.push(event);
  });
  expect(summary.validation?.metrics).toEqual(events.at(-1)?.metrics);
  return events;
}

const again: Metric = (output, { targets }) => crossEntropy(output, targets as Tensor, -1);

test.each<[string, TrainOptions]>([
  ["one device", {}],
  ["two stages", { devices: "cpu:2", place: "hidden=cpu:0,classes=cpu:1", microBatches: 2 }],
  ["two replicas", { devices: "cpu:2", data: 2 }],
  ["a layout after another", { devices: "cpu:2", compare: 10, microBatches: 2 }],
])("on %s, metrics are means over the validation targets, as the loss is", async (_name, options) => {
  const events = await evaluationsOf(job({ accuracy, again }), options);
  expect(events).toHaveLength(20);
  for (const { loss, metrics } of events) {
    expect(metrics?.["again"]).toBeCloseTo(loss, 6);
    expect(((metrics?.["accuracy"] ?? Number.NaN) * 31) % 1).toBeCloseTo(0, 4);
  }
  expect(events.at(-1)?.metrics?.["accuracy"]).toBeGreaterThan(0.9);
});

test("a job without metrics tells none", async () => {
  const [event] = await evaluationsOf({ ...job({}), epochs: 1 }, {});
  expect(event).not.toHaveProperty("metrics");
});
