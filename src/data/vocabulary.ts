/** Tokens and their ids: specials first, then by falling frequency, ties in code-unit order. */
import * as z from "zod";
import { invariant, UserError } from "../base/errors.ts";

/** Stands for every token that the vocabulary lacks. */
export const unknownToken = "<unk>";
/** Ends a sentence. */
export const endToken = "<eos>";

/** The token with id i is `tokens[i]`; all are different. Plain data: JSON.stringify and `parseVocabulary` round-trip. */
export interface Vocabulary {
  readonly tokens: readonly string[];
}

export interface VocabularyOptions {
  /** Most entries, the specials included; default no limit. */
  readonly limit?: number;
  /** Entries with the first ids; default `<unk>`, `<eos>`. */
  readonly specials?: readonly string[];
}

/** The most frequent tokens; UserError where the limit leaves no room for one token beside the specials. */
export function buildVocabulary(tokens: Iterable<string>, options: VocabularyOptions = {}): Vocabulary {
  const specials = options.specials ?? [unknownToken, endToken];
  const limit = options.limit ?? Number.POSITIVE_INFINITY;
  if (!(limit > specials.length)) {
    throw new UserError(`a vocabulary of ${limit} entries is too small`, [
      `it needs at least ${specials.length + 1}: the specials ${specials.join(", ")} and one token`,
    ]);
  }
  const counts = new Map<string, number>();
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
  for (const special of specials) counts.delete(special);
  const ranked = [...counts].sort(([a, countOfA], [b, countOfB]) => countOfB - countOfA || (a < b ? -1 : 1));
  const chosen = ranked.slice(0, limit - specials.length).map(([token]) => token);
  return { tokens: [...specials, ...chosen] };
}

/** The id of each token, `<unk>`'s where there is none; UserError where the vocabulary has no `<unk>` either. */
export function encodeTokens(vocabulary: Vocabulary, tokens: readonly string[]): Int32Array {
  const ids = new Map(vocabulary.tokens.map((token, id) => [token, id]));
  const unknown = ids.get(unknownToken);
  return Int32Array.from(tokens, (token) => {
    const id = ids.get(token) ?? unknown;
    if (id === undefined)
      throw new UserError(`the vocabulary has neither ${JSON.stringify(token)} nor <unk>`);
    return id;
  });
}

/** The token of each id; an id outside the vocabulary is our mistake. */
export function decodeTokens(vocabulary: Vocabulary, ids: Iterable<number>): string[] {
  return Array.from(ids, (id) => {
    const token = vocabulary.tokens[id];
    invariant(token !== undefined, `token id ${id} in a vocabulary of ${vocabulary.tokens.length}`);
    return token;
  });
}

/** The vocabulary written by JSON.stringify; UserError where the text is not one. */
export function parseVocabulary(json: string): Vocabulary {
  const result = vocabularySchema.safeParse(parseJson(json));
  if (result.success) return { tokens: result.data.tokens };
  throw new UserError("cannot read the vocabulary", [
    'it must be JSON of the form {"tokens": ["<unk>", ...]} with different tokens',
  ]);
}

const vocabularySchema = z.object({
  tokens: z
    .array(z.string())
    .min(1)
    .refine((tokens) => new Set(tokens).size === tokens.length),
});

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
