/** `paraxis layout`, as people start it; its page in the guide shows what it prints for the four machines. */

import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { showBytes } from "../../../src/base/bytes.ts";
import { formatCount, formatPercent, formatValue } from "../../../src/node/cli/format.ts";
import type { DeviceSplit, GroupSplit, StageSplit } from "../../../src/plan/describe-split.ts";
import type { StepPrediction } from "../../../src/plan/predict-step.ts";
import { folderWith, paraxis, tinyJob } from "./command.ts";

const examples = fileURLToPath(new URL("../../../examples/", import.meta.url));

interface Report {
  readonly job: string;
  readonly stages: readonly StageSplit[];
  readonly devices: readonly DeviceSplit[];
  readonly predicted: StepPrediction & { readonly oneDeviceSeconds: number };
}

async function layout(words: readonly string[], cwd = folderWith({ "tiny.ts": tinyJob })): Promise<string> {
  const { code, out, err } = await paraxis(["layout", ...words], { cwd });
  expect(code, err).toBe(0);
  expect(err).toBe("");
  return out;
}

async function reportOf(words: readonly string[]): Promise<Report> {
  return JSON.parse(await layout([...words, "--json"])) as Report;
}

/** What a group moves on its first device, as `F all-reduce 4 409600`. */
function moved({ moves }: GroupSplit): readonly string[] {
  const own = moves.filter(({ device }) => device === moves[0]?.device);
  return own.map(({ phase, kind, count, bytes, sent }) => [phase, kind, count, bytes, sent].join(" "));
}

test("two small layers split over two devices, in words", async () => {
  const cwd = folderWith({ "tiny.ts": tinyJob });
  expect(await layout(["tiny.ts", "--devices", "cpu:2", "--tensor", "2"], cwd)).toBe(
    `Layout of tiny: mini-batch batch=16, 1 micro-batch, schedule naive, weights fused

Every layer is split over 2 devices (tensor 2): cpu:0 cpu:1.

Stage 0 on cpu:0 cpu:1 (tensor 2)

  hidden
    parameter      shape   lies as        elements  bytes per device
    -------------  ------  -------------  --------  ----------------
    hidden.weight  [2, 8]  [2, 8/tensor]         8              32 B
    hidden.bias    [8]     [8/tensor]            4              16 B
    phase  number  moves, per device  bytes  sent
    -----  ------  -----------------  -----  ----
    U           1  all-reduce           4 B   4 B

  output
    parameter      shape   lies as        elements  bytes per device
    -------------  ------  -------------  --------  ----------------
    output.weight  [8, 1]  [8/tensor, 1]         4              16 B
    output.bias    [1]     [1]                   1               4 B
    whole on all 2 devices: output.bias
    phase  number  moves, per device  bytes  sent
    -----  ------  -----------------  -----  ----
    F           1  all-reduce          64 B  64 B

device  parameters  gradients  optimizer state  sent per step  computes
------  ----------  ---------  ---------------  -------------  --------
cpu:0         68 B       68 B            136 B           68 B      88 %
cpu:1         68 B       68 B            136 B           68 B      88 %

Predicted: 0.3403 ms a step, 0.71 times as fast as one device; one device alone is faster; each device computes for the share shown.

n/tensor: these n rows, columns or channels are dealt out along the axis, evenly where a stage has no shares; a plain number is whole on every device.
bytes: of the whole tensor of a collective, and of a message. sent: of S bytes over n devices, a device sends 2·S·(n-1)/n for an
all-reduce, S·(n-1)/n for an all-gather or a reduce-scatter, and S for a message. Receivers are not counted again.
`,
  );
  expect(readdirSync(cwd), "nothing is written").not.toContain("runs");
});

test("one device holds everything and moves nothing", async () => {
  const out = await layout(["tiny.ts"]);
  expect(out).toMatch(/^Layout of tiny: [^\n]*\n\nStage 0 on cpu:0\n\n {2}hidden\n/);
  expect(out.match(/nothing moves/g)).toHaveLength(2);
  expect(out).toMatch(/\ncpu:0 +132 B +132 B +264 B +0 B +100 %\n\nPredicted: 0\.\d+ ms a step\.\n$/);
});

test("the four machines hold and move what can be counted by hand", async () => {
  const words = [`${examples}four-machines/job.ts`, "--layout", `${examples}four-machines/layout.json`];
  const { job, stages, devices } = await reportOf(words);
  expect(job).toBe("four-machines");
  const held = stages.map(({ groups }) =>
    groups.flatMap(({ parameters }) => parameters.map(({ lies, elements }) => [lies, ...elements].join(" "))),
  );
  expect(held).toEqual([
    [
      "[784, 1024/tensor] 401408 401408",
      "[1024/tensor] 512 512",
      "[1024/tensor, 1024] 524288 524288",
      "[1024] 1024 1024",
    ],
    [
      "[1024, 2048/tensor] 1048576 1048576",
      "[2048/tensor] 1024 1024",
      "[2048/tensor, 10] 10240 10240",
      "[10] 10 10",
    ],
  ]);
  const [upper, lower] = [
    4 * (784 * 512 + 512 + 512 * 1024 + 1024),
    4 * (1024 * 1024 + 1024 + 1024 * 10 + 10),
  ];
  expect(devices.map(({ parameters, gradients, optimizer }) => [parameters, gradients, optimizer])).toEqual(
    [upper, lower, upper, lower].map((bytes) => [bytes, bytes, 2 * bytes]),
  );
  const [, layer2, layer3, layer4] = stages.flatMap(({ groups }) => groups) as GroupSplit[];
  const values = 4 * (25 * 1024) * 4;
  expect(moved(layer2 as GroupSplit)).toEqual([
    `F all-reduce 4 ${values} ${values}`,
    `F message 4 ${values} ${values}`,
  ]);
  expect(moved(layer3 as GroupSplit).slice(0, 2)).toEqual([
    `B all-reduce 4 ${values} ${values}`,
    `B message 4 ${values} ${values}`,
  ]);
  expect(moved(layer4 as GroupSplit)[0]).toBe(`F all-reduce 4 ${4 * 25 * 10 * 4} ${4 * 25 * 10 * 4}`);
});

test("a block of a transformer on a tensor axis needs two all-reduces forward and two backward", async () => {
  const { stages } = await reportOf([`${examples}transformer/job.ts`, "--devices", "cpu:2", "--tensor", "2"]);
  const blocks = stages.flatMap(({ groups }) => groups).filter(({ group }) => group.startsWith("block"));
  expect(blocks.length).toBeGreaterThan(1);
  const bytes = 2 * (16 * 64 * 128 * 4);
  for (const block of blocks) {
    const lies = new Map(block.parameters.map((own) => [own.name.slice(block.group.length + 1), own.lies]));
    expect(lies.get("attention.query.weight")).toBe("[128, 128/tensor]");
    expect(lies.get("attention.output.weight")).toBe("[128/tensor, 128]");
    expect(lies.get("up.weight")).toBe("[128, 512/tensor]");
    expect(lies.get("down.weight")).toBe("[512/tensor, 128]");
    expect(moved(block)).toEqual([`F all-reduce 2 ${bytes} ${bytes}`, `B all-reduce 2 ${bytes} ${bytes}`]);
  }
});

/** Of two replicas; the one number of the last bias cannot be shared, so both keep all of it. */
const all = 4 * (2 * 8 + 8 + 8 + 1);
const half = 4 * (2 * 4 + 4 + 4 + 1);

test.each([
  ["0", { parameters: all, gradients: all, optimizer: 2 * all, sent: all + 4 }],
  ["1", { parameters: all, gradients: all, optimizer: 2 * half }],
  ["2", { parameters: all, gradients: half, optimizer: 2 * half }],
])("replicas with zero %s hold their share", async (zero, held) => {
  const words = ["tiny.ts", "--devices", "cpu:2", "--data", "2", "--zero", zero];
  const { stages, devices } = await reportOf(words);
  expect(stages.map((stage) => stage.devices)).toEqual([[["cpu:0"], ["cpu:1"]]]);
  expect(devices).toEqual(["cpu:0", "cpu:1"].map((device) => expect.objectContaining({ device, ...held })));
  expect(await layout(words)).toContain("\nStage 0 on cpu:0 | cpu:1\n");
});

test("the words show the numbers of the JSON", async () => {
  const words = [
    `${examples}mnist-domain/job.ts`,
    "--devices",
    "cpu:4",
    "--domain",
    "height=2",
    "--tensor",
    "2",
  ];
  const [out, { stages, devices, predicted }] = [await layout(words), await reportOf(words)];
  const lines = out.split("\n").map((line) => line.trim().split(/ {2,}/));
  for (const { name, lies, elements, bytes } of stages.flatMap(({ groups }) =>
    groups.flatMap(({ parameters }) => parameters),
  )) {
    const [, , shown, ...numbers] = lines.find(([first]) => first === name) ?? [];
    expect(shown).toBe(lies);
    expect(numbers[0]).toContain(formatCount(Math.max(...elements)));
    expect(numbers[1]).toContain(showBytes(Math.max(...bytes)));
  }
  for (const [i, { device, parameters, gradients, optimizer, sent }] of devices.entries())
    expect(lines.find(([first]) => first === device)).toEqual([
      device,
      ...[parameters, gradients, optimizer, sent].map(showBytes),
      formatPercent(predicted.busy[i] ?? 0),
    ]);
  expect(out).toContain(
    `Predicted: ${formatValue(1000 * predicted.seconds)} ms a step, ${(predicted.oneDeviceSeconds / predicted.seconds).toFixed(2)} times as fast as one device`,
  );
});

test.each([
  ["--layout none.json", /none\.json/],
  [
    "--layout bad.json",
    /^error: .*\n {2}- version: must be 1.*\n(?: {2}- .*\n)* {2}- schedule: must be "naive" or/,
  ],
  [
    "--devices cpu:3 --tensor 2",
    /cannot share 3 devices \(cpu:0, cpu:1, cpu:2\) between meshes of 2 \(tensor 2\)/,
  ],
  [
    "--devices cpu:9 --tensor 9",
    /layer "hidden" has no weight for 9 devices.*\n.*layer "output" has no weight for 9 devices/,
  ],
  ["--devices cpu:2 --zero 1", /zero: 1 shares the update among replicas, but there is one/],
])("%s is refused in one message", async (words, message) => {
  const cwd = folderWith({ "tiny.ts": tinyJob, "bad.json": '{ "version": 3, "schedule": "2f2b" }' });
  const { code, out, err } = await paraxis(["layout", "tiny.ts", ...words.split(" ")], { cwd });
  expect(code, out).toBe(1);
  expect(err).toMatch(message);
  expect(err).not.toMatch(/^\s+at /m);
  expect(out).toBe("");
});
