import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { describeStatistics, formatTime } from "../../src/trace/describe.ts";
import { difference, intersection, overlapHistogram, total, union } from "../../src/trace/intervals.ts";
import { traceStatistics } from "../../src/trace/statistics.ts";
import { traceProblems } from "../../src/trace/trace.ts";
import { anyTrace, pipelined, receive, run, send, serial, trace } from "./hand-made.ts";

describe("hand-made traces", () => {
  test("a serial one has a concurrency of exactly one", () => {
    const { whole, stepTime } = traceStatistics(serial);
    expect(stepTime).toBe(10);
    expect(whole.devices.map(({ busy }) => busy)).toEqual([0.4, 0.4]);
    expect(whole.devices.map(({ wait }) => wait)).toEqual([0.5, 0.3]);
    expect(whole.devices.map(({ communication, exposed }) => [communication, exposed])).toEqual([
      [0.2, 0.2],
      [0.2, 0.2],
    ]);
    expect(whole.devices.map(({ sentBytes }) => sentBytes)).toEqual([100, 100]);
    expect(whole.bubble).toBeCloseTo(0.6, 12);
    expect(whole.concurrency).toBe(1);
    expect(whole.histogram).toEqual([0.2, 0.8, 0]);
  });

  test("a pipelined one has the concurrency of its overlap", () => {
    const { whole } = traceStatistics(pipelined);
    expect(whole.devices.map(({ busy }) => busy)).toEqual([0.8, 0.8]);
    expect(whole.histogram[2]).toBeCloseTo(0.6, 12);
    expect(whole.concurrency).toBeCloseTo(1.6, 12);
    expect(whole.devices[0]?.phases).toEqual({ F: 0.4, B: 0, W: 0.4, U: 0, other: 0 });
    expect(whole.devices.map(({ peakBytes }) => peakBytes)).toEqual([30, 7]);
  });

  test("communication under computation is not exposed", () => {
    const { whole } = traceStatistics(trace(2, [run(0, 0, 4), send(0, 1, 2, 6), run(1, 0, 8)]));
    expect(whole.devices[0]).toMatchObject({ communication: 0.5, exposed: 0.25, busy: 0.5 });
  });

  test("steps are measured one by one, and the gaps between them count nowhere", () => {
    const events = [0, 100].flatMap((offset, step) => [
      run(0, offset, offset + 2, "F", { step }),
      run(1, offset + 1, offset + 4 + 4 * step, "B", { step }),
    ]);
    const { steps, whole, stepTime } = traceStatistics(trace(2, events));
    expect(steps.map(({ step, duration }) => [step, duration])).toEqual([
      [0, 4],
      [1, 8],
    ]);
    expect(stepTime).toBe(6);
    expect(whole.duration).toBe(12);
    expect(whole.devices.map(({ busy }) => busy)).toEqual([4 / 12, 10 / 12]);
    expect(steps[1]?.histogram).toEqual([0, 7 / 8, 1 / 8]);
  });

  test("memory held from before a step counts as its peak", () => {
    const memory = [
      { device: 0, time: 0, bytes: 50 },
      { device: 0, time: 12, bytes: 20 },
      { device: 0, time: 30, bytes: 99 },
    ];
    const events = [run(0, 0, 1), run(0, 10, 11, "F", { step: 1 }), run(0, 20, 21, "F", { step: 2 })];
    const { steps } = traceStatistics(trace(1, events, { memory }));
    expect(steps.map(({ devices }) => devices[0]?.peakBytes)).toEqual([50, 50, 20]);
  });

  test("an empty trace has no time and divides by nothing", () => {
    const { whole, steps, stepTime } = traceStatistics(trace(2, []));
    expect([whole.duration, stepTime, steps.length, whole.concurrency]).toEqual([0, 0, 0, 0]);
    expect(whole.devices.every(({ busy, idle }) => busy === 0 && idle === 1)).toBe(true);
  });
});

test("in any trace shares lie between 0 and 1 and add up", () => {
  fc.assert(
    fc.property(anyTrace, (any) => {
      const { whole, steps } = traceStatistics(any);
      for (const part of [whole, ...steps].filter(({ duration }) => duration > 0)) {
        for (const { busy, idle, wait, communication, exposed } of part.devices) {
          expect(busy + idle).toBeCloseTo(1, 9);
          expect(exposed).toBeLessThanOrEqual(communication + 1e-9);
          expect(Math.max(exposed, wait)).toBeLessThanOrEqual(idle + 1e-9);
          for (const share of [busy, idle, wait, communication, exposed]) {
            expect(share).toBeGreaterThanOrEqual(0);
            expect(share).toBeLessThanOrEqual(1);
          }
        }
        expect(part.histogram.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 9);
        const busy = part.devices.reduce((sum, device) => sum + device.busy, 0);
        expect(part.histogram.reduce((sum, share, k) => sum + k * share, 0)).toBeCloseTo(busy, 9);
        expect(part.concurrency === 0 || part.concurrency >= 1 - 1e-9).toBe(true);
        expect(part.concurrency).toBeLessThanOrEqual(any.devices.length + 1e-9);
      }
    }),
  );
});

test("interval sets agree with counting instants one by one", () => {
  const anySet = fc
    .array(fc.tuple(fc.nat(30), fc.nat(10)))
    .map((pairs) => pairs.map(([start, length]) => ({ start, end: start + length })));
  const instants = (set: readonly { start: number; end: number }[]): Set<number> =>
    new Set(set.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i)));
  fc.assert(
    fc.property(anySet, anySet, (a, b) => {
      const [inA, inB] = [instants(a), instants(b)];
      const both = [...inA].filter((time) => inB.has(time)).length;
      expect(total(union(a))).toBe(inA.size);
      expect(total(intersection(union(a), union(b)))).toBe(both);
      expect(total(difference(union(a), union(b)))).toBe(inA.size - both);
      const window = union([{ start: 0, end: 50 }]);
      expect(overlapHistogram([union(a), union(b)], window)).toEqual([
        50 - inA.size - inB.size + both,
        inA.size + inB.size - 2 * both,
        both,
      ]);
    }),
  );
});

describe("plain words", () => {
  test("name devices that take turns what they are", () => {
    expect(describeStatistics(traceStatistics(serial))).toEqual([
      "A step took 10.0 s.",
      "cpu:0 computed 40 % of the step, cpu:1 40 %; on average 1.00 devices computed at once.",
      "These devices never compute at the same time: this is workload partitioning, not parallelism.",
      "Transfers that no computation hides take up to 20 % of the step (cpu:0).",
    ]);
  });

  test("say how many computed at once, and stop there when that is fine", () => {
    expect(describeStatistics(traceStatistics(pipelined))).toEqual([
      "A step took 10.0 s.",
      "cpu:0 computed 80 % of the step, cpu:1 80 %; on average 1.60 devices computed at once.",
    ]);
    expect(describeStatistics(traceStatistics({ ...pipelined, origin: "predicted" }))[0]).toBe(
      "A step is predicted to take 10.0 s.",
    );
  });

  test("a common update alone is not called parallel", () => {
    const events = [run(0, 0, 50), run(1, 50, 90), run(0, 90, 100, "U"), run(1, 90, 100, "U")];
    const statistics = traceStatistics(trace(2, events));
    expect(statistics.whole.overlap).toBe(0);
    expect(describeStatistics(statistics)[2]).toBe(
      "But for the update, these devices never compute at the same time: this is workload partitioning, not parallelism.",
    );
  });

  test("a little overlap is hardly called parallel", () => {
    const events = [run(0, 0, 50), run(1, 48, 98), run(0, 98, 100, "U"), run(1, 98, 100, "U")];
    const statistics = traceStatistics(trace(2, events));
    expect(statistics.whole.overlap).toBeCloseTo(2 / 98, 12);
    expect(describeStatistics(statistics)[2]).toBe(
      "Only 2 % of the computing time has two devices at work: this is workload partitioning, hardly parallelism.",
    );
    expect(describeStatistics(statistics, 1)[2]).toBe(
      "2 devices take turns on 1 processor: where each has its own, more of them compute at the same time.",
    );
  });

  test("many devices are summed up, one device needs no comparison", () => {
    const many = trace(
      6,
      Array.from({ length: 6 }, (_, device) => run(device, 0, 5 + device)),
    );
    expect(describeStatistics(traceStatistics(many))[1]).toBe(
      "6 devices computed 75 % of the step on average, least cpu:0 with 50 % and most cpu:5 with 100 %; " +
        "on average 4.50 devices computed at once.",
    );
    expect(describeStatistics(traceStatistics(trace(1, [run(0, 0, 0.002), send(0, 0, 0, 0.004)])))).toEqual([
      "A step took 4.00 ms.",
      "cpu:0 computed 50 % of the step.",
      "Transfers that no computation hides take up to 50 % of the step (cpu:0).",
    ]);
    expect(describeStatistics(traceStatistics(trace(2, [])))).toEqual(["The trace is empty."]);
  });

  test("times have three digits and a unit", () => {
    expect([0.0000021, 0.0123, 0.123, 1.5, 75, 1234].map(formatTime)).toEqual([
      "2.10 us",
      "12.3 ms",
      "123 ms",
      "1.50 s",
      "75.0 s",
      "1234 s",
    ]);
  });
});

describe("impossible traces", () => {
  test("are described fault by fault", () => {
    expect(traceProblems(trace(1, [run(3, 0, 1), run(0, 2, 1)]))).toEqual([
      "event 0: device 3 is not one of the 1 devices",
      "event 1: it lasts from 2 s to 1 s",
    ]);
    const faulty = trace(2, [
      run(0, 0, 2, "F", { item: { microBatch: 0, chunk: 0 } }),
      run(0, 1, 3, "B", { item: { microBatch: 0, chunk: 0 } }),
      send(0, 1, 0, 1),
      send(0, 1, 5, 6, { tag: 4 }),
      receive(1, 0, 1, 2, { tag: 4 }),
      receive(1, 0, 3, 4, { tag: 9 }),
    ]);
    expect(traceProblems(faulty)).toEqual([
      "cpu:0 runs B0.0 at 1 s, while F0.0 lasts until 2 s",
      "cpu:0, step 0: send to cpu:1 (tag 0) has no receive",
      "cpu:1, step 0: receive from cpu:0 (tag 9) has no send",
      "cpu:1, step 0: receive from cpu:0 (tag 4) ended at 2 s, sent only at 5 s",
    ]);
  });

  test("sound ones have no faults", () => {
    expect(traceProblems(serial)).toEqual([]);
    expect(traceProblems(pipelined)).toEqual([]);
  });
});
