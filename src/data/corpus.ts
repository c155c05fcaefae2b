/**
 * A text as one flat array of token ids, from which every batch is cut. The target of position p is position
 * p + 1, so a piece of text is just a span, wherever it was cut:
 *
 *     ids      call me ishmael <eos> some years ago <eos>
 *     span       └──────────┘ start 1, length 2
 *     tokens     me ishmael
 *     targets    ishmael <eos>
 */
import { invariant } from "../base/errors.ts";
import { type Batch, type InputSpec, ignoredTarget, shapeKey } from "./dataset.ts";

/** Consecutive input positions; the targets are one position later. An empty span is padding. */
export interface Span {
  readonly start: number;
  readonly length: number;
}

/** The spans that fill the lanes of one batch; missing lanes up to `batch` are padding. */
export interface PlannedBatch {
  readonly batch: number;
  readonly time: number;
  readonly spans: readonly Span[];
}

/** The dim that comes first in memory. */
export type Major = "time" | "batch";

/** The inputs "tokens" and "targets" of a text, i32 [time, batch] or [batch, time]. */
export function textInputs(major: Major): InputSpec[] {
  const dims = major === "time" ? (["time", "batch"] as const) : (["batch", "time"] as const);
  return [
    { name: "tokens", dtype: "i32", dims },
    { name: "targets", dtype: "i32", dims },
  ];
}

/** The planned batch cut from `ids`: padding has token 0 and target -1, which the loss ignores. */
export function textBatch(ids: Int32Array, plan: PlannedBatch, major: Major): Batch {
  const { batch, time, spans } = plan;
  const tokens = new Int32Array(batch * time);
  const targets = new Int32Array(batch * time).fill(ignoredTarget);
  const [timeStride, laneStride] = major === "time" ? [batch, 1] : [1, time];
  for (const [lane, span] of spans.entries()) {
    invariant(lane < batch && span.length <= time, "a span outside its batch");
    for (let t = 0; t < span.length; t++) {
      const at = t * timeStride + lane * laneStride;
      tokens[at] = ids[span.start + t] as number;
      targets[at] = ids[span.start + t + 1] as number;
    }
  }
  const shape = major === "time" ? [time, batch] : [batch, time];
  const valid = spans.reduce((sum, span) => sum + span.length, 0);
  return {
    inputs: {
      tokens: { dtype: "i32", shape, data: tokens },
      targets: { dtype: "i32", shape, data: targets },
    },
    shapeKey: shapeKey({ batch, time }),
    validTargets: valid,
    samples: spans.reduce((count, span) => count + (span.length > 0 ? 1 : 0), 0),
    tokens: valid,
  };
}

/** How often each of `size` tokens is a target of the spans. */
export function countTargets(ids: Int32Array, spans: Iterable<Span>, size: number): Float64Array {
  const counts = new Float64Array(size);
  for (const span of spans) {
    for (let p = span.start + 1; p <= span.start + span.length; p++) {
      const id = ids[p] as number;
      counts[id] = (counts[id] as number) + 1;
    }
  }
  return counts;
}

/** exp of the mean surprise at the counted targets under training frequencies with add-one smoothing. */
export function unigramPerplexity(training: Float64Array, validation: Float64Array): number {
  const total = training.reduce((sum, count) => sum + count, training.length);
  let surprise = 0;
  let targets = 0;
  for (const [id, count] of validation.entries()) {
    surprise -= count * Math.log(((training[id] as number) + 1) / total);
    targets += count;
  }
  return Math.exp(surprise / targets);
}
