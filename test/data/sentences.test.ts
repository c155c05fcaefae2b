import fc from "fast-check";
import { expect, test } from "vitest";
import { type SentenceOptions, splitSentences } from "../../src/data/sentences.ts";

const standard: SentenceOptions = { lowerCase: true, punctuation: "tokens", sentences: "punctuation" };

function shown(text: string, options: Partial<SentenceOptions> = {}): string[] {
  return splitSentences(text, { ...standard, ...options }).map(
    ({ tokens, line }) => `${line}: ${tokens.join(" ")}`,
  );
}

test("sentences end at . ! ? with their closing quotes, over line breaks", () => {
  expect(shown('Call me\nIshmael. Why?\n"Go on!" He went.')).toEqual([
    "1: call me ishmael .",
    "2: why ?",
    '3: " go on ! "',
    "3: he went .",
  ]);
});

test("a blank line ends a sentence, a wrapped line does not", () => {
  expect(shown("LOOMINGS\n\nSome years\nago\r\n\r\nend")).toEqual([
    "1: loomings",
    "3: some years ago",
    "6: end",
  ]);
});

test("titles, initials and points before lower case do not end a sentence, the word I does", () => {
  expect(shown("Mr. Peleg and J. Coffin. Oh! that revelry. So said I. Then")).toEqual([
    "1: mr . peleg and j . coffin .",
    "1: oh ! that revelry .",
    "1: so said i .",
    "1: then",
  ]);
});

test("a sentence per line, as in the Penn Treebank files", () => {
  expect(shown("a . b\n\n<unk> N\n", { sentences: "line" })).toEqual(["1: a . b", "3: <unk> n"]);
});

test("words keep inner apostrophes and hyphens, numbers their points, marks stand alone or in runs", () => {
  expect(shown("Don’t stop--the sperm-whale's 1,000.5 boats… (“'tis”)")).toEqual([
    `1: don't stop -- the sperm-whale's 1,000.5 boats … ( " ' tis " )`,
  ]);
});

test("punctuation can be dropped or left on its word, and case kept", () => {
  expect(shown("Aye, aye!", { punctuation: "drop" })).toEqual(["1: aye aye"]);
  expect(shown("Aye, aye!", { punctuation: "keep" })).toEqual(["1: aye, aye!"]);
  expect(shown("Aye, aye!", { lowerCase: false })).toEqual(["1: Aye , aye !"]);
});

test("texts without words have no sentences", () => {
  expect(shown("")).toEqual([]);
  expect(shown(" \n\t\r\n ")).toEqual([]);
  expect(shown("...", { punctuation: "drop" })).toEqual([]);
});

test("no character but white space is lost, and lines never fall", () => {
  const piece = fc.constantFrom(
    "Ab",
    "c",
    ".",
    "!",
    "\n",
    "\n\n",
    " ",
    "é",
    "鯨",
    "7",
    "-",
    "'",
    "<unk>",
    "👩‍🔬",
  );
  fc.assert(
    fc.property(fc.array(piece), fc.constantFrom("punctuation", "line"), (pieces, sentences) => {
      const text = pieces.join("");
      const found = splitSentences(text, {
        lowerCase: false,
        punctuation: "tokens",
        sentences,
      } as SentenceOptions);
      expect(found.flatMap(({ tokens }) => tokens).join("")).toBe(text.replaceAll(/\s/gu, ""));
      const lines = found.map(({ line }) => line);
      expect(lines).toEqual(lines.toSorted((a, b) => a - b));
      for (const { tokens } of found) expect(tokens.length).toBeGreaterThan(0);
    }),
  );
});

test("a very long run without white space is split like any other text", () => {
  expect(splitSentences("a,".repeat(300_000), standard)[0]?.tokens).toHaveLength(600_000);
});
