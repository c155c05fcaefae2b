/** Backward cuts slabs out of collected images: what changes, as text. Values are compared wherever a graph is split. */

import { expect, test } from "vitest";
import { parseGraph, printGraph } from "../../src/graph/text.ts";
import { keepCollected } from "../../src/shard/keep-collected.ts";

/** Groups end with their device. */
const deviceOf = (group: string): string => group.split("@")[1] ?? "";

function kept(text: string): string {
  return printGraph(keepCollected(parseGraph(text), deviceOf)).trimEnd();
}

/** y is collected with one more row for the product dc; dy reads it too. */
function chain(after: string): string {
  return `%0: f64[4,2] = input "x" {role: "data", group: "a@0"}
%1: f64[1,2] = input "h" {role: "data", group: "a@0"}
%2: f64[4,2] = tanh %0 @"a@0" F
%3: f64[5,2] = concat %1 %2 {dim: 0} @"b@0" F
%4: f64[5,2] = tanh %3 @"b@0" F
${after}`;
}

test("a slab that backward needs beside the image collected around it is cut out of that", () => {
  const before = chain(`%5: f64[5,2] = mul %3 %4 @"b@0" B
%6: f64[4,2] = mul %2 %2 @"a@0" B
%7: f64[4,2] = add %2 %6 @"a@0" B
output "dc" %5
output "dy" %7`);
  const after = chain(`%5: f64[5,2] = mul %3 %4 @"b@0" B
%6: f64[4,2] = slice %3 {start: [1, 0], stop: [5, 2], step: [1, 1]} @"a@0" B
%7: f64[4,2] = mul %6 %6 @"a@0" B
%8: f64[4,2] = add %6 %7 @"a@0" B
output "dc" %5
output "dy" %8`);
  expect(kept(before)).toBe(after);
});

test("a slab in an image in a larger image is cut out of the larger one, where only that is kept", () => {
  const before = chain(`%5: f64[5,1] = slice %4 {start: [0, 0], stop: [5, 1], step: [1, 1]} @"b@0" F
%6: f64[5,3] = concat %3 %5 {dim: 1} @"b@0" F
%7: f64[5,3] = mul %6 %6 @"b@0" B
%8: f64[4,2] = mul %2 %2 @"a@0" B
output "dc" %7
output "dy" %8`);
  expect(kept(before)).toContain(`%8: f64[5,2] = slice %6 {start: [0, 0], stop: [5, 2], step: [1, 1]} @"a@0" B
%9: f64[4,2] = slice %8 {start: [1, 0], stop: [5, 2], step: [1, 1]} @"a@0" B
%10: f64[4,2] = mul %9 %9 @"a@0" B`);
});

test.each([
  ["the image is not needed in backward", `%5: f64[4,2] = mul %2 %2 @"a@0" B\noutput "z" %4\noutput "dy" %5`],
  [
    "what backward reads is an input",
    `%5: f64[5,2] = mul %3 %4 @"b@0" B\n%6: f64[1,2] = mul %1 %1 @"a@0" B\noutput "dc" %5\noutput "dh" %6`,
  ],
  [
    "another device reads the slab",
    `%5: f64[5,2] = mul %3 %4 @"b@0" B\n%6: f64[4,2] = mul %2 %2 @"c@1" B\noutput "dc" %5\noutput "dy" %6`,
  ],
])("nothing changes where %s", (_why, after) => {
  const text = chain(after);
  expect(kept(text)).toBe(text);
});
