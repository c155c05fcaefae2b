import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { stepTracer } from "../../src/execute/step-trace.ts";
import type { Layout } from "../../src/layout/layout.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import type { Run } from "../../src/program/program.ts";
import { replayPrograms } from "../../src/program/replay.ts";
import { printChromeTrace, toChromeTrace } from "../../src/trace/chrome.ts";
import { parseChromeTrace } from "../../src/trace/chrome-import.ts";
import { describePairs } from "../../src/trace/describe-pairs.ts";
import { intersection, total, union } from "../../src/trace/intervals.ts";
import { classifyPairs, type DevicePair, negligible } from "../../src/trace/pairs.ts";
import type { Trace, TraceEvent, TracePhase } from "../../src/trace/trace.ts";
import { layoutOf, replicated } from "../partition/layouts.ts";
import { type ExampleName, exampleOf } from "../partition/models.ts";
import { anyTrace, pipelined, run, serial, trace } from "./hand-made.ts";

/** A computation of a layer of the stage for a micro-batch; layers are called after their stage. */
function work(
  [device, stage, microBatch]: readonly [number, number, number],
  [start, end]: readonly [number, number],
  phase: TracePhase = "F",
  more: Partial<TraceEvent> = {},
): TraceEvent {
  const item = { microBatch, chunk: 0 };
  return run(device, start, end, phase, { stage, name: `layer${stage}`, item, ...more });
}

/** The only pair of two devices. */
function pairOf(events: readonly TraceEvent[]): DevicePair {
  const [pair] = classifyPairs(trace(2, events));
  expect(pair?.devices).toEqual([0, 1]);
  return pair as DevicePair;
}

describe("two devices", () => {
  test("that take turns are never at the same time, whatever their updates do", () => {
    const events = [work([0, 0, 0], [0, 2]), work([1, 1, 0], [2, 4]), run(0, 4, 9, "U"), run(1, 4, 9, "U")];
    expect(pairOf(events)).toEqual({ devices: [0, 1], kind: "never", also: [], both: 0, kinds: {} });
    expect(classifyPairs(serial).map(({ kind }) => kind)).toEqual(["never"]);
  });

  test("with parts of a layer compute the same layer at the same time", () => {
    const events = [work([0, 0, 0], [0, 4]), work([1, 0, 0], [1, 3]), work([1, 0, 1], [8, 10])];
    expect(pairOf(events)).toMatchObject({ kind: "layer", both: 0.5, kinds: { layer: 0.5 } });
  });

  test("one of which is a layer ahead of the other are still devices of one mesh", () => {
    const events = [
      work([0, 0, 0], [0, 1]),
      work([1, 0, 0], [0, 2]),
      work([0, 0, 0], [1, 4], "F", { name: "next" }),
      work([1, 0, 0], [2, 4], "F", { name: "next" }),
    ];
    const pair = pairOf(events);
    expect(pair).toMatchObject({
      kind: "layer",
      also: ["ahead"],
      both: 1,
      kinds: { layer: 0.75, ahead: 0.25 },
    });
    const late = [work([0, 0, 1], [0, 3]), work([1, 0, 0], [0, 3]), work([1, 0, 1], [3, 4])];
    expect(pairOf(late)).toMatchObject({ kind: "ahead", also: [], both: 1 });
  });

  test("with copies of a layer compute different samples of it", () => {
    const copy = { replica: 1 };
    const events = [
      work([0, 0, 0], [0, 2]),
      work([1, 0, 0], [0, 1], "F", copy),
      work([1, 0, 1], [1, 2], "F", copy),
    ];
    expect(pairOf(events)).toMatchObject({ kind: "samples", also: [], both: 1 });
    expect(pairOf([work([0, 0, 0], [0, 2]), work([1, 1, 0], [0, 2], "F", copy)])).toMatchObject({
      kind: "replicas",
    });
  });

  test("in different stages at different items compute at the same time through the stream only", () => {
    const events = [
      work([0, 0, 0], [0, 2]),
      work([0, 0, 1], [2, 4]),
      work([1, 1, 0], [2, 4]),
      work([1, 1, 1], [4, 6]),
    ];
    expect(pairOf(events)).toMatchObject({ kind: "stream", also: [], both: 0.5 });
    const chunks = [
      run(0, 0, 2, "F", { stage: 0, item: { microBatch: 0, chunk: 1 } }),
      work([1, 1, 0], [0, 2]),
    ];
    expect(pairOf(chunks)).toMatchObject({ kind: "stream" });
  });

  test("in different stages at the same item are branches, or compute gradients of weights", () => {
    expect(pairOf([work([0, 0, 0], [0, 2]), work([1, 1, 0], [0, 2])])).toMatchObject({ kind: "branches" });
    expect(pairOf([work([0, 0, 0], [0, 2], "B"), work([1, 1, 0], [0, 2], "W")])).toMatchObject({
      kind: "weights",
    });
    const joined = run(1, 0, 2, "W", { stage: 1, name: "layer1" });
    expect(pairOf([work([0, 0, 3], [0, 2], "B"), joined])).toMatchObject({ kind: "weights" });
  });

  test("of which one finishes its copy of what another has handed on are not branches", () => {
    const events = [work([0, 0, 0], [0, 1]), work([1, 0, 0], [0, 3]), work([2, 1, 0], [1, 3])];
    const kinds = classifyPairs(trace(3, events)).map(({ devices, kind }) => [...devices, kind]);
    expect(kinds).toEqual([
      [0, 1, "layer"],
      [0, 2, "never"],
      [1, 2, "ahead"],
    ]);
  });

  test("are named by what takes most of the time, and the rest is told", () => {
    const events = [
      work([0, 0, 1], [0, 70]),
      work([1, 1, 0], [0, 70]),
      work([0, 0, 2], [70, 100], "B"),
      work([1, 1, 2], [70, 99], "W"),
      work([1, 1, 2], [99, 100], "B"),
    ];
    const pair = pairOf(events);
    expect(pair).toMatchObject({ kind: "stream", also: ["weights"], both: 1 });
    expect(pair.kinds).toEqual({ stream: 0.7, weights: 0.29, branches: 0.01 });
  });

  test("that overlap less than is evidence are never at the same time", () => {
    const overlapping = (time: number) => [
      work([0, 0, 1], [0, 100]),
      work([1, 1, 0], [100 - time, 200 - time]),
    ];
    expect(pairOf(overlapping(0.9)).kind).toBe("never");
    expect(pairOf(overlapping(1.1)).kind).toBe("stream");
    expect(negligible).toBe(0.01);
  });

  test("of which one computes nothing are never at the same time", () => {
    expect(pairOf([work([0, 0, 0], [0, 1])])).toMatchObject({ kind: "never", both: 0 });
  });

  test("of different steps are never taken for the same item", () => {
    expect(pairOf([work([0, 0, 0], [0, 2], "F", { step: 1 }), work([1, 1, 0], [0, 2])]).kind).toBe("stream");
  });
});

test("the shares of any trace are those of its intervals", () => {
  fc.assert(
    fc.property(anyTrace, (any) => {
      const computing = any.devices.map((_, device) => {
        const runs = any.events.filter(
          (event) => event.device === device && event.kind === "run" && event.phase !== "U",
        );
        const apart: TraceEvent[] = [];
        for (const event of runs.toSorted((a, b) => a.start - b.start))
          if (event.start >= (apart.at(-1)?.end ?? 0)) apart.push(event);
        return apart;
      });
      const pairs = classifyPairs({ ...any, events: computing.flat() });
      const count = any.devices.length;
      expect(pairs).toHaveLength((count * (count - 1)) / 2);
      for (const { devices, both, kinds } of pairs) {
        const [a, b] = devices.map((device) => union(computing[device] ?? [])) as [
          ReturnType<typeof union>,
          ReturnType<typeof union>,
        ];
        const shortest = Math.min(total(a), total(b));
        expect(both * shortest).toBeCloseTo(total(intersection(a, b)), 12);
        expect(Object.values(kinds).reduce((sum, share) => sum + share, 0)).toBeCloseTo(both, 9);
      }
    }),
  );
});

/** The trace of a step whose computations and transfers all take one second, and whose collectives take none. */
function replayed(name: ExampleName, layout: Layout): Trace {
  const { programs } = compileTraining(exampleOf(name).source, layout, { batch: 8, time: 4 });
  const { devices } = replayPrograms(programs, {
    duration: ({ phase }: Run) => (phase === "U" ? 0 : 1),
    transfer: () => 0,
  });
  const times = devices.map((timed) => Float64Array.from(timed.flatMap(({ start, end }) => [start, end])));
  return {
    origin: "predicted",
    devices: layout.devices.map((device) => device.name),
    ...stepTracer(programs)(times, 0),
  };
}

function kindsOf(predicted: Trace): readonly string[] {
  return classifyPairs(predicted).map(({ devices: [a, b], kind, also }) =>
    [`${a}-${b}`, kind, ...also].join(" "),
  );
}

describe("programs, replayed", () => {
  const { groups } = exampleOf("lstm");
  const two = { groups, devices: 2 } as const;

  test("naive ones take turns, streamed ones work through the stream", () => {
    expect(kindsOf(replayed("lstm", layoutOf({ ...two, schedule: "naive" })))).toEqual(["0-1 never"]);
    expect(kindsOf(replayed("lstm", layoutOf({ ...two, microBatches: 4, schedule: "1f1b" })))).toEqual([
      "0-1 stream",
    ]);
    const apart = layoutOf({ ...two, microBatches: 1, schedule: "1f1b", weights: "per-item" });
    expect(kindsOf(replayed("lstm", apart))).toEqual(["0-1 weights"]);
  });

  test("replicas of a pipeline compute different samples", () => {
    const layout = replicated(layoutOf({ ...two, microBatches: 2, schedule: "1f1b" }), 2);
    expect(kindsOf(replayed("lstm", layout))).toEqual([
      "0-1 stream",
      "0-2 samples",
      "0-3 replicas",
      "1-2 replicas",
      "1-3 samples",
      "2-3 stream",
    ]);
  });

  test("a mesh computes the same layer at the same time, meshes of other stages through the stream only", () => {
    const plain = layoutOf({ ...two, microBatches: 4, schedule: "1f1b" });
    const layout: Layout = {
      ...plain,
      devices: [0, 1, 2, 3].map((i) => ({ name: `cpu:${i}`, threads: 1 })),
      stages: plain.stages.map((stage, i) => ({
        ...stage,
        devices: [`cpu:${i}`, `cpu:${i + 2}`],
        mesh: { tensor: 2 },
      })),
    };
    expect(kindsOf(replayed("lstm", layout))).toEqual([
      "0-1 stream",
      "0-2 layer",
      "0-3 stream",
      "1-2 stream",
      "1-3 layer",
      "2-3 stream",
    ]);
  });

  test("two towers on two devices are branches", () => {
    const example = exampleOf("two-towers");
    const layout = layoutOf({ groups: example.groups, devices: 2, schedule: "naive" });
    expect(kindsOf(replayed("two-towers", layout))[0]).toMatch(/^0-1 branches/);
  });

  test("a trace that was written and read again is classified as before", () => {
    const layout = replicated(layoutOf({ ...two, microBatches: 2, schedule: "1f1b" }), 2);
    const original = replayed("lstm", layout);
    const [back] = parseChromeTrace(printChromeTrace(toChromeTrace([{ name: "run", trace: original }])));
    expect(classifyPairs(back?.trace ?? serial)).toEqual(classifyPairs(original));
  });
});

describe("in words", () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => `cpu:${i}`);
  const pairsOf = (count: number, kindOf: (a: number, b: number) => DevicePair["kind"], both = 0.5) =>
    names(count).flatMap((_, a) =>
      names(count)
        .slice(a + 1)
        .map((__, i): DevicePair => {
          const kind = kindOf(a, a + 1 + i);
          return {
            devices: [a, a + 1 + i],
            kind,
            also: [],
            both,
            kinds: kind === "never" ? {} : { [kind]: both },
          };
        }),
    );
  const describeWith = (count: number, kindOf: (a: number, b: number) => DevicePair["kind"]) =>
    describePairs(names(count), pairsOf(count, kindOf));

  test("two devices take one line, and none where they take turns", () => {
    expect(describePairs(names(2), classifyPairs(pipelined))).toEqual([
      "cpu:0 and cpu:1: gradients of weights, for which no device waits (67 % of the less busy one's computing time), through the stream (33 %).",
    ]);
    expect(describePairs(names(2), classifyPairs(serial))).toEqual([]);
    expect(describePairs(["cpu:0"], [])).toEqual([]);
  });

  test("the grid of four machines is told as its picture tells it", () => {
    const [upper, stream] = describeWith(4, (a, b) => (a % 2 === b % 2 ? "layer" : "stream"));
    expect(upper).toBe(
      "cpu:0 and cpu:2, cpu:1 and cpu:3: same layer at the same time (50 % of the less busy one's computing time).",
    );
    expect(stream).toBe("{cpu:0, cpu:2} and {cpu:1, cpu:3}: through the stream only (50 %).");
  });

  test("ranges and mixtures are told in one line", () => {
    const pair = { kind: "layer", also: ["ahead"], both: 0.5 } as const;
    const lines = describePairs(names(3), [
      { ...pair, devices: [0, 1], kinds: { layer: 0.4, ahead: 0.1 } },
      { ...pair, devices: [0, 2], kinds: { layer: 0.3, ahead: 0.2 } },
      { ...pair, devices: [1, 2], also: [], kinds: { layer: 0.5 } },
    ]);
    expect(lines).toEqual([
      "cpu:0, cpu:1, cpu:2 with each other: same layer at the same time (30 to 50 % of the less busy one's computing time), " +
        "one ahead of the other in the same layers (0 to 20 %).",
    ]);
  });

  test("many devices that stand alike are named together", () => {
    expect(describeWith(8, () => "stream")).toEqual([
      "cpu:0 to cpu:7 with each other: through the stream only (50 % of the less busy one's computing time).",
    ]);
    const mesh = (device: number) => device >> 2;
    expect(describeWith(8, (a, b) => (mesh(a) === mesh(b) ? "layer" : "never"))).toEqual([
      "cpu:0 to cpu:3 with each other, cpu:4 to cpu:7 with each other: same layer at the same time " +
        "(50 % of the less busy one's computing time).",
      "{cpu:0 to cpu:3} and {cpu:4 to cpu:7}: never at the same time.",
    ]);
  });

  test("more sets than can be read are counted", () => {
    const ring = describeWith(16, (a, b) => (b - a === 1 || b - a === 15 ? "stream" : "never"));
    expect(ring[0]).toMatch(
      /^cpu:0 and cpu:1, (cpu:\d+ and cpu:\d+, ){5}\.\.\. \(16 pairs\): through the stream only/,
    );
  });
});
