/** What a real run on threads says of its devices, two by two: the picture of the four machines. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parseChromeTrace } from "../../../src/trace/chrome-import.ts";
import { classifyPairs, type PairKind } from "../../../src/trace/pairs.ts";
import { folderWith, jsonLines, paraxis } from "./command.ts";

const example = fileURLToPath(new URL("../../../examples/four-machines/", import.meta.url));

interface Pair {
  readonly devices: readonly string[];
  readonly kind: string;
  readonly both: number;
  readonly kinds: { readonly [K in PairKind]?: number };
}

interface Phase {
  readonly pairs: readonly Pair[];
  readonly sentences: readonly string[];
}

/**
 * Which kinds occur follows from the programs, whatever the processors do. How long devices really overlap does not: where other work
 * keeps the processors busy, threads take turns. So a run may be done again until every pair has overlapped for long enough to be named.
 */
test("the four machines are, two by two, what the picture says", { timeout: 120_000, retry: 3 }, async () => {
  const cwd = folderWith({});
  const words = ["--layout", `${example}layout.json`, "--steps", "40", "--no-validation", "--json"];
  const { code, out, err } = await paraxis(["train", `${example}job.ts`, ...words], { cwd });
  expect(code, err).toBe(0);
  const phase = (jsonLines(out).at(-1) as unknown as { readonly phases: readonly [Phase] }).phases[0];
  const isMesh = ({ devices }: Pair) => /^(cpu:0,cpu:2|cpu:1,cpu:3)$/.test(devices.join());
  const meshes = phase.pairs.filter(isMesh);
  const across = phase.pairs.filter((pair) => !isMesh(pair));
  const occurring = (pairs: readonly Pair[]) => new Set(pairs.flatMap(({ kinds }) => Object.keys(kinds)));
  expect(["layer", "ahead"]).toEqual(expect.arrayContaining([...occurring(meshes)]));
  expect(["stream", "ahead", "branches"]).toEqual(expect.arrayContaining([...occurring(across)]));

  expect(meshes.map(({ kind }) => kind)).toEqual(["layer", "layer"]);
  expect(across.map(({ kind }) => kind)).toEqual(["stream", "stream", "stream", "stream"]);
  expect(phase.sentences.slice(-2)).toEqual([
    expect.stringMatching(/^cpu:0 and cpu:2, cpu:1 and cpu:3: same layer at the same time \(\d+/),
    expect.stringMatching(/^\{cpu:0, cpu:2\} and \{cpu:1, cpu:3\}: through the stream/),
  ]);

  const runFolder = join(cwd, "runs/latest");
  const [saved] = parseChromeTrace(readFileSync(join(runFolder, "trace.json"), "utf8"));
  const again = saved === undefined ? [] : classifyPairs(saved.trace);
  expect(again.map(({ kind }) => kind)).toEqual(phase.pairs.map(({ kind }) => kind));
  again.forEach(({ both }, i) => {
    expect(both).toBeCloseTo(phase.pairs[i]?.both ?? 0, 4);
  });
  expect(JSON.parse(readFileSync(join(runFolder, "run.json"), "utf8")).result.phases[0].pairs).toEqual(
    phase.pairs,
  );
});
