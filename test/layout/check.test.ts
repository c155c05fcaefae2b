import { expect, test } from "vitest";
import type { Flow } from "../../src/cost/flow.ts";
import { modelProblems } from "../../src/layout/check.ts";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";

const shapes = [
  { batch: 20, time: 32 },
  { batch: 20, time: 8 },
];
const flow: Flow = { from: "a", to: "b", value: "%3", bytes: 80, phase: "F", tensor: "lstm f32[4,5]" };
const model = {
  groups: ["a", "b"],
  shapes,
  flows: [flow, { ...flow, value: "%9", phase: "B", from: "b", to: "a" }] as const,
};

function layout(changes: Partial<Layout>): Layout {
  return { ...oneDevice(["a", "b"]), ...changes };
}

test("a layout that fits its model has no problems, also where parts differ by one", () => {
  expect(modelProblems(layout({ microBatches: 3, chunks: 7 }), model)).toEqual([]);
});

test("groups that are missing or unknown, and more stages than groups, are named", () => {
  const stages = ["a", "x", "y"].map((group) => ({ devices: ["cpu:0"], groups: [group] }));
  expect(modelProblems(layout({ stages, recompute: ["a", "z"] }), model)).toEqual([
    "stages: 3 stages are more than the 2 groups of the model",
    'stages[1].groups[0]: the model has no group "x"; its groups are a, b',
    'stages[2].groups[0]: the model has no group "y"; its groups are a, b',
    'stages: group "b" of the model is in no stage',
    'recompute[1]: the model has no group "z"; its groups are a, b',
  ]);
});

test("items that would be empty are refused with the mini-batch that is too small", () => {
  expect(modelProblems(layout({ microBatches: 21, chunks: 9 }), model)).toEqual([
    "microBatches: 21 micro-batches, but a mini-batch (batch=20 time=32) has 20 samples: use at most 20",
    "chunks: 9 chunks, but the shortest sequences (batch=20 time=8) have 8 time steps: use at most 8",
  ]);
  expect(modelProblems(layout({ chunks: 2 }), { ...model, shapes: [{ batch: 4 }] })).toEqual([
    "chunks: 2 chunks of time, but the data has no time dim: use 1",
  ]);
});

test("stages against the flow of values are refused with both groups and the tensor", () => {
  const stages = ["b", "a"].map((group) => ({ devices: ["cpu:0"], groups: [group] }));
  expect(modelProblems(layout({ stages }), model)).toEqual([
    'stages[1].groups[0]: group "a" gives lstm f32[4,5] to group "b" in the earlier stage 0, but values flow to later stages only: put "a" first',
  ]);
});
