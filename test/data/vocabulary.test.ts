import fc from "fast-check";
import { expect, test } from "vitest";
import { buildVocabulary, decodeTokens, encodeTokens, parseVocabulary } from "../../src/data/vocabulary.ts";

test("ids follow the specials by falling frequency, ties in alphabetical order", () => {
  const tokens = "the whale the sea a whale the boat".split(" ");
  expect(buildVocabulary(tokens).tokens).toEqual(["<unk>", "<eos>", "the", "whale", "a", "boat", "sea"]);
  expect(buildVocabulary(tokens, { limit: 4 }).tokens).toEqual(["<unk>", "<eos>", "the", "whale"]);
});

test("the order of the tokens does not change the ids", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom("a", "b", "c", "d", "é", "z")), (tokens) => {
      expect(buildVocabulary(tokens.toReversed())).toEqual(buildVocabulary(tokens));
    }),
  );
});

test("specials that occur in the text keep their ids and are not listed twice", () => {
  const vocabulary = buildVocabulary(["<unk>", "<unk>", "n", "<eos>"]);
  expect(vocabulary.tokens).toEqual(["<unk>", "<eos>", "n"]);
  expect(Array.from(encodeTokens(vocabulary, ["<unk>", "n", "<eos>"]))).toEqual([0, 2, 1]);
});

test("known tokens survive encoding and decoding, others become <unk>", () => {
  const known = fc.constantFrom("whale", "ship", "sea");
  const vocabulary = buildVocabulary(["whale", "ship", "sea"]);
  fc.assert(
    fc.property(fc.array(fc.oneof(known, fc.constant("carrot"))), (tokens) => {
      const expected = tokens.map((token) => (token === "carrot" ? "<unk>" : token));
      expect(decodeTokens(vocabulary, encodeTokens(vocabulary, tokens))).toEqual(expected);
    }),
  );
});

test("names of object properties are ordinary tokens", () => {
  const vocabulary = buildVocabulary(["constructor", "__proto__"]);
  expect(Array.from(encodeTokens(vocabulary, ["constructor", "__proto__", "toString"]))).toEqual([3, 2, 0]);
});

test("a vocabulary survives JSON", () => {
  const vocabulary = buildVocabulary(["whale", "\u0000", '"']);
  expect(parseVocabulary(JSON.stringify(vocabulary))).toEqual(vocabulary);
});

test.each(["", "[]", '{"tokens": []}', '{"tokens": ["a", "a"]}', '{"tokens": [1]}'])(
  "text that is no vocabulary is refused: %s",
  (json) => {
    expect(() => parseVocabulary(json)).toThrow("cannot read the vocabulary: it must be JSON of the form");
  },
);

test.each([0, 1, 2])("a vocabulary of %i entries has no room beside the specials", (limit) => {
  expect(() => buildVocabulary(["a"], { limit })).toThrow(
    `a vocabulary of ${limit} entries is too small: it needs at least 3: the specials <unk>, <eos> and one token`,
  );
});

test("a vocabulary without <unk> refuses unknown tokens", () => {
  expect(() => encodeTokens({ tokens: ["a"] }, ["b"])).toThrow('the vocabulary has neither "b" nor <unk>');
});
