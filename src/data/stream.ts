/**
 * A text as one stream, cut into `batch` lanes of equal length and each lane into windows of `time` steps, the
 * batching of recurrent language models since Mikolov et al. (2010): batch k continues where batch k - 1 stopped.
 *
 *     lane 0   | a b c | d e f |          batch 0 holds a b c, g h i
 *     lane 1   | g h i | j k l |          batch 1 holds d e f, j k l
 */
import { deriveKey, permutation } from "../base/random.ts";
import type { PlannedBatch } from "./corpus.ts";

/** Full windows only: the same number of batches for each lane, at most batch·time targets are left out. */
export function streamBatches(idCount: number, batch: number, time: number): PlannedBatch[] {
  const lane = Math.floor(Math.max(0, idCount - 1) / batch);
  return Array.from({ length: Math.floor(lane / time) }, (_, k) => ({
    batch,
    time,
    spans: Array.from({ length: batch }, (_, b) => ({ start: b * lane + k * time, length: time })),
  }));
}

/** Every target exactly once; the ends of the lanes are padded. */
export function paddedStreamBatches(idCount: number, batch: number, time: number): PlannedBatch[] {
  const targets = Math.max(0, idCount - 1);
  const lane = Math.ceil(targets / batch);
  return Array.from({ length: Math.ceil(lane / time) }, (_, k) => ({
    batch,
    time,
    spans: Array.from({ length: batch }, (_, b) => {
      const start = b * lane + k * time;
      const end = Math.min(start + time, (b + 1) * lane, targets);
      return { start, length: Math.max(0, end - start) };
    }),
  }));
}

/** The same batches in an order that is a function of seed and epoch. */
export function shuffledStream(
  batches: readonly PlannedBatch[],
  seed: number,
  epoch: number,
): PlannedBatch[] {
  const order = permutation(deriveKey("stream order", seed, epoch), batches.length);
  return Array.from(order, (k) => batches[k] as PlannedBatch);
}
