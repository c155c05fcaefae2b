/** Devices that throw, leave, die or stop at every kind of instruction: the run ends soon and says where. */

import type { Worker } from "node:worker_threads";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Cluster } from "../../../src/execute/cluster.ts";
import { referenceEngine } from "../../../src/execute/reference-engine.ts";
import { Trainer } from "../../../src/execute/trainer.ts";
import { type Layout, oneDevice } from "../../../src/layout/layout.ts";
import type { Fault } from "../../../src/node/devices/messages.ts";
import { workerStarter } from "../../../src/node/devices/start-worker.ts";
import { DeviceError, threadCluster } from "../../../src/node/devices/thread-cluster.ts";
import { compileTraining } from "../../../src/partition/compile.ts";
import type { Instruction, Program } from "../../../src/program/program.ts";
import { layoutOf, replicated } from "../../partition/layouts.ts";
import { batchOf, exampleOf } from "../../partition/models.ts";
import { dataOf } from "../../partition/train.ts";
import { meetingPrograms } from "../../program/meetings.ts";

const example = exampleOf("skip-mlp", { batch: 2 });
const { groups, source } = example;
const twoStages = layoutOf({ groups, devices: 2, microBatches: 2, schedule: "1f1b", weights: "per-item" });
const training = "training batch=2";

const isPlace: { readonly [place: string]: (instruction: Instruction) => boolean } = {
  F: (instruction) => instruction.kind === "run" && instruction.phase === "F",
  B: (instruction) => instruction.kind === "run" && instruction.phase === "B",
  W: (instruction) => instruction.kind === "run" && instruction.phase === "W",
  U: (instruction) => instruction.kind === "run" && instruction.phase === "U",
  send: ({ kind }) => kind === "send",
  receive: ({ kind }) => kind === "receive",
  free: ({ kind }) => kind === "free",
  guard: ({ kind }) => kind === "guard",
};

const alive = new Set<Worker>();
const open: Cluster[] = [];
let started = 0;

function watch(worker: Worker): void {
  started += 1;
  alive.add(worker);
  worker.once("exit", () => alive.delete(worker));
}

beforeAll(async () => {
  workerStarter(); // The bundler has a thread of its own, which stays; it is announced a tick later.
  await new Promise((resolve) => setTimeout(resolve));
  process.on("worker", watch);
});

afterEach(async () => {
  expect(started).toBeGreaterThan(0);
  for (const cluster of open.splice(0)) await cluster[Symbol.asyncDispose]();
  expect(alive.size).toBe(0);
});

afterAll(() => {
  process.off("worker", watch);
});

async function trainerOn(layout: Layout, deadline: number, fault?: Fault): Promise<Trainer> {
  const cluster = threadCluster({
    devices: layout.devices,
    engine: "reference",
    deadline,
    ...(fault && { fault }),
  });
  open.push(cluster);
  const options = { source, data: dataOf(example, 1), layout, seed: 1, engine: referenceEngine() };
  return Trainer.create({ ...options, cluster });
}

/** The message with which a step, the first or what comes `after` it, fails, and after how many seconds. */
async function failureOf(
  layout: Layout,
  deadline: number,
  fault: Fault,
  after?: (trainer: Trainer) => Promise<unknown>,
) {
  const trainer = await trainerOn(layout, deadline, fault);
  if (after !== undefined) await trainer.step(batchOf(example, 0));
  const start = performance.now();
  const failing = after === undefined ? trainer.step(batchOf(example, 0)) : after(trainer);
  const error: unknown = await failing.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(DeviceError);
  await expect(trainer.step(batchOf(example, 0))).rejects.toBe(error);
  return { message: (error as Error).message, seconds: (performance.now() - start) / 1000 };
}

/** Updates come when what they renew is needed: in the next step, or when it is read. */
const needers = [
  (trainer: Trainer) => trainer.step(batchOf(example, 1)),
  (trainer: Trainer) => trainer.tensors(),
];

const { programs } = compileTraining(source, twoStages, { batch: 2 });
const kinds = ["throw", "exit", "die", "hang"] as const;
/** Nobody waits for gradients of the first stage: it has no B. */
const cases = Object.keys(isPlace).flatMap((place, i) =>
  kinds.map((kind, j) => ({ place, kind, device: place === "B" ? 1 : (i + j) % 2 })),
);

test.each(cases)(
  "$kind at $place of cpu:$device is reported with its place",
  async ({ place, kind, device }) => {
    const { instructions } = programs[device] as Program;
    const hasItem = ["F", "B", "W", "send", "receive"].includes(place);
    const instruction = instructions.findLastIndex(
      (candidate) => isPlace[place]?.(candidate) && (!hasItem || ("item" in candidate && candidate.item)),
    );
    const fault: Fault = { device, program: training, instruction, kind };
    const after = place === "U" ? needers[kinds.indexOf(kind) % needers.length] : undefined;
    const { message, seconds } = await failureOf(twoStages, 0.3, fault, after);
    const item = hasItem ? ", item \\(1, 0\\)" : ".*";
    expect(message).toMatch(
      new RegExp(`device ${device}, stage ${device}${item}, instruction ${instruction} \\(`),
    );
    expect(seconds).toBeLessThan(2);
  },
);

test.each(kinds)("%s at an all-reduce is reported with its place", async (kind) => {
  const layout = replicated(oneDevice(groups), 2);
  const [, copy] = compileTraining(source, layout, { batch: 2 }).programs as readonly [Program, Program];
  const instruction = copy.instructions.findIndex((candidate) => candidate.kind === "all-reduce");
  const fault: Fault = { device: 1, program: training, instruction, kind };
  const { message, seconds } = await failureOf(layout, 0.3, fault);
  expect(message).toMatch(new RegExp(`device 1, stage 0.*, instruction ${instruction} \\(all-reduce grad:`));
  if (kind === "hang") expect(message).toMatch(/device 0, .* waits for device 1 to add up "grad:/);
  expect(seconds).toBeLessThan(2);
});

const meetings = [
  { place: "all-reduce", index: 1, waits: 'to add up "x"' },
  { place: "all-reduce max", index: 4, waits: 'to take the maximum of "y"' },
  { place: "reduce-scatter", index: 5, waits: 'to add up and deal out "y"' },
  { place: "all-gather", index: 9, waits: 'to gather "w"' },
].flatMap((meeting) => kinds.map((kind) => ({ ...meeting, kind })));

test.each(meetings)("$kind at $place of an item is reported with its place", async (meeting) => {
  const { place, index: instruction, waits, kind } = meeting;
  const sizes = [2, 3];
  const fault: Fault = { device: 1, program: "meet", instruction, kind };
  const devices = sizes.map((_, rank) => ({ name: `cpu:${rank}`, threads: 1 }));
  const cluster = threadCluster({ devices, engine: "reference", deadline: 0.3, fault });
  open.push(cluster);
  await cluster.load(meetingPrograms({ dtype: "f64", sizes }).map((program) => new Map([["meet", program]])));
  const data = Object.fromEntries(
    sizes.flatMap((size, rank) => [
      [`a${rank}`, { dtype: "f64" as const, shape: [size], data: new Float64Array(size) }],
      [`b${rank}`, { dtype: "f64" as const, shape: [5], data: new Float64Array(5) }],
    ]),
  );
  const start = performance.now();
  const error: unknown = await cluster.run("meet", { data, scalars: {} }).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(DeviceError);
  const { message } = error as Error;
  expect(message).toMatch(
    new RegExp(`device 1, stage 1, item \\(0, 0\\), instruction ${instruction} \\(${place} \\w 0\\.0\\)`),
  );
  if (kind === "hang")
    expect(message).toMatch(
      new RegExp(
        `device 0, stage 0, item \\(0, 0\\), instruction ${instruction} .* waits for device 1 ${waits}`,
      ),
    );
  expect((performance.now() - start) / 1000).toBeLessThan(2);
});

test("the watchdog says who waits for whom and for which message", async () => {
  const fault: Fault = { device: 1, program: training, instruction: 0, kind: "hang" };
  const { message, seconds } = await failureOf(twoStages, 1, fault);
  expect(seconds).toBeLessThan(2);
  expect(message).toMatch(
    /^no device has gone on for \d\.\d s; these do not answer:\n {2}- device 0, stage 0, item \(0, 0\), instruction \d+ \(recv←1 #\d+ 0\.0\) waits for message "%\d+\[0\.0\]" \(\d+ B\) from device 1\n {2}- device 1, stage 1, item \(0, 0\), instruction 0 \(recv←0 #\d+ 0\.0\) waits for message "%\d+\[0\.0\]" \(\d+ B\) from device 0$/,
  );
});

test("a single device that stops is noticed", async () => {
  const fault: Fault = { device: 0, program: training, instruction: 3, kind: "hang" };
  const { message, seconds } = await failureOf(oneDevice(groups), 0.5, fault);
  expect(message).toContain("device 0, stage 0, ");
  expect(seconds).toBeLessThan(2);
});

test("a step that is under way when the devices are closed is rejected", async () => {
  const fault: Fault = { device: 1, program: training, instruction: 0, kind: "hang" };
  const trainer = await trainerOn(twoStages, 60, fault);
  const step = expect(trainer.step(batchOf(example, 0))).rejects.toThrow("the devices were closed");
  await open[0]?.[Symbol.asyncDispose]();
  await step;
});
