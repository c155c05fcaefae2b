import { expect, test } from "vitest";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";
import { parseLayout, printLayout } from "../../src/layout/parse.ts";
import { sgd } from "../../src/model/optimizer.ts";
import { checkLayout, layoutChecks, layoutModel } from "../../src/plan/check-layout.ts";
import { languageModel } from "../cost/models.ts";

const source = {
  ...languageModel({ vocabulary: 20, dim: 8, units: 8, layers: 2 }),
  dtype: "f32" as const,
  optimizer: sgd({ rate: 0.1 }),
};
const groups = ["embed", "layer0", "layer1", "decode"];
const model = layoutModel(source, [{ batch: 4, time: 8 }]);
const two: Layout = {
  ...oneDevice(groups),
  devices: ["cpu:0", "cpu:1"].map((name) => ({ name, threads: 1 })),
  stages: [
    { devices: ["cpu:0"], groups: groups.slice(0, 2) },
    { devices: ["cpu:1"], groups: groups.slice(2) },
  ],
};

function problem(changes: Partial<Layout>): string {
  try {
    checkLayout({ ...two, ...changes }, model);
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

test("groups, flows and schedules are checked together", () => {
  expect(problem({})).toBe("");
  expect(
    problem({
      stages: [
        { devices: ["cpu:0"], groups: ["decode", "embed"] },
        { devices: ["cpu:1"], groups: ["layer1"] },
      ],
      schedule: "naive",
      chunks: 9,
    }),
  ).toBe(
    "the layout cannot be used:\n" +
      '  - stages: group "layer0" of the model is in no stage\n' +
      "  - chunks: 9 chunks, but the shortest sequences (batch=4 time=8) have 8 time steps: use at most 8\n" +
      '  - stages[1].groups[0]: group "layer1" gives lstm f32[8,4,8] to group "decode" in the earlier stage 0, but values flow to later stages only: put "layer1" first\n' +
      "  - schedule: naive runs one item at a time, but 9 chunks of a sequence would overlap: use 1 chunk, or wavefront",
  );
});

test("what a schedule refuses is refused with its reason", () => {
  expect(problem({ weights: "deferred" })).toMatch(/schedule: naive decides itself when W runs/);
  expect(problem({ schedule: "zero-bubble-h1" })).toMatch(/schedule: zero-bubble-h1 decides itself/);
  expect(problem({ schedule: "interleaved-1f1b" })).toMatch(/needs several stages on each device/);
  const stages = groups.map((group, i) => ({ devices: [`cpu:${i < 2 ? 0 : 1}`], groups: [group] }));
  expect(problem({ schedule: "1f1b", stages })).toMatch(/1f1b holds one stage per device/);
  expect(problem({ schedule: "interleaved-1f1b", stages })).toMatch(
    /needs stage s on device s mod 2, got 0, 0, 1, 1/,
  );
  const inTurn = groups.map((group, i) => ({ devices: [`cpu:${i % 2}`], groups: [group] }));
  expect(problem({ schedule: "interleaved-1f1b", stages: inTurn })).toBe("");
});

test("the checks of a document name every problem too", () => {
  const text = printLayout({ ...two, microBatches: 5, weights: "deferred" });
  expect(() => parseLayout(text, ...layoutChecks(model))).toThrow(
    /microBatches: 5 micro-batches, but a mini-batch \(batch=4 time=8\) has 4 samples.*schedule: naive decides/s,
  );
});
