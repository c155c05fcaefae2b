/** A data set from two encoded texts and the plans that cut batches from them; words and characters share it. */
import { UserError } from "../base/errors.ts";
import {
  countTargets,
  type Major,
  type PlannedBatch,
  type Span,
  textBatch,
  textInputs,
  unigramPerplexity,
} from "./corpus.ts";
import { type Batch, type DataSet, distinctShapes } from "./dataset.ts";
import { paddedStreamBatches, shuffledStream, streamBatches } from "./stream.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Two texts as token ids, the batches to cut from them, and what to say about them. */
export interface TextPlans {
  readonly source: string;
  readonly vocabulary: Vocabulary;
  readonly major: Major;
  readonly trainingIds: Int32Array;
  readonly validationIds: Int32Array;
  /** All spans that training may draw on; their targets are the unigram model's counts. */
  readonly trainingSpans: readonly Span[];
  /** The training batches in the order of the text; `epochPlan` returns batches of the same shapes. */
  readonly trainingPlan: readonly PlannedBatch[];
  readonly epochPlan: (seed: number, epoch: number) => readonly PlannedBatch[];
  readonly validationPlan: readonly PlannedBatch[];
  readonly description: { readonly [label: string]: string | number };
}

/** The data set of the plans; UserError where the training text does not fill one batch. */
export function textDataSet(plans: TextPlans): DataSet {
  const { trainingIds, validationIds, trainingPlan, validationPlan, major, vocabulary } = plans;
  if (trainingPlan.length === 0) {
    throw new UserError(`${plans.source} is too short`, [
      `its ${trainingIds.length} training tokens do not fill one batch; choose a smaller batch or shorter ` +
        'sequences, or say lastBatch: "pad"',
    ]);
  }
  const size = vocabulary.tokens.length;
  const validationSpans = validationPlan.flatMap((plan) => plan.spans);
  const baseline =
    validationSpans.length === 0
      ? {}
      : {
          unigramPerplexity: unigramPerplexity(
            countTargets(trainingIds, plans.trainingSpans, size),
            countTargets(validationIds, validationSpans, size),
          ),
        };
  return {
    inputs: textInputs(major),
    shapes: distinctShapes([...trainingPlan, ...validationPlan].map(({ batch, time }) => ({ batch, time }))),
    training: (seed, epoch) => cut(trainingIds, plans.epochPlan(seed, epoch), major),
    validation: () => cut(validationIds, validationPlan, major),
    batchesPerEpoch: trainingPlan.length,
    description: plans.description,
    ...baseline,
    vocabulary,
  };
}

/** How a stream is cut: `batch` lanes, windows of `time` steps, in text order or shuffled. */
export interface StreamOptions {
  readonly batch: number;
  readonly time: number;
  readonly order: "text" | "shuffled";
  readonly major: Major;
}

/** The data set of two contiguous streams of ids; the validation stream is padded so that nothing is left out. */
export function streamDataSet(
  texts: Pick<TextPlans, "source" | "vocabulary" | "trainingIds" | "validationIds" | "description">,
  options: StreamOptions,
): DataSet {
  const { batch, time, order, major } = options;
  const trainingPlan = streamBatches(texts.trainingIds.length, batch, time);
  return textDataSet({
    ...texts,
    major,
    trainingSpans: [{ start: 0, length: Math.max(0, texts.trainingIds.length - 1) }],
    trainingPlan,
    epochPlan: (seed, epoch) =>
      order === "shuffled" ? shuffledStream(trainingPlan, seed, epoch) : trainingPlan,
    validationPlan: paddedStreamBatches(texts.validationIds.length, batch, time),
  });
}

async function* cut(ids: Int32Array, plan: readonly PlannedBatch[], major: Major): AsyncGenerator<Batch> {
  for (const planned of plan) yield textBatch(ids, planned, major);
}
