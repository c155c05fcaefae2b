import { expect, test } from "vitest";
import { charactersFromText } from "../../src/data/characters.ts";
import { collect, numbers } from "./collect.ts";

test("the batches spell the text, in lanes, with the next character as target", async () => {
  const text = "the white whale 鯨👋 sinks!";
  const data = charactersFromText(text, { batch: 2, time: 4, validationShare: 0 });
  const tokens = data.vocabulary?.tokens ?? [];
  const laneTexts = ["", ""];
  const laneTargets = ["", ""];
  for (const batch of await collect(data.training(1, 0))) {
    for (const [at, id] of numbers(batch, "tokens").entries()) {
      laneTexts[at % 2] += tokens[id] ?? "";
      laneTargets[at % 2] += tokens[numbers(batch, "targets")[at] ?? -1] ?? "";
    }
  }
  const characters = [...text];
  const lane = Math.floor((characters.length - 1) / 2);
  for (const b of [0, 1]) {
    const length = Math.floor(lane / 4) * 4;
    expect(laneTexts[b]).toBe(characters.slice(b * lane, b * lane + length).join(""));
    expect(laneTargets[b]).toBe(characters.slice(b * lane + 1, b * lane + length + 1).join(""));
  }
});

test("the end of the text is held out; characters unknown to training become <unk>", async () => {
  const data = charactersFromText(`${"ab".repeat(45)}aba\r\nXYZ ab`, {
    batch: 3,
    time: 5,
    validationShare: 0.1,
  });
  expect(data.vocabulary?.tokens).toEqual(["<unk>", "a", "b"]);
  const validation = await collect(data.validation());
  expect(validation.reduce((sum, batch) => sum + (batch.validTargets ?? 0), 0)).toBe(9);
  const [first] = validation;
  expect(first?.inputs["tokens"]?.shape).toEqual([5, 3]);
});

test("wrong options and short texts are refused", () => {
  expect(() => charactersFromText("abc", { time: -1 })).toThrow(
    'option "time" must be a positive whole number, got -1',
  );
  expect(() => charactersFromText("abc", { source: "tiny.txt" })).toThrow("tiny.txt is too short");
  expect(() => charactersFromText("", { source: "tiny.txt" })).toThrow("tiny.txt has no characters");
  expect(() => charactersFromText("abc", { vocabulary: 1 })).toThrow(
    "a vocabulary of 1 entries is too small",
  );
});
