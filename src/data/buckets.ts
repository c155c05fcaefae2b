/**
 * Sentences in buckets of fixed length, as in MXNet's LSTM example: each goes into the smallest bucket that holds
 * it, so that a handful of shapes serves every sentence with little padding.
 *
 *     bucket 8    call me ishmael <pad> ...
 *     bucket 16   some years ago - never mind how long precisely ...
 */
import { UserError } from "../base/errors.ts";
import { deriveKey, permutation } from "../base/random.ts";
import type { PlannedBatch, Span } from "./corpus.ts";
import type { LastBatch } from "./options.ts";

/** What happens to sentences longer than the longest bucket. */
export type LongerSentences = "error" | "split" | "drop";

/** The spans that one bucket of length `time` holds. */
export interface Bucket {
  readonly time: number;
  readonly spans: readonly Span[];
}

/**
 * Each sentence in the smallest bucket that holds it; a longer one is cut into pieces of the longest bucket's
 * length (the targets run on over the cut) or left out. Empty buckets stay; they are sorted by length.
 */
export function fillBuckets(
  sentences: readonly Span[],
  lengths: readonly number[],
  longer: "split" | "drop",
): Bucket[] {
  const times = lengths.toSorted((a, b) => a - b);
  const buckets = times.map((time) => ({ time, spans: [] as Span[] }));
  const longest = times.at(-1) ?? 0;
  for (const sentence of sentences) {
    if (longer === "drop" && sentence.length > longest) continue;
    for (let done = 0; done < sentence.length; done += longest) {
      const length = Math.min(longest, sentence.length - done);
      buckets.find(({ time }) => time >= length)?.spans.push({ start: sentence.start + done, length });
    }
  }
  return buckets;
}

/** UserError with the number of sentences that no bucket holds, the first of them, and what to do. */
export function refuseLonger(
  sentences: readonly { readonly length: number; readonly line: number }[],
  lengths: readonly number[],
  source: string,
): void {
  const longest = Math.max(...lengths);
  const tooLong = sentences.filter(({ length }) => length > longest);
  const [first] = tooLong;
  if (first === undefined) return;
  const maximum = tooLong.reduce((max, { length }) => Math.max(max, length), 0);
  throw new UserError(`cannot put the sentences of ${source} into buckets`, [
    `${tooLong.length} of ${sentences.length} sentences are longer than the longest bucket of ${longest} tokens; ` +
      `the first is on line ${first.line} with ${first.length} tokens, the longest has ${maximum}; add a bucket ` +
      'that holds them, or say longer: "split" to cut them into pieces or longer: "drop" to leave them out',
  ]);
}

/**
 * The batches of one epoch: sentences shuffled inside their bucket, batches of all buckets in random order. Which
 * sentences miss out under "drop" changes with the epoch; the number of batches does not.
 */
export function shuffledBatches(
  buckets: readonly Bucket[],
  batch: number,
  last: LastBatch,
  seed: number,
  epoch: number,
): PlannedBatch[] {
  const planned = buckets.flatMap(({ time, spans }) => {
    const order = permutation(deriveKey("bucket", seed, epoch, time), spans.length);
    return cutBatches({ time, spans: Array.from(order, (i) => spans[i] as Span) }, batch, last);
  });
  const order = permutation(deriveKey("batch order", seed, epoch), planned.length);
  return Array.from(order, (i) => planned[i] as PlannedBatch);
}

/** The batches in the order of buckets and sentences. */
export function orderedBatches(buckets: readonly Bucket[], batch: number, last: LastBatch): PlannedBatch[] {
  return buckets.flatMap((bucket) => cutBatches(bucket, batch, last));
}

function cutBatches({ time, spans }: Bucket, batch: number, last: LastBatch): PlannedBatch[] {
  const planned: PlannedBatch[] = [];
  for (let start = 0; start < spans.length; start += batch) {
    const taken = spans.slice(start, start + batch);
    if (taken.length < batch && last === "drop") break;
    planned.push({ batch: last === "keep" ? taken.length : batch, time, spans: taken });
  }
  return planned;
}
