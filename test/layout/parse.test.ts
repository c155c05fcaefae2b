import fc from "fast-check";
import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";
import { parseLayout, printLayout } from "../../src/layout/parse.ts";

const layout: Layout = {
  version: 1,
  devices: [
    { name: "cpu:0", threads: 1 },
    { name: "cpu:1", threads: 2 },
  ],
  stages: [
    { device: "cpu:0", groups: ["embed", "layer0"] },
    { device: "cpu:1", groups: ["layer1"] },
  ],
  microBatches: 2,
  chunks: 4,
  schedule: "wavefront",
  weights: "deferred",
  recompute: ["layer0"],
};

function problemsOf(source: unknown): readonly string[] {
  try {
    parseLayout(typeof source === "string" ? source : JSON.stringify(source));
  } catch (error) {
    if (error instanceof UserError) return error.problems;
    throw error;
  }
  return [];
}

test("a layout prints as JSON that a person can read", () => {
  expect(printLayout(layout)).toBe(`{
  "version": 1,
  "devices": [
    { "name": "cpu:0", "threads": 1 },
    { "name": "cpu:1", "threads": 2 }
  ],
  "stages": [
    { "device": "cpu:0", "groups": ["embed", "layer0"] },
    { "device": "cpu:1", "groups": ["layer1"] }
  ],
  "microBatches": 2,
  "chunks": 4,
  "schedule": "wavefront",
  "weights": "deferred",
  "recompute": ["layer0"]
}
`);
});

test("printing and parsing give any layout back, whatever its names are and however its fields are ordered", () => {
  const names = fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(names, names, fc.nat(), (devices, groups, seed) => {
      const stages = groups.map((group, i) => ({
        device: devices[i % devices.length] as string,
        groups: [group],
      }));
      const used = devices.slice(0, stages.length).map((name) => ({ name, threads: 1 + (seed % 7) }));
      const made: Layout = { ...layout, devices: used, stages, recompute: groups };
      expect(parseLayout(printLayout(made))).toEqual(made);
      const shuffled = Object.fromEntries(Object.entries(made).toReversed());
      expect(printLayout(parseLayout(JSON.stringify(shuffled)))).toBe(printLayout(made));
    }),
  );
});

test("a layout of one device is sound", () => {
  expect(parseLayout(printLayout(oneDevice(["a", "b"])))).toEqual(oneDevice(["a", "b"]));
});

test("all problems of a document are listed at once, each with its place", () => {
  const problems = problemsOf({
    version: 2,
    devices: [{ name: "cpu:0", threads: 0 }, { name: "cpu:0", threads: 1 }, { name: "cpu:9" }],
    stages: [
      { device: "cpu:0", groups: ["a", "b"], color: "red" },
      { device: "cpu:7", groups: ["c", "a"] },
      { device: "cpu:0", groups: [] },
    ],
    microBatches: 1.5,
    chunks: -1,
    schedule: "2f2b",
    weights: "fused",
    recompute: "some",
    mesh: {},
  });
  expect(problems.toSorted()).toEqual(
    [
      "version: must be 1, the only version there is, got 2",
      "devices[0].threads: must be a positive whole number, got 0",
      "devices[2].threads: must be a positive whole number, got undefined",
      'stages[0]: unknown field "color"; the fields are device, replicas, groups',
      "microBatches: must be a positive whole number, got 1.5",
      "chunks: must be a positive whole number, got -1",
      'schedule: must be "naive" or "gpipe" or "1f1b" or "interleaved-1f1b" or "zero-bubble-h1" or "wavefront", got "2f2b"',
      'recompute: must be "none", "full" or a list of groups, got "some"',
      'unknown field "mesh"; the fields are version, devices, stages, microBatches, chunks, shortestChunk, schedule, weights, recompute',
      'devices[1].name: device "cpu:0" is listed already in devices[0]',
      'devices[2]: device "cpu:9" holds no stage: give it one or leave it out',
      'stages[1].device: unknown device "cpu:7"; the devices are cpu:0, cpu:0, cpu:9',
      "stages[2].groups: a stage must hold at least one group",
      'stages[1].groups[1]: group "a" is placed already by stages[0].groups[0]',
    ].toSorted(),
  );
});

test("what is no layout at all is refused with what came", () => {
  expect(problemsOf("{ not json")).toHaveLength(1);
  expect(problemsOf("[]")[0]).toMatch(/^must be an object with version, devices, .*, got a list$/);
  expect(problemsOf({ ...layout, devices: "cpu:0" })).toEqual(['devices: must be a list, got "cpu:0"']);
  expect(problemsOf({ ...layout, stages: [7, { device: 1, groups: [2] }] })).toEqual([
    "stages[0]: must be an object with device, replicas, groups, got 7",
    "stages[1].device: must be a text, got 1",
    "stages[1].groups[0]: must be a text, got 2",
  ]);
  expect(problemsOf({ ...layout, devices: [], stages: [] })).toEqual([
    "devices: must list at least one device",
    "stages: must list at least one stage",
  ]);
});

test("nothing that JSON can say crashes the reader", () => {
  fc.assert(
    fc.property(fc.json(), fc.constantFrom("devices", "stages", "recompute"), (text, field) => {
      problemsOf(text);
      problemsOf({ ...layout, [field]: JSON.parse(text) });
    }),
  );
});

test("further checks are asked once the document is sound by itself", () => {
  const checks = [() => ["chunks: too many"], () => ["stages: too few"]];
  expect(() => parseLayout(printLayout(layout), ...checks)).toThrow(
    "the layout cannot be used:\n  - chunks: too many\n  - stages: too few",
  );
  expect(() => parseLayout(printLayout({ ...layout, stages: [] }), ...checks)).not.toThrow(/chunks/);
});
