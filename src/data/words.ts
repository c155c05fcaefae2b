/**
 * Word-level language modelling from a text: sentences in buckets (MXNet's example) or one stream.
 * The vocabulary and the unigram baseline are made from the training part only.
 */
import * as z from "zod";
import { UserError } from "../base/errors.ts";
import {
  fillBuckets,
  type LongerSentences,
  orderedBatches,
  refuseLonger,
  shuffledBatches,
} from "./buckets.ts";
import type { Major, Span } from "./corpus.ts";
import type { DataSet } from "./dataset.ts";
import {
  custom,
  flag,
  type LastBatch,
  oneOf,
  parseOptions,
  positiveInteger,
  text as textOption,
  validationShare,
  wholeNumber,
} from "./options.ts";
import { type Sentence, splitSentences } from "./sentences.ts";
import { type SplitMode, splitSamples } from "./split.ts";
import { streamDataSet, textDataSet } from "./text-dataset.ts";
import { buildVocabulary, encodeTokens, endToken, type Vocabulary } from "./vocabulary.ts";

/** Options of word-level data; the defaults are those of MXNet's model-parallel LSTM example. */
export interface WordsOptions {
  /** Sentences or lanes in a batch; default 20. */
  readonly batch?: number;
  /** Most entries of the vocabulary, with `<unk>` and `<eos>`; default 10,000. */
  readonly vocabulary?: number;
  /** Sequence lengths of the buckets; default 8, 16, 24, 32, 60. */
  readonly buckets?: readonly number[];
  /** Steps of one window of a stream; instead of buckets. */
  readonly time?: number;
  /** Order of a stream's batches; default "text". */
  readonly order?: "text" | "shuffled";
  /** With buckets: sentences longer than the longest of them; default "error". */
  readonly longer?: LongerSentences;
  /** With buckets: sentences that fill no training batch; default "drop". Validation is padded, or kept short. */
  readonly lastBatch?: LastBatch;
  /** Default true. */
  readonly lowerCase?: boolean;
  /** Punctuation as own tokens (default), left out, or left on its word. */
  readonly punctuation?: "tokens" | "drop" | "keep";
  /** Sentences end at punctuation and blank lines (default) or at every line break. */
  readonly sentences?: "punctuation" | "line";
  /** Part of the sentences held out; default 0.05. */
  readonly validationShare?: number;
  /** Which sentences are held out: "seeded" choice (default with buckets) or the end (default for a stream). */
  readonly split?: SplitMode;
  /** The first dim of a batch in memory; default "time". */
  readonly major?: Major;
  /** What messages call the text; default "the text". */
  readonly source?: string;
}

const mxnetBuckets: readonly number[] = [8, 16, 24, 32, 60];

const bucketLengths = custom<readonly number[]>(
  (value) =>
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((length) => Number.isSafeInteger(length) && length > 0) &&
    new Set(value).size === value.length,
  "a list of different positive whole numbers",
);

const wordsSchema = z.strictObject({
  batch: positiveInteger.default(20),
  vocabulary: wholeNumber.default(10_000),
  buckets: bucketLengths.optional(),
  time: positiveInteger.optional(),
  order: oneOf("text", "shuffled").default("text"),
  longer: oneOf("error", "split", "drop").default("error"),
  lastBatch: oneOf("drop", "pad", "keep").default("drop"),
  lowerCase: flag.default(true),
  punctuation: oneOf("tokens", "drop", "keep").default("tokens"),
  sentences: oneOf("punctuation", "line").default("punctuation"),
  validationShare: validationShare.default(0.05),
  split: oneOf("seeded", "position").optional(),
  major: oneOf("time", "batch").default("time"),
  source: textOption.default("the text"),
});

type Checked = z.infer<typeof wordsSchema>;

/** The words of one part of the text, encoded: every sentence followed by `<eos>`. */
interface Part {
  readonly ids: Int32Array;
  readonly sentences: readonly Span[];
}

/** The data set of a text's words; UserError for wrong options, a text without words, or one that is too short. */
export function wordsFromText(text: string, options: WordsOptions = {}): DataSet {
  const checked = parseOptions(wordsSchema, options, "words");
  if (checked.time !== undefined && checked.buckets !== undefined) {
    throw new UserError("cannot use the options of words", [
      'the options "buckets" (sentences) and "time" (a stream) exclude each other',
    ]);
  }
  const sentences = splitSentences(text, checked);
  if (sentences.length === 0) throw new UserError(`${checked.source} has no words`);
  const split = splitSamples(
    sentences.length,
    checked.validationShare,
    checked.split ?? (checked.time === undefined ? "seeded" : "position"),
  );
  const training = pick(sentences, split.training);
  const validation = pick(sentences, split.validation);
  const vocabulary = buildVocabulary(words(training), { limit: checked.vocabulary });
  const parts = { training: encode(vocabulary, training), validation: encode(vocabulary, validation) };
  const facts = describe(checked, vocabulary, sentences, parts);
  if (checked.time === undefined) return bucketed(checked, vocabulary, sentences, parts, facts);
  return streamDataSet(
    {
      source: checked.source,
      vocabulary,
      trainingIds: parts.training.ids,
      validationIds: parts.validation.ids,
      description: facts,
    },
    { ...checked, time: checked.time },
  );
}

interface Parts {
  readonly training: Part;
  readonly validation: Part;
}

function bucketed(
  options: Checked,
  vocabulary: Vocabulary,
  sentences: readonly Sentence[],
  { training, validation }: Parts,
  facts: DataSet["description"],
): DataSet {
  const { batch, lastBatch, longer, source, major } = options;
  const lengths = options.buckets ?? mxnetBuckets;
  if (longer === "error") {
    refuseLonger(
      sentences.map(({ tokens, line }) => ({ length: tokens.length, line })),
      lengths,
      source,
    );
  }
  const rule = longer === "drop" ? "drop" : "split";
  const trainingBuckets = fillBuckets(training.sentences, lengths, rule);
  const validationBuckets = fillBuckets(validation.sentences, lengths, rule);
  const perBucket = trainingBuckets.map(({ time, spans }) => [
    `bucket ${time}`,
    `${spans.length} sequences, ${spans.reduce((sum, { length }) => sum + length, 0)} tokens`,
  ]);
  return textDataSet({
    source,
    vocabulary,
    major,
    trainingIds: training.ids,
    validationIds: validation.ids,
    trainingSpans: trainingBuckets.flatMap(({ spans }) => spans),
    trainingPlan: orderedBatches(trainingBuckets, batch, lastBatch),
    epochPlan: (seed, epoch) => shuffledBatches(trainingBuckets, batch, lastBatch, seed, epoch),
    validationPlan: orderedBatches(validationBuckets, batch, lastBatch === "keep" ? "keep" : "pad"),
    description: { ...facts, ...Object.fromEntries(perBucket) },
  });
}

function pick(sentences: readonly Sentence[], chosen: readonly number[]): Sentence[] {
  return chosen.map((i) => sentences[i] as Sentence);
}

function* words(sentences: readonly Sentence[]): Generator<string> {
  for (const { tokens } of sentences) yield* tokens;
}

function encode(vocabulary: Vocabulary, sentences: readonly Sentence[]): Part {
  const ids = encodeTokens(
    vocabulary,
    sentences.flatMap(({ tokens }) => [...tokens, endToken]),
  );
  let start = 0;
  const spans = sentences.map(({ tokens: { length } }) => {
    const span = { start, length };
    start += length + 1;
    return span;
  });
  return { ids, sentences: spans };
}

function describe(
  options: Checked,
  vocabulary: Vocabulary,
  sentences: readonly Sentence[],
  { training, validation }: Parts,
): DataSet["description"] {
  const count = training.ids.length - training.sentences.length;
  const held = validation.ids.length - validation.sentences.length;
  const unknown = training.ids.reduce((sum, id) => sum + (id === 0 ? 1 : 0), 0);
  return {
    text: options.source,
    sentences: sentences.length,
    "training words": count,
    "validation words": held,
    vocabulary: vocabulary.tokens.length,
    "unknown words": `${((100 * unknown) / count).toFixed(1)} %`,
  };
}
