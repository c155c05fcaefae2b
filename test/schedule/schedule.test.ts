import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { uniform } from "../../src/base/random.ts";
import { type Action, allActions, piecesOf, type Weights } from "../../src/schedule/action.ts";
import { type Replay, replay, uniformCosts } from "../../src/schedule/replay.ts";
import {
  type ScheduleKind,
  type ScheduleSpec,
  schedule,
  scheduleKinds,
  specProblems,
} from "../../src/schedule/schedule.ts";
import { parseSchedule, printSchedule, renderTimeline } from "../../src/schedule/text.ts";
import { peakItems, showProblems, verifySchedule } from "../../src/schedule/verify.ts";

const range = (length: number): number[] => Array.from({ length }, (_, i) => i);

function spec(
  kind: ScheduleKind,
  stages: number,
  microBatches: number,
  more: Partial<ScheduleSpec> = {},
): ScheduleSpec {
  const weights: Weights = kind === "zero-bubble-h1" ? "per-item" : "fused";
  return { kind, devices: stages, stages, microBatches, chunks: 1, weights, ...more };
}

function run(of: ScheduleSpec, F: number, B: number, W: number): Replay {
  return replay(schedule(of), of, uniformCosts(F, B, W));
}

/** Idle time of the device with the least work to wait for, in units of time. */
function idle(of: Replay): number[] {
  return of.bubbles.map((bubble) => bubble * of.makespan);
}

const anySpec: fc.Arbitrary<ScheduleSpec> = fc
  .record({
    kind: fc.constantFrom(...scheduleKinds),
    devices: fc.integer({ min: 1, max: 6 }),
    stagesPerDevice: fc.integer({ min: 1, max: 3 }),
    microBatches: fc.integer({ min: 1, max: 12 }),
    chunks: fc.integer({ min: 1, max: 6 }),
    weights: fc.constantFrom<Weights>("fused", "per-item", "per-micro-batch", "deferred"),
  })
  .map(({ stagesPerDevice, ...rest }) => ({ ...rest, stages: rest.devices * stagesPerDevice }))
  .filter((candidate) => specProblems(candidate).length === 0);

describe("every schedule", () => {
  test("runs each action once, in a legal order, without deadlock", () => {
    fc.assert(
      fc.property(anySpec, (of) => {
        const actions = schedule(of);
        expect(showProblems(actions, verifySchedule(actions, of))).toBe(showProblems(actions, []));
        expect(actions.flat().length).toBe(3 * of.stages * of.microBatches * of.chunks);
      }),
      { numRuns: 150 },
    );
  });

  test("that is legal for a chain is legal for any graph of stages", () => {
    const withEdges = anySpec.chain((of) =>
      fc
        .array(fc.tuple(fc.nat(of.stages - 1), fc.nat(of.stages - 1)))
        .map((pairs) => ({ ...of, edges: pairs.filter(([from, to]) => from < to) })),
    );
    fc.assert(
      fc.property(withEdges, (of) => {
        const { edges: _, ...chain } = of;
        expect(verifySchedule(schedule(chain), of)).toEqual([]);
        expect(verifySchedule(schedule(of), of)).toEqual([]);
      }),
      { numRuns: 80 },
    );
  });

  test("takes at least the work of the busiest device and at least the longest path", () => {
    fc.assert(
      fc.property(anySpec, fc.tuple(fc.nat(4), fc.nat(4), fc.nat(4)), (of, [F, B, W]) => {
        const items = of.microBatches * of.chunks;
        const { makespan, stuck } = run(of, F, B, W);
        expect(stuck).toEqual([]);
        expect(makespan).toBeGreaterThanOrEqual((of.stages / of.devices) * items * (F + B + W));
        const backward = of.weights === "fused" ? B + W : B;
        const path = (of.stages + of.chunks - 1) * (F + backward) + (of.weights === "fused" ? 0 : W);
        expect(makespan).toBeGreaterThanOrEqual(path);
      }),
      { numRuns: 80 },
    );
  });

  test("reads back from its own text", () => {
    fc.assert(
      fc.property(anySpec, (of) => {
        const actions = schedule(of);
        expect(parseSchedule(printSchedule(actions))).toEqual(actions);
      }),
      { numRuns: 60 },
    );
  });

  test("is the same whenever it is asked for again", () => {
    fc.assert(
      fc.property(anySpec, (of) => {
        expect(schedule(of)).toEqual(schedule(structuredClone(of)));
      }),
      { numRuns: 30 },
    );
  });
});

describe("stages that several devices share", () => {
  const anyShared: fc.Arbitrary<ScheduleSpec> = fc
    .record({
      kind: fc.constantFrom<ScheduleKind>("naive", "gpipe", "wavefront"),
      placement: fc.array(fc.uniqueArray(fc.nat(3), { minLength: 1 }), { minLength: 1, maxLength: 5 }),
      carries: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
      meets: fc.option(
        fc.array(
          fc.constantFrom(
            { F: false, B: false, W: false },
            { F: true, B: false, W: false },
            { F: false, B: true, W: false },
            { F: false, B: true, W: true },
            { F: true, B: true, W: true },
          ),
          { minLength: 5, maxLength: 5 },
        ),
        { nil: undefined },
      ),
      microBatches: fc.integer({ min: 1, max: 5 }),
      chunks: fc.integer({ min: 1, max: 4 }),
      weights: fc.constantFrom<Weights>("fused", "per-item", "per-micro-batch", "deferred"),
      durations: fc.array(fc.record({ F: fc.nat(3), B: fc.nat(3), W: fc.nat(3) }), {
        minLength: 5,
        maxLength: 5,
      }),
    })
    .map(({ placement, carries, meets, durations, ...rest }) => {
      const stages = placement.length;
      const costs = durations.slice(0, stages);
      const facts = { carries: carries.slice(0, stages), ...(meets && { meets: meets.slice(0, stages) }) };
      return { ...rest, stages, devices: 4, placement, ...facts, costs };
    })
    .map((of) => {
      const used = [...new Set(of.placement.flat())].sort();
      const placement = of.placement.map((held) => held.map((device) => used.indexOf(device)));
      return { ...of, devices: used.length, placement };
    })
    .filter((of) => specProblems(of).length === 0);

  test("are run by all of them, in an order without deadlock", () => {
    fc.assert(
      fc.property(anyShared, (of) => {
        const actions = schedule(of);
        expect(showProblems(actions, verifySchedule(actions, of))).toBe(showProblems(actions, []));
        const runs = (of.placement ?? []).reduce((sum, { length }) => sum + length, 0);
        expect(actions.flat().length).toBe(3 * runs * of.microBatches * of.chunks);
      }),
      { numRuns: 300 },
    );
  });

  const decoder: ScheduleSpec = spec("wavefront", 3, 1, {
    devices: 2,
    placement: [[0], [1], [0, 1]],
    chunks: 2,
    weights: "per-item",
    carries: [true, true, false],
  });

  const whole = { F: 2, B: 2, W: 2 };
  const half = { F: 1, B: 1, W: 1 };
  const timed = (placed: ScheduleSpec, decode: typeof whole) => {
    const costs = [whole, whole, decode];
    const durations = ({ stage, phase }: Action): number => costs[stage]?.[phase] ?? 0;
    return replay(schedule({ ...placed, costs }), placed, { durations, transfer: 0 });
  };

  test("keep both devices busy at the turn: B and W of a decoder begin while the last chunk goes forward", () => {
    const of = decoder;
    const alone = { ...of, placement: [[0], [1], [1]] };
    expect(renderTimeline(timed(of, half))).toBe(
      [
        "device 0 | 0F0.0 ----- 0F0.1 ----- 2F0.0 2B0.0 2W0.0 .     2F0.1 2B0.1 2W0.1 .     0B0.1 ----- 0B0.0 ----- 0W0.1 ----- 0W0.0 -----",
        "device 1 | .     .     1F0.0 ----- 2F0.0 2B0.0 1F0.1 ----- 2F0.1 2B0.1 1B0.1 ----- 1B0.0 ----- 2W0.0 2W0.1 1W0.1 ----- 1W0.0 -----",
      ].join("\n"),
    );
    expect(timed(of, half).makespan).toBe(20);
    expect(timed(alone, whole).makespan).toBe(26);
  });

  test("go their own ways where they do not meet: each begins with the decoder when it can", () => {
    const apart = { ...decoder, meets: [0, 1, 2].map(() => ({ F: false, B: false, W: false })) };
    expect(renderTimeline(timed(apart, half))).toBe(
      [
        "device 0 | 0F0.0 ----- 0F0.1 ----- 2F0.0 2B0.0 2W0.0 2F0.1 2B0.1 2W0.1 .     .     0B0.1 ----- 0B0.0 ----- 0W0.1 ----- 0W0.0 -----",
        "device 1 | .     .     1F0.0 ----- 2F0.0 1F0.1 ----- 2F0.1 2B0.1 2B0.0 1B0.1 ----- 1B0.0 ----- 2W0.1 2W0.0 1W0.1 ----- 1W0.0 -----",
      ].join("\n"),
    );
  });

  test("wait less when durations are not as estimated, if results of other devices are expected late", () => {
    const totals = { punctual: 0, late: 0 };
    for (const stages of [4, 6, 8, 9])
      for (const microBatches of [1, 2, 4])
        for (let seed = 0; seed < 20; seed++) {
          const of = spec("wavefront", stages, microBatches, { devices: 2, chunks: 2, weights: "per-item" });
          const durations = (action: Action, device: number): number =>
            1 +
            0.2 * uniform(seed, 1000 * device + 100 * action.stage + 10 * action.microBatch + action.chunk);
          const costs = { durations, transfer: 0.02 };
          totals.punctual += replay(schedule(of), of, costs).makespan;
          const expecting = { ...of, lateness: 0.2 };
          expect(verifySchedule(schedule(expecting), of)).toEqual([]);
          totals.late += replay(schedule(expecting), of, costs).makespan;
        }
    expect(totals.late).toBeLessThan(0.99 * totals.punctual);
  });

  test("do not wait for each other in W", () => {
    const text = printSchedule(schedule(decoder)).replaceAll(/ 2W0\.[01]/g, "");
    const late = `${text.replace("\n", " 2W0.1 2W0.0\n")} 2W0.0 2W0.1`;
    expect(verifySchedule(parseSchedule(late), decoder)).toEqual([]);
  });
});

describe("published closed forms, uniform costs", () => {
  const sizes = range(6).flatMap((p) => range(12).map((m) => ({ p: p + 1, m: m + 1 })));

  test("naive placement takes the sum of all work: one device at a time", () => {
    for (const { p, m } of sizes) {
      const replayed = run(spec("naive", p, m), 2, 3, 1);
      expect(replayed.makespan).toBe(p * m * 6);
      const intervals = replayed.devices.flat().toSorted((a, b) => a.start - b.start);
      for (const [i, { start }] of intervals.entries())
        expect(start).toBeGreaterThanOrEqual(intervals[i - 1]?.end ?? 0);
    }
  });

  test("GPipe and 1F1B idle for (p-1)/(m+p-1) of the step (Huang et al. 2019; Narayanan et al. 2021)", () => {
    for (const kind of ["gpipe", "1f1b"] as const)
      for (const { p, m } of sizes)
        for (const [F, B, W] of [
          [1, 1, 1],
          [1, 2, 0],
        ] as const) {
          const replayed = run(spec(kind, p, m), F, B, W);
          expect(replayed.makespan).toBe((m + p - 1) * (F + B + W));
          for (const bubble of replayed.bubbles) expect(bubble).toBeCloseTo((p - 1) / (m + p - 1), 12);
        }
  });

  test("interleaving over v stages per device makes the bubble (p-1)/(v m) of the ideal time", () => {
    for (const p of [1, 2, 3, 4])
      for (const rounds of [1, 2, 3])
        for (const v of [1, 2, 3]) {
          const m = rounds * p;
          const replayed = run(spec("interleaved-1f1b", p * v, m, { devices: p }), 1, 2, 0);
          const ideal = 3 * m * v;
          for (const time of idle(replayed)) expect(time / ideal).toBeCloseTo((p - 1) / (v * m), 12);
        }
  });

  test("interleaving a number of micro-batches that the devices do not divide costs no more than rounding up", () => {
    for (const p of [2, 3, 4])
      for (const v of [2, 3])
        for (const m of range(12).map((i) => i + 1)) {
          const ragged = run(spec("interleaved-1f1b", p * v, m, { devices: p }), 1, 2, 0);
          const padded = run(spec("interleaved-1f1b", p * v, Math.ceil(m / p) * p, { devices: p }), 1, 2, 0);
          expect(ragged.makespan).toBeLessThanOrEqual(padded.makespan);
        }
  });

  test("ZB-H1 idles for (p-1)(F+B-W), a third of 1F1B's (p-1)(F+B+W) (Qi et al. 2023, table 2)", () => {
    for (const { p, m } of sizes.filter((size) => size.m >= size.p)) {
      const zero = run(spec("zero-bubble-h1", p, m), 1, 1, 1);
      const one = run(spec("1f1b", p, m), 1, 1, 1);
      expect(zero.makespan - 3 * m).toBe(p - 1);
      expect(one.makespan - 3 * m).toBe(3 * (p - 1));
    }
    for (const [F, B, W] of [
      [4, 4, 3],
      [5, 5, 4],
    ] as const)
      expect(run(spec("zero-bubble-h1", 4, 12), F, B, W).makespan - 12 * (F + B + W)).toBe(3 * (F + B - W));
  });

  test("1F1B holds at most stages - stage micro-batches, GPipe all of them", () => {
    for (const { p, m } of sizes) {
      const one = schedule(spec("1f1b", p, m));
      const all = schedule(spec("gpipe", p, m));
      for (const stage of range(p)) {
        expect(peakItems(one, stage, "W")).toBe(Math.min(p - stage, m));
        expect(peakItems(all, stage, "W")).toBe(m);
      }
    }
  });

  test("ZB-H1 holds no more than the first stage of 1F1B", () => {
    for (const { p, m } of sizes) {
      const actions = schedule(spec("zero-bubble-h1", p, m));
      for (const stage of range(p)) {
        expect(peakItems(actions, stage, "B")).toBe(Math.min(p - stage, m));
        expect(peakItems(actions, stage, "W")).toBeLessThanOrEqual(Math.min(p, m));
      }
    }
  });
});

/**
 * No order of F = B = W = 1 can be faster. Until the first B can reach stage s (forward through all stages for C
 * chunks, then back) the stage has nothing but F to do, and it starts no earlier than s.
 */
function lowerBound(S: number, M: number, C: number): number {
  const perStage = range(S).map((s) => {
    const firstBackward = S - 1 + C + (S - 1 - s);
    return Math.max(firstBackward + 3 * M * C - Math.min(M * C, firstBackward - s), s + 3 * M * C);
  });
  return Math.max(...perStage);
}

/** With all W after all B: the last stage starts at S-1 and works on F and B, then stage 0 gets the last gradient. */
function deferredBound(S: number, M: number, C: number): number {
  return 3 * M * C + 2 * (S - 1);
}

describe("wavefront, uniform costs", () => {
  const wave = (S: number, M: number, C: number, weights: Weights): ScheduleSpec =>
    spec("wavefront", S, M, { chunks: C, weights });

  test("reaches the lower bound with weights per item and with deferred weights", () => {
    for (const S of [1, 2, 3, 4, 6])
      for (const M of [1, 2, 3, 4, 8])
        for (const C of [1, 2, 4, 6]) {
          expect(run(wave(S, M, C, "per-item"), 1, 1, 1).makespan).toBe(lowerBound(S, M, C));
          expect(run(wave(S, M, C, "deferred"), 1, 1, 1).makespan).toBe(deferredBound(S, M, C));
          expect(run(wave(S, M, C, "fused"), 1, 1, 1).makespan).toBe(3 * (M * C + S - 1));
        }
  });

  test("with weights per micro-batch is within one round trip of the lower bound", () => {
    for (const S of [1, 2, 3, 4, 6])
      for (const M of [1, 2, 3, 4, 8])
        for (const C of [1, 2, 4, 6]) {
          const { makespan } = run(wave(S, M, C, "per-micro-batch"), 1, 1, 1);
          expect(makespan).toBeGreaterThanOrEqual(lowerBound(S, M, C));
          expect(makespan).toBeLessThan(lowerBound(S, M, C) + S);
        }
  });

  test("speeds two stages up by 12/7 with one mini-batch in 4 chunks and by 1.92 with four of them", () => {
    const speedUp = (M: number, weights: Weights): number =>
      (2 * 3 * M * 4) / run(wave(2, M, 4, weights), 1, 1, 1).makespan;
    expect(speedUp(1, "deferred")).toBeCloseTo(24 / 14, 12);
    expect(speedUp(4, "deferred")).toBeCloseTo(96 / 50, 12);
    expect(speedUp(4, "per-item")).toBeCloseTo(96 / 49, 12);
  });

  test.each(["fused", "per-item", "per-micro-batch"] as const)(
    "with weights %s holds no more items than its header promises",
    (weights) => {
      const groups = { fused: Number.POSITIVE_INFINITY, "per-item": 1, "per-micro-batch": 2 }[weights];
      const sizes = [1, 2, 4].flatMap((S) => [1, 2, 5].flatMap((M) => [1, 2, 4].map((C) => ({ S, M, C }))));
      for (const { S, M, C } of sizes) {
        const actions = schedule(wave(S, M, C, weights));
        for (const stage of range(S)) {
          expect(peakItems(actions, stage, "B")).toBeLessThanOrEqual(C + 2 * (S - 1 - stage));
          expect(peakItems(actions, stage, "W")).toBeLessThanOrEqual(groups * C + 2 * (S - 1));
        }
      }
    },
  );

  test("uses the given costs: a slow second stage lets the first do its W while it waits", () => {
    const of = wave(2, 1, 4, "per-item");
    const slow = [
      { F: 1, B: 1, W: 1 },
      { F: 2, B: 2, W: 2 },
    ];
    const costs = {
      durations: ({ stage, phase }: Action): number => slow[stage]?.[phase] ?? 0,
      transfer: 0,
    };
    const blind = replay(schedule(of), of, costs).makespan;
    const aware = replay(schedule({ ...of, costs: slow }), of, costs).makespan;
    expect(aware).toBeLessThanOrEqual(blind);
    expect(aware).toBe(1 + 24);
  });

  test("follows any placement, also embedding and decoder on the same device", () => {
    const of = spec("wavefront", 3, 4, {
      devices: 2,
      placement: [[0], [1], [0]],
      chunks: 2,
      weights: "deferred",
    });
    const actions = schedule(of);
    expect(verifySchedule(actions, of)).toEqual([]);
    expect(new Set(actions[0]?.map(({ stage }) => stage))).toEqual(new Set([0, 2]));
  });
});

test("pieces join the W of a micro-batch or of a stage, and nothing else", () => {
  const of = spec("wavefront", 2, 2, { chunks: 3 });
  const sizes = (weights: Weights): number[] =>
    piecesOf(schedule({ ...of, weights })[1] ?? [], weights).flatMap((piece) =>
      piece[0]?.phase === "W" ? [piece.length] : [],
    );
  expect(sizes("per-item")).toEqual([1, 1, 1, 1, 1, 1]);
  expect(sizes("per-micro-batch")).toEqual([3, 3]);
  expect(sizes("deferred")).toEqual([6]);
  expect(allActions(of).length).toBe(36);
});

describe("refusals", () => {
  const refusal = (of: ScheduleSpec): string => {
    try {
      schedule(of);
    } catch (error) {
      return String(error);
    }
    return "accepted";
  };

  test("numbers that are not counts are all named", () => {
    expect(refusal(spec("gpipe", 2, 0, { chunks: 1.5 }))).toBe(
      "UserError: cannot build the schedule gpipe:\n" +
        "  - microBatches must be a whole number of at least 1, got 0\n" +
        "  - chunks must be a whole number of at least 1, got 1.5",
    );
  });

  test.each([
    [
      spec("1f1b", 4, 2, { devices: 2 }),
      "1f1b holds one stage per device, got 4 stages on 2 devices: use interleaved-1f1b, gpipe or wavefront",
    ],
    [
      spec("interleaved-1f1b", 5, 4, { devices: 2 }),
      "interleaved-1f1b holds equally many stages on each device, but 2 devices do not divide 5 stages",
    ],
    [
      spec("gpipe", 2, 4, { devices: 3 }),
      "3 devices need at least 3 stages, got 2: split the model further or use fewer devices",
    ],
    [
      spec("naive", 2, 1, { chunks: 4 }),
      "naive runs one item at a time, but 4 chunks of a sequence would overlap: use 1 chunk, or wavefront",
    ],
    [
      spec("naive", 2, 1, { weights: "deferred" }),
      "naive decides itself when W runs: weights must be fused, got deferred",
    ],
    [
      spec("zero-bubble-h1", 2, 4, { weights: "fused" }),
      "zero-bubble-h1 decides itself when W runs: weights must be per-item or per-micro-batch, got fused",
    ],
    [
      spec("gpipe", 2, 1, { placement: [[0], [2]] }),
      "stage 1 is placed on device 2, but the devices are 0 to 1",
    ],
    [spec("gpipe", 2, 1, { placement: [[0], [0]] }), "device 1 holds no stage"],
    [
      spec("gpipe", 2, 1, { placement: [[0]] }),
      "placement must name the devices of each of the 2 stages, got 1",
    ],
    [spec("1f1b", 2, 1, { placement: [[1], [0]] }), "1f1b needs stage s on device s, got 1, 0"],
    [spec("gpipe", 2, 1, { edges: [[1, 0]] }), "edge 1 → 0 must go from an earlier stage to a later one"],
    [spec("gpipe", 2, 1, { edges: [[0, 5]] }), "edge 0 → 5 names a stage that is not one of 0 to 1"],
    [
      spec("wavefront", 1, 1, { costs: [{ F: 1, B: -1, W: 1 }] }),
      "the cost of B on stage 0 must be a number of at least 0, got -1",
    ],
  ])("an illegal combination is refused with its numbers (%#)", (of, message) => {
    expect(refusal(of)).toBe(`UserError: cannot build the schedule ${of.kind}: ${message}`);
  });
});
