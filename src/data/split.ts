/** The split of samples into a training and a validation part. */
import { deriveKey, permutation } from "../base/random.ts";

/** "seeded": a random choice that is the same in every run; "position": the end of the data. */
export type SplitMode = "seeded" | "position";

/** Sample numbers, rising in both parts. */
export interface Split {
  readonly training: readonly number[];
  readonly validation: readonly number[];
}

/**
 * `share` of `count` samples for validation, rounded, but at least one where the share is not 0 and two samples
 * exist. The choice depends on count, share and mode only, never on a run's seed: runs stay comparable.
 */
export function splitSamples(count: number, share: number, mode: SplitMode): Split {
  const wanted = share === 0 ? 0 : Math.max(1, Math.round(count * share));
  const held = Math.min(wanted, Math.max(0, count - 1));
  const order = mode === "seeded" ? permutation(deriveKey("validation split"), count) : undefined;
  const inValidation = new Uint8Array(count);
  for (let i = count - held; i < count; i++) inValidation[order?.[i] ?? i] = 1;
  const all = Array.from(inValidation.keys());
  return {
    training: all.filter((sample) => inValidation[sample] === 0),
    validation: all.filter((sample) => inValidation[sample] === 1),
  };
}
