/** Traces of real steps, and of steps replayed with given durations, where the concurrency is known. */

import { expect, test } from "vitest";
import { referenceEngine } from "../../src/execute/reference-engine.ts";
import { stepTracer } from "../../src/execute/step-trace.ts";
import { Trainer } from "../../src/execute/trainer.ts";
import type { Layout } from "../../src/layout/layout.ts";
import { threadCluster } from "../../src/node/devices/thread-cluster.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import { postponable } from "../../src/program/postpone.ts";
import type { Program, Run } from "../../src/program/program.ts";
import { replayPrograms } from "../../src/program/replay.ts";
import { verifyPrograms } from "../../src/program/verify.ts";
import { printChromeTrace, toChromeTrace } from "../../src/trace/chrome.ts";
import { chromeProblems } from "../../src/trace/chrome-rules.ts";
import { traceStatistics } from "../../src/trace/statistics.ts";
import { type Trace, traceProblems } from "../../src/trace/trace.ts";
import { layoutOf } from "../partition/layouts.ts";
import { batchOf, exampleOf } from "../partition/models.ts";
import { dataOf } from "../partition/train.ts";
import { meetingPrograms } from "../program/meetings.ts";

function traceOf(programs: readonly Program[], steps: readonly (readonly Float64Array[])[]): Trace {
  const parts = steps.map(stepTracer(programs));
  return {
    origin: "measured",
    devices: programs.map(({ device }) => `cpu:${device}`),
    events: parts.flatMap(({ events }) => events),
    memory: parts.flatMap(({ memory }) => memory),
  };
}

test("the trace of a real run on two threads is possible, whole, and opens in viewers", async () => {
  const example = exampleOf("lstm");
  const { groups, source } = example;
  const layout = layoutOf({
    groups,
    devices: 2,
    microBatches: 2,
    chunks: 2,
    schedule: "wavefront",
    weights: "deferred",
  });
  await using cluster = threadCluster({ devices: layout.devices, engine: "reference", deadline: 10 });
  const data = { ...dataOf(example, 1), shapes: example.shapes.slice(0, 1) };
  const trainer = await Trainer.create({ source, data, layout, seed: 1, cluster, engine: referenceEngine() });
  const first = await trainer.step(batchOf(example, 0));
  const second = await trainer.step(batchOf(example, 0));
  const programs = trainer.compiled.get(first.program)?.programs ?? [];
  const trace = traceOf(programs, [first.times, second.times]);
  expect(traceProblems(trace)).toEqual([]);
  expect(chromeProblems(JSON.parse(printChromeTrace(toChromeTrace([{ name: "run", trace }]))))).toEqual([]);
  const count = (kind: string) =>
    programs.flatMap(({ instructions }) => instructions.filter((one) => one.kind === kind)).length;
  const late = programs.reduce((sum, program) => sum + postponable(program).size, 0);
  expect(late).toBeGreaterThan(0);
  for (const kind of ["run", "send", "receive"] as const) {
    const expected = 2 * count(kind) - (kind === "run" ? late : 0);
    expect(trace.events.filter((event) => event.kind === kind)).toHaveLength(expected);
  }
  const starts = (of: number) => trace.events.flatMap((one) => (one.device === of ? [one.start] : []));
  for (const of of [0, 1]) expect(starts(of)).toEqual(starts(of).toSorted((a, b) => a - b));
  const { whole } = traceStatistics(trace);
  expect(whole.concurrency).toBeGreaterThanOrEqual(1);
  expect(whole.concurrency).toBeLessThanOrEqual(2);
  expect(whole.devices.every(({ busy, peakBytes }) => busy > 0 && peakBytes > 0)).toBe(true);
});

/** The trace of a step in which every F, B and W takes one second, U none, and messages `transfer`. */
function replayed(layout: Layout, transfer = 0): Trace {
  const { programs } = compileTraining(exampleOf("lstm").source, layout, { batch: 8, time: 4 });
  const duration = ({ phase }: Run) => (phase === "U" ? 0 : 1);
  const { devices } = replayPrograms(programs, { duration, transfer: () => transfer });
  const times = devices.map((timed) => Float64Array.from(timed.flatMap(({ start, end }) => [start, end])));
  return traceOf(programs, [times]);
}

test("placed naively one device computes at a time, streamed more do", () => {
  const choice = { groups: exampleOf("lstm").groups, devices: 2 };
  const concurrency = (layout: Layout) => {
    const trace = replayed(layout);
    expect(traceProblems(trace)).toEqual([]);
    return traceStatistics(trace).whole.concurrency;
  };
  expect(concurrency(layoutOf({ ...choice, schedule: "naive" }))).toBe(1);
  expect(concurrency(layoutOf({ ...choice, microBatches: 4, schedule: "naive" }))).toBeLessThan(1.2);
  expect(concurrency(layoutOf({ ...choice, microBatches: 4, schedule: "1f1b" }))).toBeGreaterThan(1.5);
});

test("a receive that begins before its send is a wait until then", () => {
  const { groups } = exampleOf("lstm");
  const { events } = replayed(layoutOf({ groups, devices: 2, schedule: "naive" }), 0.5);
  const [wait, receive] = events.filter(({ device, kind }) => device === 1 && kind !== "run");
  const sent = events.find(({ device, kind }) => device === 0 && kind === "send")?.start as number;
  expect(wait).toMatchObject({ kind: "wait", stream: "compute", start: 0, end: sent, peer: 0 });
  expect(receive).toMatchObject({
    kind: "receive",
    stream: "receive",
    start: sent,
    end: sent + 0.5,
    peer: 0,
  });
});

test("members of a group wait for the last of their own meeting, then the tensor moves", () => {
  const pair = [
    meetingPrograms({ dtype: "f32", sizes: [3, 2] }),
    meetingPrograms({ dtype: "f32", sizes: [1, 4] }),
  ];
  const programs = pair.flat().map((program, device) => ({
    ...program,
    device,
    replica: device < 2 ? 0 : 1,
    instructions: program.instructions.map((one) =>
      "ranks" in one && device >= 2 ? { ...one, group: 7, ranks: [2, 3] } : one,
    ),
  }));
  expect(verifyPrograms(programs)).toEqual([]);
  const costs = { duration: () => 0, transfer: () => 0, collective: (bytes: number) => bytes };
  const replay = replayPrograms(programs, {
    ...costs,
    duration: (_run: Run, { device }: Program) => [1, 4, 2, 16][device] as number,
  });
  const times = replay.devices.map((timed) =>
    Float64Array.from(timed.flatMap(({ start, end }) => [start, end])),
  );
  const trace = traceOf(programs, [times]);
  expect(traceProblems(trace)).toEqual([]);
  const of = { phase: "F", item: { microBatch: 0, chunk: 0 } };
  const events = (device: number) =>
    trace.events.filter((event) => event.device === device && event.kind !== "run").slice(0, 3);
  expect(events(0)).toEqual([
    { step: 0, device: 0, stream: "compute", kind: "wait", name: "x", ...of, start: 1, end: 4 },
    {
      step: 0,
      device: 0,
      stream: "collective",
      kind: "collective",
      name: "x",
      ...of,
      bytes: 20,
      start: 4,
      end: 24,
    },
    { step: 0, device: 0, stream: "compute", kind: "wait", name: "y", ...of, start: 25, end: 28 },
  ]);
  expect(events(2)[0]).toMatchObject({ kind: "wait", start: 2, end: 16 });
  expect(trace.events.filter(({ kind, device }) => kind === "collective" && device === 3)).toHaveLength(4);
});

test("instructions that a step did not reach have no events", () => {
  const example = exampleOf("lstm");
  const { programs } = compileTraining(example.source, layoutOf({ groups: example.groups, devices: 1 }), {
    batch: 4,
    time: 4,
  });
  const [program] = programs as readonly [Program];
  const times = new Float64Array(2 * program.instructions.length).fill(Number.NaN);
  times.set([0, 1]);
  expect(stepTracer(programs)([times], 7).events).toEqual([
    {
      step: 7,
      start: 0,
      end: 1,
      device: 0,
      stream: "compute",
      kind: "run",
      name: "embed",
      phase: "F",
      stage: 0,
      item: { microBatch: 0, chunk: 0 },
    },
  ]);
});
