import fc from "fast-check";
import { expect, test } from "vitest";
import { fillBuckets, orderedBatches, refuseLonger, shuffledBatches } from "../../src/data/buckets.ts";
import type { Span } from "../../src/data/corpus.ts";

const lengths = fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 });

/** Sentences that follow each other in a text, each followed by one `<eos>`. */
const sentences = fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 60 }).map((sizes) => {
  let start = 0;
  return sizes.map((length): Span => {
    const span = { start, length };
    start += length + 1;
    return span;
  });
});

function positions(spans: readonly Span[]): number[] {
  return spans
    .flatMap(({ start, length }) => Array.from({ length }, (_, i) => start + i))
    .sort((a, b) => a - b);
}

test("splitting keeps every token exactly once, in the smallest bucket that holds its piece", () => {
  fc.assert(
    fc.property(sentences, lengths, (spans, times) => {
      const buckets = fillBuckets(spans, times, "split");
      expect(positions(buckets.flatMap((bucket) => bucket.spans))).toEqual(positions(spans));
      for (const bucket of buckets) {
        const shorter = Math.max(0, ...times.filter((time) => time < bucket.time));
        for (const { length } of bucket.spans) {
          expect(length).toBeLessThanOrEqual(bucket.time);
          expect(length).toBeGreaterThan(shorter);
        }
      }
    }),
  );
});

test("dropping keeps exactly the sentences that fit", () => {
  fc.assert(
    fc.property(sentences, lengths, (spans, times) => {
      const kept = fillBuckets(spans, times, "drop").flatMap((bucket) => bucket.spans);
      const fitting = spans.filter(({ length }) => length <= Math.max(...times));
      expect(positions(kept)).toEqual(positions(fitting));
    }),
  );
});

test("an epoch's batches hold each sentence at most once, full ones only, and all of them when padded or kept", () => {
  const mode = fc.constantFrom("drop", "pad", "keep");
  fc.assert(
    fc.property(
      sentences,
      lengths,
      fc.integer({ min: 1, max: 7 }),
      mode,
      fc.nat(),
      (spans, times, batch, last, seed) => {
        const buckets = fillBuckets(spans, times, "split");
        const planned = shuffledBatches(buckets, batch, last as "drop", seed, 3);
        const used = positions(planned.flatMap((plan) => plan.spans));
        expect(new Set(used).size).toBe(used.length);
        if (last !== "drop") expect(used).toEqual(positions(spans));
        for (const plan of planned) {
          expect(plan.spans.length).toBeLessThanOrEqual(plan.batch);
          if (last === "drop") expect(plan.spans).toHaveLength(batch);
          if (last === "keep") expect(plan.batch).toBe(plan.spans.length);
        }
        expect(planned).toHaveLength(orderedBatches(buckets, batch, last as "drop").length);
      },
    ),
  );
});

test("an epoch is a function of seed and epoch, and mixes the buckets", () => {
  const spans = Array.from({ length: 400 }, (_, i) => ({ start: 30 * i, length: 1 + (i % 20) }));
  const buckets = fillBuckets(spans, [5, 10, 20], "split");
  const epoch = (seed: number, number: number): number[] =>
    shuffledBatches(buckets, 10, "drop", seed, number).map((plan) => plan.time);
  expect(epoch(1, 0)).toEqual(epoch(1, 0));
  expect(epoch(1, 0)).not.toEqual(epoch(1, 1));
  expect(epoch(1, 0)).not.toEqual(epoch(2, 0));
  const times = epoch(1, 0);
  expect(times.toSorted((a, b) => a - b)).not.toEqual(times);
  const changes = times.filter((time, i) => i > 0 && time !== times[i - 1]).length;
  expect(changes).toBeGreaterThan(times.length / 3);
});

test("a bucket's sentences meet others in the next epoch", () => {
  const buckets = fillBuckets(
    Array.from({ length: 40 }, (_, i) => ({ start: 4 * i, length: 3 })),
    [8],
    "split",
  );
  const first = (epoch: number): number[] =>
    positions(shuffledBatches(buckets, 10, "drop", 5, epoch)[0]?.spans ?? []);
  expect(first(0)).not.toEqual(first(1));
});

test("sentences that no bucket holds are refused with their number, place, length and a remedy", () => {
  const found = [
    { length: 8, line: 1 },
    { length: 9, line: 4 },
    { length: 30, line: 7 },
  ];
  expect(() => refuseLonger(found, [8, 4], "letters.txt")).toThrow(
    "cannot put the sentences of letters.txt into buckets: 2 of 3 sentences are longer than the longest bucket of " +
      "8 tokens; the first is on line 4 with 9 tokens, the longest has 30; add a bucket that holds them, or say " +
      'longer: "split" to cut them into pieces or longer: "drop" to leave them out',
  );
  expect(() => refuseLonger(found, [30], "letters.txt")).not.toThrow();
});
