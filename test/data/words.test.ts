import fc from "fast-check";
import { expect, test } from "vitest";
import { inputShape, shapeKey } from "../../src/data/dataset.ts";
import { wordsFromText } from "../../src/data/words.ts";
import { collect, lanes, numbers } from "./collect.ts";

const alphabet = fc.constantFrom("ahab", "boat", "cape", "deck", "east");
const texts = fc.array(fc.array(alphabet, { minLength: 1, maxLength: 14 }), { minLength: 2, maxLength: 25 });

/** All (word, next word) pairs of the sentences, sorted. */
function pairsOf(sentences: readonly (readonly string[])[]): string[] {
  return sentences.flatMap((words) => words.map((word, i) => `${word} ${words[i + 1] ?? "<eos>"}`)).sort();
}

test("training and validation batches together hold each word with its successor exactly once", async () => {
  await fc.assert(
    fc.asyncProperty(texts, fc.integer({ min: 1, max: 5 }), fc.nat(), async (sentences, batch, seed) => {
      const text = sentences.map((words) => words.join(" ")).join("\n");
      const data = wordsFromText(text, {
        batch,
        buckets: [3, 6, 10],
        longer: "split",
        sentences: "line",
        lastBatch: "pad",
        validationShare: 0.3,
      });
      const batches = [...(await collect(data.training(seed, 2))), ...(await collect(data.validation()))];
      const tokens = data.vocabulary?.tokens ?? [];
      const known = (word: string): string => (tokens.includes(word) ? word : "<unk>");
      const found = batches
        .flatMap(lanes)
        .flat()
        .map(([token, target]) => `${tokens[token]} ${tokens[target]}`);
      expect(found.sort()).toEqual(pairsOf(sentences.map((words) => words.map(known))));
      for (const { validTargets, shapeKey: key } of batches) {
        expect(validTargets).toBeGreaterThan(0);
        expect(data.shapes.map(shapeKey)).toContain(key);
      }
    }),
  );
});

const twelve = Array.from({ length: 12 }, (_, i) => `${"sea ".repeat(i % 3)}ship .`).join("\n");

test("batches are time-major with shapes and counts as announced", async () => {
  const data = wordsFromText(twelve, { batch: 2, buckets: [4, 8], sentences: "line", validationShare: 0.25 });
  const batches = await collect(data.training(1, 0));
  expect(batches).toHaveLength(data.batchesPerEpoch);
  for (const batch of batches) {
    expect(batch.shapeKey).toBe("batch=2 time=4");
    for (const input of data.inputs) {
      expect(batch.inputs[input.name]?.shape).toEqual(inputShape(input, { batch: 2, time: 4 }));
      expect(batch.inputs[input.name]?.dtype).toBe("i32");
    }
    expect(batch.validTargets).toBe(numbers(batch, "targets").filter((target) => target >= 0).length);
    expect(batch.tokens).toBe(batch.validTargets);
    expect(batch.samples).toBe(2);
  }
});

test("a small text, by hand: padding has token 0 and target -1", async () => {
  const options = { batch: 2, buckets: [4], sentences: "line", validationShare: 0 } as const;
  const data = wordsFromText("a b a\nb", options);
  expect(data.vocabulary?.tokens).toEqual(["<unk>", "<eos>", "a", "b"]);
  const [batch] = await collect(data.training(0, 0));
  const [byLane] = await collect(wordsFromText("a b a\nb", { ...options, major: "batch" }).training(0, 0));
  if (batch === undefined || byLane === undefined) throw new Error("no batch");
  const sorted = lanes(batch).sort((a, b) => b.length - a.length);
  expect(sorted).toEqual([
    [
      [2, 3],
      [3, 2],
      [2, 1],
    ],
    [[3, 1]],
  ]);
  const rows = [numbers(byLane, "targets").slice(0, 4), numbers(byLane, "targets").slice(4)];
  expect(rows.sort((a, b) => (b[1] ?? 0) - (a[1] ?? 0))).toEqual([
    [3, 2, 1, -1],
    [1, -1, -1, -1],
  ]);
  expect(byLane.inputs["targets"]?.shape).toEqual([2, 4]);
  expect(numbers(byLane, "tokens").filter((_, i) => numbers(byLane, "targets")[i] === -1)).toEqual([
    0, 0, 0, 0,
  ]);
});

test("the unigram perplexity is that of smoothed training frequencies on the validation targets", () => {
  // Training: "a b a" and "a b"; validation: "b c" at the end. Targets b a <eos> b <eos>, and <unk> <eos>.
  const data = wordsFromText("a b a\na b\nb c", {
    batch: 1,
    buckets: [4],
    sentences: "line",
    validationShare: 0.3,
    split: "position",
  });
  const total = 5 + 4;
  expect(data.unigramPerplexity).toBeCloseTo(Math.exp(-(Math.log(1 / total) + Math.log(3 / total)) / 2), 10);
});

test("validation is the same in every iteration, loses nothing, and is apart from training", async () => {
  const sentences = Array.from({ length: 103 }, (_, i) => `word${i} end`);
  const data = wordsFromText(sentences.join("\n"), {
    batch: 4,
    buckets: [8],
    sentences: "line",
    validationShare: 0.1,
  });
  const first = await collect(data.validation());
  expect(await collect(data.validation())).toEqual(first);
  expect(first.reduce((sum, batch) => sum + batch.samples, 0)).toBe(10);
  expect(data.description["validation words"]).toBe(20);
  expect(data.description["training words"]).toBe(186);
});

test("a stream joins the sentences with <eos> and continues over batches", async () => {
  const data = wordsFromText("a b c. d e f. g", {
    batch: 1,
    time: 3,
    punctuation: "drop",
    validationShare: 0,
  });
  const batches = await collect(data.training(1, 0));
  const tokens = data.vocabulary?.tokens ?? [];
  const text = batches.flatMap((batch) => numbers(batch, "tokens")).map((id) => tokens[id]);
  expect(text.join(" ")).toBe("a b c <eos> d e f <eos> g");
  expect(data.shapes).toEqual([{ batch: 1, time: 3 }]);
  expect(await collect(data.validation())).toEqual([]);
  expect(data.unigramPerplexity).toBeUndefined();
});

test("ragged last batches appear among the shapes when they are kept", async () => {
  const data = wordsFromText(twelve, {
    batch: 5,
    buckets: [4],
    sentences: "line",
    validationShare: 0.25,
    lastBatch: "keep",
  });
  expect(data.shapes).toEqual([
    { batch: 5, time: 4 },
    { batch: 4, time: 4 },
    { batch: 3, time: 4 },
  ]);
  const keys = (await collect(data.training(3, 1))).map((batch) => batch.shapeKey);
  expect(keys.toSorted()).toEqual(["batch=4 time=4", "batch=5 time=4"]);
});

test("all wrong options are named at once", () => {
  const options = { batch: 0, bukets: [3], vocabulary: 1.5, longer: "cut", validationShare: 1 };
  expect(() => wordsFromText("a b", options as object)).toThrow(
    [
      "cannot use the options of words:",
      '  - option "batch" must be a positive whole number, got 0',
      '  - option "vocabulary" must be a whole number of at least 0, got 1.5',
      '  - option "longer" must be "error" or "split" or "drop", got "cut"',
      '  - option "validationShare" must be a number of at least 0 and below 1, got 1',
      '  - unknown option "bukets"',
    ].join("\n"),
  );
  expect(() => wordsFromText("a", { buckets: [], time: 3 })).toThrow(
    "a list of different positive whole numbers",
  );
  expect(() => wordsFromText("a", { buckets: [2], time: 3 })).toThrow("exclude each other");
});

test("texts that cannot be used say why", () => {
  expect(() => wordsFromText("  \n", { source: "empty.txt" })).toThrow("empty.txt has no words");
  expect(() => wordsFromText("a b c", { source: "short.txt" })).toThrow("short.txt is too short");
  expect(() => wordsFromText("a b c", { vocabulary: 0 })).toThrow("a vocabulary of 0 entries is too small");
  expect(() => wordsFromText("a b.\nc d e f", { buckets: [3], source: "x.txt" })).toThrow(
    "1 of 2 sentences are longer than the longest bucket of 3 tokens; the first is on line 2 with 4 tokens",
  );
});
