/** The lines about pairs of devices that pages show are in the words in which runs say them. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { describePairs } from "../../src/trace/describe-pairs.ts";
import { classifyPairs, type DevicePair, type PairKind } from "../../src/trace/pairs.ts";
import type { TraceEvent } from "../../src/trace/trace.ts";
import { run, trace } from "../trace/hand-made.ts";
import { root } from "./pages.ts";

const guide = readFileSync(`${root}docs/guide/devices-and-stages.md`, "utf8");
const example = readFileSync(`${root}examples/four-machines/README.md`, "utf8");

function pair(devices: readonly [number, number], kinds: DevicePair["kinds"]): DevicePair {
  const [kind = "never", ...also] = Object.keys(kinds) as PairKind[];
  return { devices, kind, also, both: Object.values(kinds).reduce((sum, share) => sum + share, 0), kinds };
}

test("the four machines are told as a run tells them", () => {
  const lines = describePairs(
    [0, 1, 2, 3].map((device) => `cpu:${device}`),
    [
      pair([0, 1], { stream: 0.3 }),
      pair([0, 2], { layer: 0.39, ahead: 0.18 }),
      pair([0, 3], { stream: 0.33 }),
      pair([1, 2], { stream: 0.34 }),
      pair([1, 3], { layer: 0.49, ahead: 0.04 }),
      pair([2, 3], { stream: 0.31 }),
    ],
  );
  expect(lines).toHaveLength(2);
  for (const line of lines) for (const page of [guide, example]) expect(page).toContain(line);
});

/** Two devices at the same time, as each row of the table describes them. */
const rows: readonly (readonly [Partial<TraceEvent>, Partial<TraceEvent>])[] = [
  [{}, {}],
  [{}, { name: "next" }],
  [{}, { replica: 1 }],
  [{}, { replica: 1, stage: 1 }],
  [{}, { stage: 1, item: { microBatch: 1, chunk: 0 } }],
  [{}, { stage: 1 }],
  [{}, { stage: 1, phase: "W" }],
  [{}, { start: 10, end: 20 }],
];

test("the table of the guide has the words for every kind, in the order in which runs use them", () => {
  const table = guide
    .split("### Two by two")[1]
    ?.split("\n\n")
    .find((part) => part.startsWith("| words"));
  const shown = [...(table ?? "").matchAll(/^\| (.*?) \|/gm)].map(([, words]) => words).slice(1);
  const said = rows.map((row) => {
    const events = row.map((more, device) =>
      run(device, 0, 10, "F", { name: "layer", stage: 0, item: { microBatch: 0, chunk: 0 }, ...more }),
    );
    const other = pair([2, 3], { [row[1] === rows[0]?.[1] ? "stream" : "layer"]: 1 });
    const lines = describePairs(["a", "b", "c", "d"], [...classifyPairs(trace(2, events)), other]);
    const line = lines.find((one) => one.startsWith("a and b: ")) ?? lines.join();
    return line.replace("a and b: ", "").replace(/( only)?( \(.*)?\.$/, "");
  });
  expect(said).toEqual(shown);
});
