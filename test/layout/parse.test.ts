import fc from "fast-check";
import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import { type Layout, type LayoutStage, oneDevice } from "../../src/layout/layout.ts";
import { parseLayout, printLayout } from "../../src/layout/parse.ts";

const layout: Layout = {
  version: 1,
  devices: [
    { name: "cpu:0", threads: 1 },
    { name: "cpu:1", threads: 2 },
  ],
  stages: [
    { devices: ["cpu:0"], groups: ["embed", "layer0"] },
    { devices: ["cpu:1"], groups: ["layer1"] },
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
        devices: [devices[i % devices.length] as string],
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

/** Two positions with meshes of four and two devices, twice. */
const meshed: Layout = {
  ...layout,
  devices: Array.from({ length: 12 }, (_, i) => ({ name: `cpu:${i}`, threads: 1 })),
  stages: [
    {
      devices: [0, 1, 2, 3, 6, 7, 8, 9].map((i) => `cpu:${i}`),
      mesh: { height: 2, tensor: 2 },
      groups: ["embed", "layer0"],
    },
    { devices: [4, 5, 10, 11].map((i) => `cpu:${i}`), mesh: { sequence: 2 }, groups: ["layer1"] },
  ],
  shardings: { "layer0.weight": 1, "embed.weight": "whole" },
};

test("meshes, replicas and shardings print in a fixed order and are read back", () => {
  const text = printLayout(meshed);
  expect(text.split("\n").slice(16, 24)).toEqual([
    '  "stages": [',
    '    { "devices": ["cpu:0", "cpu:1", "cpu:2", "cpu:3", "cpu:6", "cpu:7", "cpu:8", "cpu:9"], "mesh": { "height": 2, "tensor": 2 }, "groups": ["embed", "layer0"] },',
    '    { "devices": ["cpu:4", "cpu:5", "cpu:10", "cpu:11"], "mesh": { "sequence": 2 }, "groups": ["layer1"] }',
    "  ],",
    '  "shardings": {',
    '    "embed.weight": "whole",',
    '    "layer0.weight": 1',
    "  },",
  ]);
  expect(parseLayout(text)).toEqual(meshed);
});

test("shares of the tensor axis are printed and read back; those of another number of devices, or of no axis, are refused", () => {
  const [first, second] = meshed.stages as [LayoutStage, LayoutStage];
  const shared = { ...meshed, stages: [{ ...first, shares: [3, 1] }, second] };
  expect(printLayout(shared)).toContain('"mesh": { "height": 2, "tensor": 2 }, "shares": [3, 1], "groups"');
  expect(parseLayout(printLayout(shared))).toEqual(shared);
  expect(
    problemsOf({
      ...meshed,
      stages: [
        { ...first, shares: [1, 2, 3] },
        { ...second, shares: [1, 1] },
      ],
    }),
  ).toEqual([
    "stages[0].shares: 3 shares for tensor 2: list 2",
    'stages[1].shares: are those of the tensor axis, which this stage does not have: leave them out, or add "mesh": {"tensor": 2}',
  ]);
  expect(problemsOf({ ...meshed, stages: [{ ...first, shares: [0, 1.5] }, second] })).toEqual([
    "stages[0].shares[0]: must be a positive whole number, got 0",
    "stages[0].shares[1]: must be a positive whole number, got 1.5",
  ]);
});

test("axes of size 1, meshes without axes and empty shardings say nothing, and one device has a short form", () => {
  const [first, second] = layout.stages;
  const wordy = {
    ...layout,
    shardings: {},
    stages: [
      { ...first, mesh: {} },
      { ...second, mesh: { tensor: 1 } },
    ],
  };
  expect(printLayout(wordy as Layout)).toBe(printLayout(layout));
  expect(parseLayout(JSON.stringify({ ...wordy, shardings: undefined }))).toStrictEqual(layout);
  expect(printLayout(layout)).toContain('{ "device": "cpu:1", "groups"');
});

test("a layout of one device is sound", () => {
  expect(parseLayout(printLayout(oneDevice(["a", "b"])))).toEqual(oneDevice(["a", "b"]));
});

test("all problems of a document are listed at once, each with its place", () => {
  const problems = problemsOf({
    version: 2,
    devices: [{ name: "cpu:0", threads: 0 }, { name: "cpu:0", threads: 1 }, { name: "cpu:9" }],
    stages: [
      { device: "cpu:0", groups: ["a", "b"], color: "red", mesh: { tensor: 0, data: 2 } },
      { device: "cpu:7", groups: ["c", "a"] },
      { device: "cpu:0", groups: [] },
    ],
    shardings: { a: -1, b: "rows" },
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
      'stages[0]: unknown field "color"; the fields are device, devices, mesh, shares, groups',
      "stages[0].mesh.tensor: must be a positive whole number, got 0",
      'stages[0].mesh: unknown axis "data"; the axes are height, width, sequence, tensor (the devices beyond one mesh are replicas: the data axis)',
      'shardings.a: must be a dim counted from 0, or "whole", got -1',
      'shardings.b: must be a dim counted from 0, or "whole", got "rows"',
      "microBatches: must be a positive whole number, got 1.5",
      "chunks: must be a positive whole number, got -1",
      'schedule: must be "naive" or "gpipe" or "1f1b" or "interleaved-1f1b" or "zero-bubble-h1" or "wavefront", got "2f2b"',
      'recompute: must be "none", "full" or a list of groups, got "some"',
      'unknown field "mesh"; the fields are version, devices, stages, shardings, zero, microBatches, chunks, shortestChunk, schedule, weights, recompute',
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
    "stages[0]: must be an object with device, devices, mesh, shares, groups, got 7",
    "stages[1].device: must be a text, got 1",
    "stages[1].groups[0]: must be a text, got 2",
  ]);
  expect(problemsOf({ ...layout, devices: [], stages: [] })).toEqual([
    "devices: must list at least one device",
    "stages: must list at least one stage",
  ]);
});

test("a stage says in one of two ways on which devices it is", () => {
  const [first, second] = layout.stages;
  const both = { device: "cpu:0", devices: ["cpu:0"], groups: ["a"], mesh: 2 };
  expect(
    problemsOf({ ...layout, stages: [both, { groups: ["b"] }, { devices: [], groups: ["c"] }] }),
  ).toEqual([
    'stages[0].mesh: must be an object with sizes of axes such as { "tensor": 2 }, got 2',
    'stages[0]: has "device" and "devices", but the one is short for the other: leave out "device"',
    'stages[1]: must name its "device", or its "devices": replica by replica, one for each rank of its mesh',
    "stages[2].devices: must list at least one device",
  ]);
  expect(problemsOf({ ...layout, stages: [first, { ...second, devices: ["cpu:1", 7] }] })).toEqual([
    "stages[1].devices[1]: must be a text, got 7",
  ]);
});

test("nothing that JSON can say crashes the reader", () => {
  fc.assert(
    fc.property(fc.json(), fc.constantFrom("devices", "stages", "shardings", "recompute"), (text, field) => {
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
