/** `paraxis train` on several devices, as people start it. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { chromeProblems } from "../../../src/trace/chrome-rules.ts";
import { folderWith, jsonLines, metricsOf, paraxis, sampleText, textJob, tinyJob } from "./command.ts";

const layout = {
  version: 1,
  devices: [
    { name: "cpu:0", threads: 1 },
    { name: "cpu:1", threads: 1 },
  ],
  stages: [
    { device: "cpu:0", groups: ["hidden"] },
    { device: "cpu:1", groups: ["output"] },
  ],
  microBatches: 2,
  chunks: 1,
  schedule: "1f1b",
  weights: "fused",
  recompute: "none",
};

function document(changes: object): string {
  return JSON.stringify({ ...layout, ...changes });
}

const files = {
  "tiny.ts": tinyJob,
  "text.ts": textJob,
  "sizes.ts": "export const units = 8;\n",
  "text.txt": sampleText,
  "good.json": document({}),
  "twice.json": document({ stages: [layout.stages[0], { device: "cpu:1", groups: ["output", "hidden"] }] }),
  "nowhere.json": document({ stages: [layout.stages[0]], devices: [layout.devices[0]], microBatches: 1 }),
  "unknown.json": document({ stages: [layout.stages[0], { device: "cpu:7", groups: ["output"] }] }),
  "many.json": document({ stages: [...layout.stages, { device: "cpu:0", groups: [] }] }),
  "backwards.json": document({
    stages: [
      { device: "cpu:0", groups: ["output"] },
      { device: "cpu:1", groups: ["hidden"] },
    ],
  }),
  "chunks.json": document({ chunks: 4 }),
  "broken.json": "{ version: 1 }",
};

test("several devices learn what one device learns, and say how they did it", async () => {
  const cwd = folderWith(files);
  const short = ["--steps", "8", "--no-validation"];
  await paraxis(["train", "text.ts", ...short, "--quiet"], { cwd });
  const alone = metricsOf(cwd).map(({ loss }) => loss as number);
  const split = ["--devices", "cpu:2", "--compare", "3", "--chunks", "2", "--schedule", "wavefront"];
  const { code, out, err } = await paraxis(["train", "text.ts", ...short, ...split], { cwd });
  expect(code, err).toBe(0);
  const together = metricsOf(cwd).map(({ loss }) => loss as number);
  expect(together).toHaveLength(8);
  together.forEach((loss, i) => {
    expect(Math.abs(loss - (alone[i] as number)) / loss).toBeLessThan(1e-5);
  });
  expect(out).toMatch(/stage 0 +cpu:0: embed/);
  expect(out).toMatch(/layout +cpu:0 holds/);
  expect(out).toMatch(/naive +pipelined/);
  expect(out).toMatch(/devices at once/);
  expect(out).toMatch(
    /pipelined: cpu:0 computed \d+ % of the step, cpu:1 \d+ %; on average \d\.\d\d devices computed at once\./,
  );
  const trace = JSON.parse(readFileSync(join(cwd, "runs/latest/trace.json"), "utf8"));
  expect(chromeProblems(trace)).toEqual([]);
});

test("a layout document is run as it stands, and the run's own can be run again", async () => {
  const cwd = folderWith(files);
  const first = await paraxis(["train", "tiny.ts", "--steps", "6", "--layout", "good.json", "--json"], {
    cwd,
  });
  expect(first.code, first.err).toBe(0);
  const [start] = jsonLines(first.out);
  expect(start).toMatchObject({
    stages: layout.stages.map(({ device, groups }) => ({ devices: [device], groups })),
    reasons: [],
  });
  const losses = metricsOf(cwd).map(({ loss }) => loss);
  expect(JSON.parse(readFileSync(join(cwd, "runs/latest/layout.json"), "utf8"))).toEqual(layout);
  await paraxis(["train", "tiny.ts", "--steps", "6", "--layout", "runs/latest/layout.json", "--quiet"], {
    cwd,
  });
  expect(metricsOf(cwd).map(({ loss }) => loss)).toEqual(losses);
});

test.for([
  [
    "--layout twice.json",
    /stages\[1\]\.groups\[1\]: group "hidden" is placed already by stages\[0\]\.groups\[0\]/,
  ],
  ["--layout nowhere.json", /group "output"/],
  ["--layout unknown.json", /stages\[1\]\.device: unknown device "cpu:7"; the devices are cpu:0, cpu:1/],
  ["--layout many.json", /stages\[2\]\.groups: a stage must hold at least one group/],
  ["--layout backwards.json", /"hidden".*"output"|"output".*"hidden"/],
  ["--layout chunks.json", /chunks: 4 chunks of time, but the data has no time dim/],
  ["--layout broken.json", /the layout is not JSON/],
  ["--layout missing.json", /missing\.json/],
  ["--layout good.json --chunks 2", /the layout document good\.json says everything: leave out chunks/],
  ["--devices cpu:two", /expected a count such as cpu:2/],
  ["--devices cpu:2 --place hidden=cpu:0", /output/],
  ["--devices cpu:2 --place hidden=cpu:0,output=cpu:5", /unknown device "cpu:5"/],
  ["--devices cpu:2 --micro-batches 17", /17 micro-batches/],
  ["--layout good.json --tensor 2 --domain height=2", /leave out tensor\n.*leave out domain/],
  [
    "--devices cpu:3 --tensor 2",
    /cannot share 3 devices \(cpu:0, cpu:1, cpu:2\) between meshes of 2 \(tensor 2\)/,
  ],
  [
    "--devices cpu:6 --data 2 --domain height=2",
    /between 2 replicas of meshes of 2 \(height 2\): give a number of devices that 4 divides, for example --devices cpu:4/,
  ],
  ["--devices cpu:2 --domain 2", /"2" does not say what is split: give the axis, such as height=2/],
  ["--compare 3", /cannot compare placements on one device; give more, for example --devices cpu:2/],
] as const)("%s is refused in one message", async ([words, message]) => {
  const cwd = folderWith(files);
  const { code, out, err } = await paraxis(["train", "tiny.ts", ...words.split(" ")], { cwd });
  expect(code, out).toBe(1);
  expect(err).toMatch(message);
  expect(err).not.toMatch(/^\s+at /m);
  expect(out).toBe("");
});
