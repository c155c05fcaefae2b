import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { characters, csv, words } from "../../src/node/data.ts";
import { readNovel } from "../../src/node/files/novel.ts";
import { collect, lanes } from "../data/collect.ts";

const folder = mkdtempSync(join(tmpdir(), "paraxis-data-"));

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

test("the bundled novel is Moby-Dick from the first sentence to the last", () => {
  const novel = readNovel();
  expect(novel).toContain("Call me Ishmael. Some years ago");
  expect(novel.trim()).toMatch(/rolled on as it rolled five thousand\s+years ago\.$/);
});

test("the novel's words fill MXNet's buckets, and nothing is lost on the way", async () => {
  const data = words("moby-dick");
  expect(data.vocabulary?.tokens).toHaveLength(10_000);
  expect(data.shapes).toEqual([8, 16, 24, 32, 60].map((time) => ({ batch: 20, time })));
  expect(data.description).toMatchObject({
    sentences: 8858,
    "training words": 236_562,
    "validation words": 11_986,
  });
  const training = await collect(data.training(1, 0));
  expect(training).toHaveLength(data.batchesPerEpoch);
  const used = training.reduce((sum, batch) => sum + (batch.validTargets ?? 0), 0);
  expect(used).toBeGreaterThan(0.99 * 236_562);
  const validation = await collect(data.validation());
  expect(validation.reduce((sum, batch) => sum + (batch.validTargets ?? 0), 0)).toBe(11_986);
  expect(data.unigramPerplexity).toBeGreaterThan(300);
  expect(data.unigramPerplexity).toBeLessThan(600);
});

test("the novel's unigram perplexity agrees with a count made from its batches", async () => {
  const data = words("moby-dick", { lastBatch: "pad" });
  const targets = async (part: "training" | "validation"): Promise<number[]> => {
    const batches = part === "training" ? data.training(9, 4) : data.validation();
    return (await collect(batches)).flatMap(lanes).flatMap((pairs) => pairs.map(([, target]) => target));
  };
  const training = await targets("training");
  const counts = new Map<number, number>();
  for (const target of training) counts.set(target, (counts.get(target) ?? 0) + 1);
  const validation = await targets("validation");
  const surprises = validation.map(
    (target) => -Math.log(((counts.get(target) ?? 0) + 1) / (training.length + 10_000)),
  );
  const mean = surprises.reduce((sum, surprise) => sum + surprise, 0) / surprises.length;
  expect(data.unigramPerplexity).toBeCloseTo(Math.exp(mean), 6);
});

test("the novel's characters are a stream", () => {
  const data = characters("moby-dick", { batch: 16, time: 64 });
  expect(data.shapes).toEqual([{ batch: 16, time: 64 }]);
  expect(data.vocabulary?.tokens.slice(0, 4)).toEqual(["<unk>", " ", "e", "t"]);
});

test("a user's file refuses sentences longer than the longest bucket, by its path", () => {
  const path = file("long.txt", `short.\n\n${"word ".repeat(70)}`);
  expect(() => words(path)).toThrow(
    `cannot put the sentences of ${path} into buckets: 1 of 2 sentences are longer than the longest bucket of 60 ` +
      "tokens; the first is on line 3 with 70 tokens",
  );
  expect(() => words(path, { longer: "split", batch: 1 })).not.toThrow();
});

test("a user's file that cannot be read is refused by its path", () => {
  expect(() => words(join(folder, "moby-dick"))).toThrow(`cannot read ${join(folder, "moby-dick")}`);
  expect(() => characters(file("nothing.txt", ""))).toThrow("the file is empty");
});

test("a CSV file becomes windows", async () => {
  const rows = Array.from({ length: 30 }, (_, hour) => `${hour};${2 * hour}`);
  const path = file("tide.csv", ["hour;level", ...rows].join("\n"));
  const data = csv(path, { delimiter: ";", window: 3, batch: 4, columns: ["level"], normalise: "none" });
  expect(data.description).toMatchObject({ data: path, rows: 30, columns: "level" });
  for (const batch of await collect(data.training(1, 0))) {
    const features = batch.inputs["features"]?.data ?? [];
    const targets = batch.inputs["targets"]?.data ?? [];
    for (let lane = 0; lane < 4; lane++) expect(targets[lane]).toBe(Number(features[8 + lane]) + 2);
  }
});

test("wrong CSV options and cells are refused", () => {
  const path = file("bad.csv", "hour,level\n0,1\n1,high\n2,3\n3,4\n");
  expect(() => csv(path, { window: 1 })).toThrow(
    `${path} has cells that are not numbers: line 3, column "level": "high"`,
  );
  expect(() => csv(path, { window: 1, windw: 2 } as { window: number })).toThrow('unknown option "windw"');
});
