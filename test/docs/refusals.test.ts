/** The messages that the page on layouts shows are those that come, and no other. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import type { Flow } from "../../src/cost/flow.ts";
import { type LayoutModel, modelProblems } from "../../src/layout/check.ts";
import { parseDomain } from "../../src/layout/domain.ts";
import { type Layout, type Mesh, meshSize, oneDevice } from "../../src/layout/layout.ts";
import { parseLayout } from "../../src/layout/parse.ts";
import { parseDevices, parsePlace, placeByHand } from "../../src/layout/place.ts";
import { flatten, linear, sequential } from "../../src/model/layers/basic.ts";
import { convolution } from "../../src/model/layers/convolution.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import { scheduleProblems } from "../../src/plan/check-layout.ts";
import { type Example, exampleOf } from "../partition/models.ts";
import { root } from "./pages.ts";

const page = readFileSync(`${root}docs/guide/layouts.md`, "utf8");
const example = JSON.parse(/```json\n([\s\S]*?)```/.exec(page)?.[1] ?? "null") as Layout;
const [first, second] = example.stages as [Layout["stages"][0], Layout["stages"][0]];
const groups = example.stages.flatMap((stage) => stage.groups);
const flow: Flow = {
  from: "embed",
  to: "layer0",
  value: "%1",
  bytes: 128_000,
  phase: "F",
  tensor: "gather f32[8,20,200]",
};
const shapes = [8, 16, 24, 32, 60].map((time) => ({ batch: 20, time }));
const lstm: LayoutModel = { groups, shapes, flows: [flow] };

/** The rows of the section with this bold title. */
function shown(title: string): readonly string[] {
  const section = page.split(`**${title}**`)[1]?.split("\n**")[0] ?? "";
  return [...section.matchAll(/^\| `(.+?)` \|/gm)].map(([, message]) => message as string);
}

function problemsOf(run: () => unknown): readonly string[] {
  try {
    run();
  } catch (error) {
    if (error instanceof UserError) return error.problems;
    throw error;
  }
  return [];
}

function refused(faulty: unknown, model = lstm): readonly string[] {
  const check = (layout: Layout) => modelProblems(layout, model);
  return problemsOf(() => parseLayout(JSON.stringify(faulty), check, scheduleProblems));
}

const faultyBy = (changes: object, model?: LayoutModel) => refused({ ...example, ...changes }, model);
const threeStages = [
  { devices: ["cpu:0"], groups: first.groups.slice(0, 3) },
  { devices: ["cpu:1"], groups: first.groups.slice(3) },
  { devices: ["cpu:0"], groups: second.groups },
];
const crossed = [
  { ...first, device: "cpu:1" },
  { ...second, device: "cpu:0" },
];

/** The stages of the example on other devices, and split. */
const on = (devices: readonly (readonly number[])[], mesh: object = {}) => ({
  stages: [first, second].map(({ groups: held }, i) => ({
    devices: devices[i]?.map((device) => `cpu:${device}`),
    mesh,
    groups: held,
  })),
});
const devicesUpTo = (count: number) => ({
  devices: Array.from({ length: count }, (_, i) => ({ name: `cpu:${i}`, threads: 1 })),
});
const replicated = {
  ...devicesUpTo(4),
  ...on([
    [0, 2],
    [1, 3],
  ]),
};

test("the example is accepted by the model that it is for", () => {
  expect(refused(example)).toEqual([]);
});

test("the document by itself", () => {
  const [zero, one] = example.devices;
  const faults = [
    faultyBy({ version: 2 }),
    faultyBy({ mesh: {} }),
    refused([]),
    faultyBy({ devices: "cpu:2" }),
    faultyBy({ devices: [{ ...zero, threads: 0 }, one] }),
    faultyBy({ stages: [{ ...first, device: 0 }, second] }),
    faultyBy({ stages: [first, { groups: second.groups }] }),
    faultyBy({ stages: [first, { ...second, devices: ["cpu:1"] }] }),
    faultyBy({ stages: [{ ...first, mesh: { tensor: 0 } }, second] }),
    faultyBy({ stages: [{ ...first, mesh: { data: 2 } }, second] }),
    faultyBy({ shardings: { "decode.weight": -1 } }),
    faultyBy({ zero: 3 }),
    faultyBy({ schedule: "2f2b" }),
    faultyBy({ weights: "late" }),
    faultyBy({ recompute: "some" }),
    faultyBy({ devices: [] }).slice(0, 1),
    faultyBy({ devices: [zero, zero], stages: [first, { ...second, device: "cpu:0" }] }),
    faultyBy({ devices: [zero, one, { name: "cpu:2", threads: 1 }] }),
    faultyBy({ devices: [zero], stages: [] }).filter((problem) => problem.startsWith("stages")),
    faultyBy({ stages: [first, second, { ...second, device: "cpu:7", groups: [] }] }).slice(2),
    faultyBy({ stages: [first, { ...second, device: "cpu:7" }] }).filter((problem) =>
      /unknown/.test(problem),
    ),
    faultyBy({
      ...devicesUpTo(3),
      ...on([
        [0, 0],
        [1, 2],
      ]),
    }),
    faultyBy({
      ...devicesUpTo(5),
      ...on(
        [
          [0, 1],
          [2, 3, 4],
        ],
        { tensor: 2 },
      ),
    }),
    faultyBy({
      stages: [{ ...first, device: undefined, devices: ["cpu:0", "cpu:1"], mesh: { tensor: 4 } }],
    }).slice(0, 1),
    faultyBy({
      ...devicesUpTo(2),
      stages: [{ devices: ["cpu:0", "cpu:1"], mesh: { tensor: 2 }, shares: [1, 2, 3], groups }],
    }),
    faultyBy({ stages: [first, { ...second, shares: [1, 1] }] }),
    faultyBy({ ...devicesUpTo(3), ...on([[0, 2], [1]]) }),
    faultyBy(
      on([
        [0, 1],
        [1, 0],
      ]),
    ).slice(0, 1),
    faultyBy({
      ...devicesUpTo(3),
      ...on([
        [0, 1],
        [0, 2],
      ]),
    }),
    faultyBy({ stages: [first, { ...second, groups: [] }] }),
    faultyBy({ stages: [first, { ...second, groups: ["layer5", ...second.groups] }] }),
  ];
  expect(faults.flat()).toEqual(shown("The document by itself"));
});

test("the document and the model", () => {
  const { shortestChunk: _, ...unlimited } = example;
  const single = [...groups, "layer8"].map((group) => ({ device: "cpu:0", groups: [group] }));
  const late = { ...first, groups: first.groups.filter((group) => group !== "embed") };
  const faults = [
    faultyBy({ stages: [first, { ...second, groups: ["layer6", "layer7", "decoder"] }] }),
    faultyBy({ devices: example.devices.slice(0, 1), stages: single }).slice(0, 1),
    faultyBy({ recompute: ["layer9"] }),
    faultyBy({ stages: [late, { ...second, groups: ["embed", ...second.groups] }] }),
    faultyBy({ microBatches: 21 }),
    faultyBy({ ...replicated, microBatches: 11 }),
    refused({ ...unlimited, chunks: 9 }),
    faultyBy({}, { ...lstm, shapes: [{ batch: 20 }] }),
    faultyBy({ zero: 1 }),
    faultyBy({ ...replicated, zero: 2 }, { ...lstm, shapes: [{ batch: 21, time: 8 }] }),
  ];
  expect(faults.flat()).toEqual(shown("The document and the model"));
});

/** Two convolutions on images of 9 x 9, the second with windows of 7 x 7. */
const wideWindows: Pick<Example, "source" | "groups" | "shapes"> = {
  ...exampleOf("convolution"),
  source: {
    ...exampleOf("convolution").source,
    model: sequential([
      convolution({ channels: 4, kernel: 3, padding: "same", group: "first" }),
      convolution({ channels: 4, kernel: 7, padding: "same", group: "second" }),
      flatten({ group: "head" }),
      linear({ units: 7, group: "head" }),
    ]),
    inputs: [
      { name: "x", dtype: "f32", dims: ["batch", { size: 1 }, { size: 9 }, { size: 9 }] },
      { name: "targets", dtype: "i32", dims: ["batch"] },
    ],
  },
  groups: ["first", "second", "head"],
};

/** Why a model is not split over meshes; a stage begins with each of `starts` but the first, which begins with the first group. */
function unsplit(
  { source, groups: layers, shapes: [shape = { batch: 4 }] }: Pick<Example, "source" | "groups" | "shapes">,
  meshes: readonly Mesh[],
  {
    starts = [],
    shardings = {},
  }: { readonly starts?: readonly string[]; readonly shardings?: Layout["shardings"] } = {},
): readonly string[] {
  const cuts = [0, ...starts.map((group) => layers.indexOf(group)), layers.length];
  let next = 0;
  const stages = meshes.map((mesh, i) => ({
    devices: Array.from({ length: meshSize({ mesh }) }, () => `cpu:${next++}`),
    mesh,
    groups: layers.slice(cuts[i], cuts[i + 1]),
  }));
  const layout: Layout = { ...oneDevice(layers), ...devicesUpTo(next), stages, schedule: "gpipe", shardings };
  return problemsOf(() => compileTraining(source, layout, shape));
}

test("the document and how the model can be split", () => {
  const [language, images, words] = [exampleOf("lstm"), exampleOf("convolution"), exampleOf("transformer")];
  const chosen = (example: Example, shardings: Layout["shardings"], tensor = 2) =>
    unsplit(example, [{ tensor }], { shardings });
  const faults = [
    unsplit(language, [{ height: 2 }]),
    unsplit(images, [{ height: 7 }]),
    unsplit(exampleOf("skip-mlp"), [{ sequence: 2 }]),
    unsplit(language, [{}, { sequence: 2 }, {}], { starts: ["layer0", "layer1"] }),
    unsplit(words, [{}, { sequence: 2 }, {}], { starts: ["block0", "block1"] }),
    unsplit(exampleOf("two-towers"), [{}, { tensor: 2 }], { starts: ["model"] }),
    unsplit(language, [{ tensor: 3 }]),
    unsplit(wideWindows, [{ height: 4 }, {}], { starts: ["head"] }),
    unsplit(exampleOf("tied"), [{ tensor: 2 }, {}], { starts: ["layer1"] }),
    chosen(language, { "decode.wieght": 1 }),
    chosen(exampleOf("tied"), { softmax: 0 }),
    chosen(language, { "decode.weight": 2 }),
    unsplit(language, [{}], { shardings: { "decode.weight": 0 } }),
    chosen(words, { "block0.attention.query.weight": 1 }, 3),
    chosen(images, { "stem.weight": 2 }),
    chosen(language, { "embed.table": 1 }),
    chosen(language, { "layer0.weight": 1 }),
  ];
  expect(faults.flat()).toEqual(shown("The document and how the model can be split"));
});

test("all reasons why a model cannot be split as asked are given together", () => {
  const problems = unsplit(exampleOf("tied"), [{ tensor: 2 }, { height: 2 }], {
    starts: ["layer1"],
    shardings: { "layer0.recurent": 0, "layer1.bias": 1 },
  });
  expect(problems.map((problem) => problem.replace(/: .*/, ""))).toEqual([
    '"embed.table" lies as [7/tensor, 3] on tensor 2 and is used by group "decode" on height 2',
    "shardings.layer0.recurent",
    "shardings.layer1.bias",
    "stages[1].mesh.height",
  ]);
});

test("the document and its schedule", () => {
  const faults = [
    faultyBy({ schedule: "naive", weights: "fused" }),
    faultyBy({ schedule: "naive", chunks: 1 }),
    faultyBy({ schedule: "zero-bubble-h1" }),
    faultyBy({ schedule: "1f1b", stages: threeStages }),
    faultyBy({ schedule: "1f1b", stages: crossed }),
    faultyBy({ schedule: "interleaved-1f1b", stages: threeStages }),
    faultyBy({ schedule: "interleaved-1f1b", stages: crossed }).slice(0, 1),
    faultyBy({ schedule: "interleaved-1f1b" }),
  ];
  expect(faults.flat()).toEqual(shown("The document and its schedule"));
});

test("the command line", () => {
  const names = ["embed", "layer0", "decode"];
  const place = (rules: string, edges = [{ from: "embed", to: "layer0" }]) =>
    problemsOf(() => placeByHand(names, edges, parsePlace(rules), parseDevices("cpu:2")));
  const turns = [
    { from: "embed", to: "layer0" },
    { from: "layer0", to: "embed" },
  ];
  const faults = [
    ...["two", "cpu:0,cpu:0", "cpu:2x0", "cpu:9999"].map((text) => problemsOf(() => parseDevices(text))),
    place("embed"),
    place("*=cpu:0,decode=cpu:1,embed=cpu:5"),
    place("*=cpu:0,decode=cpu:1,encoder=cpu:0"),
    place("embed=cpu:0").slice(0, 1),
    place("*=cpu:0"),
    place("*=cpu:0,embed=cpu:1", turns),
    ...["2", "tensor=2", "rows=2", "height=0"].map((text) => problemsOf(() => parseDomain(text))),
  ];
  expect(faults.flat()).toEqual(shown("The command line"));
});
