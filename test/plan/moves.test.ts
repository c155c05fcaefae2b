/** What moves between devices, read from programs that are small enough to count by hand. */

import { expect, test } from "vitest";
import { addAlike, movesOf } from "../../src/plan/moves.ts";
import { parsePrograms } from "../../src/program/parse.ts";
import type { Program } from "../../src/program/program.ts";
import { twoDevices } from "../program/hand-made.ts";
import { meetingPrograms } from "../program/meetings.ts";

/** `F below: 1 message, 8 B, sent 8 B` */
function shown(program: Program): readonly string[] {
  return movesOf(program, `cpu:${program.device}`).map(
    ({ phase, group, count, kind, bytes, sent }) =>
      `${phase} ${group}: ${count} ${kind}, ${bytes} B, sent ${sent} B`,
  );
}

test("messages belong to the layer and the phase that made what they carry, and only senders send", () => {
  const [below, above] = parsePrograms(twoDevices) as [Program, Program];
  expect(shown(below)).toEqual([
    "F below: 1 message, 8 B, sent 8 B",
    "F below: 1 message, 8 B, sent 8 B",
    "U below: 1 message, 4 B, sent 4 B",
    "U below: 1 message, 8 B, sent 8 B",
  ]);
  expect(shown(above)).toEqual(["B above: 1 message, 8 B, sent 8 B", "B above: 1 message, 8 B, sent 8 B"]);
});

test("a device sends of S bytes over n devices what the closed forms say", () => {
  const [two] = meetingPrograms({ dtype: "f32", sizes: [2, 2] }) as [Program];
  expect(shown(two)).toEqual([
    "F g0: 1 all-reduce, 16 B, sent 16 B",
    "F g0: 1 all-reduce, 16 B, sent 16 B",
    "F g0: 1 reduce-scatter, 16 B, sent 8 B",
    "F g0: 1 all-gather, 16 B, sent 8 B",
  ]);
  const [, four] = meetingPrograms({ dtype: "f64", sizes: [2, 2, 2, 2] }) as [Program, Program];
  expect(shown(four)).toEqual([
    "F g1: 1 all-reduce, 64 B, sent 96 B",
    "F g1: 1 all-reduce, 64 B, sent 96 B",
    "F g1: 1 reduce-scatter, 64 B, sent 48 B",
    "F g1: 1 all-gather, 64 B, sent 48 B",
  ]);
});

const shared = `program 0
buffer part: f32[1] parameter
buffer w: f32[2] activation
buffer grad: f32[2] gradient
all-gather part into w sizes 1,1 group 0 of 0,1 F
run k0 (w) -> (grad) W stage 0 @first
run k0 (grad) -> (w) W stage 0 @second
all-reduce sum grad group 0 of 0,1
free w
kernel k0
    %0: f32[2] = input "x" {role: "data", group: "g"}
    %1: f32[2] = add %0 %0 @g W
    output "y" %1
`;

test("sums over all items are their own phase and belong to the layer whose gradients they add up", () => {
  const [program] = parsePrograms(shared) as [Program];
  expect(shown(program).at(-1)).toBe("sum first: 1 all-reduce, 8 B, sent 8 B");
});

test("what nothing has computed yet belongs to the first layer that computes", () => {
  const [program] = parsePrograms(shared) as [Program];
  expect(shown(program)[0]).toBe("F first: 1 all-gather, 8 B, sent 4 B");
});

test("moves of one device, phase and kind are added up, in the order of the phases", () => {
  const [below, above] = parsePrograms(twoDevices) as [Program, Program];
  const moves = [...movesOf(below, "cpu:0"), ...movesOf(above, "cpu:1"), ...movesOf(above, "cpu:2")];
  const message = { kind: "message", count: 2, bytes: 16, sent: 16 };
  expect(addAlike(moves.toReversed())).toEqual([
    { ...message, phase: "F", device: "cpu:0" },
    { ...message, phase: "B", device: "cpu:2" },
    { ...message, phase: "B", device: "cpu:1" },
    { ...message, phase: "U", device: "cpu:0", bytes: 12, sent: 12 },
  ]);
  expect(addAlike([])).toEqual([]);
});
