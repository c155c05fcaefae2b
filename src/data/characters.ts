/** Character-level language modelling: a text as one stream of Unicode characters. */
import * as z from "zod";
import { UserError } from "../base/errors.ts";
import type { Major } from "./corpus.ts";
import type { DataSet } from "./dataset.ts";
import {
  flag,
  oneOf,
  parseOptions,
  positiveInteger,
  text as textOption,
  validationShare,
  wholeNumber,
} from "./options.ts";
import { splitSamples } from "./split.ts";
import { streamDataSet } from "./text-dataset.ts";
import { buildVocabulary, encodeTokens, unknownToken } from "./vocabulary.ts";

export interface CharactersOptions {
  /** Lanes in a batch; default 32. */
  readonly batch?: number;
  /** Characters in a window; default 128. */
  readonly time?: number;
  /** Most entries of the vocabulary, with `<unk>`; default 1,000. */
  readonly vocabulary?: number;
  /** Default false. */
  readonly lowerCase?: boolean;
  /** Order of the batches; default "text". */
  readonly order?: "text" | "shuffled";
  /** Part of the text held out, its end; default 0.05. */
  readonly validationShare?: number;
  /** The first dim of a batch in memory; default "time". */
  readonly major?: Major;
  /** What messages call the text; default "the text". */
  readonly source?: string;
}

const charactersSchema = z.strictObject({
  batch: positiveInteger.default(32),
  time: positiveInteger.default(128),
  vocabulary: wholeNumber.default(1000),
  lowerCase: flag.default(false),
  order: oneOf("text", "shuffled").default("text"),
  validationShare: validationShare.default(0.05),
  major: oneOf("time", "batch").default("time"),
  source: textOption.default("the text"),
});

/**
 * The data set of a text's characters (code points; line breaks count as "\n"), validation at the end of the
 * text; UserError for wrong options or a text that does not fill one batch.
 */
export function charactersFromText(text: string, options: CharactersOptions = {}): DataSet {
  const checked = parseOptions(charactersSchema, options, "characters");
  const plain = text.replaceAll("\r\n", "\n");
  const characters = [...(checked.lowerCase ? plain.toLowerCase() : plain)];
  if (characters.length === 0) throw new UserError(`${checked.source} has no characters`);
  const cut = splitSamples(characters.length, checked.validationShare, "position").training.length;
  const training = characters.slice(0, cut);
  const validation = characters.slice(cut);
  const vocabulary = buildVocabulary(training, { limit: checked.vocabulary, specials: [unknownToken] });
  return streamDataSet(
    {
      source: checked.source,
      vocabulary,
      trainingIds: encodeTokens(vocabulary, training),
      validationIds: encodeTokens(vocabulary, validation),
      description: {
        text: checked.source,
        "training characters": training.length,
        "validation characters": validation.length,
        vocabulary: vocabulary.tokens.length,
      },
    },
    checked,
  );
}
