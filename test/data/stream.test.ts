import fc from "fast-check";
import { expect, test } from "vitest";
import { paddedStreamBatches, shuffledStream, streamBatches } from "../../src/data/stream.ts";

const size = fc.nat({ max: 300 });
const small = fc.integer({ min: 1, max: 9 });

test("three lanes of a stream of 20, in windows of 2", () => {
  const starts = streamBatches(20, 3, 2).map((plan) => plan.spans.map((span) => span.start));
  expect(starts).toEqual([
    [0, 6, 12],
    [2, 8, 14],
    [4, 10, 16],
  ]);
});

test("each lane of a batch continues where the batch before stopped, and targets stay inside the text", () => {
  fc.assert(
    fc.property(size, small, small, (ids, batch, time) => {
      const planned = streamBatches(ids, batch, time);
      for (const [k, plan] of planned.entries()) {
        expect(plan.spans).toHaveLength(batch);
        for (const [lane, span] of plan.spans.entries()) {
          expect(span.length).toBe(time);
          expect(span.start + span.length).toBeLessThan(ids);
          const before = planned[k - 1]?.spans[lane];
          if (before !== undefined) expect(span.start).toBe(before.start + time);
        }
      }
      const unused = ids - 1 - planned.length * batch * time;
      if (ids > 0) expect(unused).toBeLessThan(batch * time + batch);
    }),
  );
});

test("the padded stream has every target exactly once", () => {
  fc.assert(
    fc.property(size, small, small, (ids, batch, time) => {
      const spans = paddedStreamBatches(ids, batch, time).flatMap((plan) => plan.spans);
      const used = spans.flatMap(({ start, length }) => Array.from({ length }, (_, i) => start + i));
      expect(used.sort((a, b) => a - b)).toEqual(Array.from({ length: Math.max(0, ids - 1) }, (_, i) => i));
    }),
  );
});

test("shuffling reorders the batches as a function of seed and epoch", () => {
  const batches = streamBatches(500, 2, 5);
  const starts = (seed: number, epoch: number): number[] =>
    shuffledStream(batches, seed, epoch).map((plan) => plan.spans[0]?.start ?? -1);
  const ordered = batches.map((plan) => plan.spans[0]?.start ?? -1);
  expect(starts(1, 1)).toEqual(starts(1, 1));
  expect(starts(1, 1)).not.toEqual(starts(1, 2));
  expect(starts(1, 1).toSorted((a, b) => a - b)).toEqual(ordered);
});
