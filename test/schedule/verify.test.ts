import fc from "fast-check";
import { expect, test } from "vitest";
import type { Weights, Work } from "../../src/schedule/action.ts";
import { replay, uniformCosts } from "../../src/schedule/replay.ts";
import { schedule } from "../../src/schedule/schedule.ts";
import { parseSchedule, renderTimeline } from "../../src/schedule/text.ts";
import { assertSchedule, verifySchedule } from "../../src/schedule/verify.ts";

function work(stages: number, microBatches: number, chunks: number, weights: Weights = "per-item"): Work {
  return { stages, microBatches, chunks, weights };
}

function messages(text: string, of: Work): string[] {
  return verifySchedule(parseSchedule(text), of).map(({ message }) => message);
}

test("a deadlock names who waits for what, and an arrow marks the rows", () => {
  const text = "device 0 | F0 B0 W0 F1 B1 W1\ndevice 1 | F0 F1 B1 W1 B0 W0";
  expect(() => assertSchedule(parseSchedule(text), work(2, 2, 1))).toThrow(
    [
      "the schedule cannot run:",
      "  - device 0, position 1: 0B0.0 waits for ever for 1B0.0 (deadlock)",
      "  - device 1, position 1: 1F1.0 waits for ever for 0F1.0 (deadlock)",
      "device 0 | F0 B0 W0 F1 B1 W1   <-- here",
      "device 1 | F0 F1 B1 W1 B0 W0   <-- here",
    ].join("\n"),
  );
});

test("devices that share a stage but come to its actions in different orders wait for each other", () => {
  const text = "device 0 | F0 F1 B0 B1 W0 W1\ndevice 1 | 0F1 0F0 0B0 0B1 0W1 0W0";
  expect(messages(text, work(1, 2, 1))).toEqual([
    "device 0, position 0: 0F0.0 waits for ever for device 1 (deadlock)",
    "device 1, position 0: 0F1.0 waits for ever for device 0 (deadlock)",
  ]);
});

test("devices that do not meet may come to F in different orders, and go backward when all have been forward", () => {
  const apart = { ...work(1, 2, 1), meets: [{ F: false, B: false, W: false }] };
  const text = "device 0 | F0 F1 B0 B1 W0 W1\ndevice 1 | 0F1 0F0 0B1 0W1 0B0 0W0";
  expect(messages(text, apart)).toEqual([]);
  expect(messages(text, work(1, 2, 1))).not.toEqual([]);
  expect(messages("device 0 | F0 B0 W0 F1 B1 W1\ndevice 1 | 0F1 0B1 0W1 0F0 0B0 0W0", apart)).toEqual([
    "device 0, position 1: 0B0.0 waits for ever for 0F0.0 (deadlock)",
    "device 1, position 1: 0B1.0 waits for ever for 0F1.0 (deadlock)",
  ]);
});

test("chunks of a stage that carries no state come back in any order", () => {
  const text = "device 0 | F0.0 B0.0 F0.1 W0.0 B0.1 W0.1";
  expect(messages(text, { ...work(1, 1, 2), carries: [false] })).toEqual([]);
  expect(messages(text, work(1, 1, 2))).toEqual([
    "device 0, position 1: 0B0.0 runs before 0B0.1, which it needs",
  ]);
});

test("a backward before its forward, a repeated and a missing action are all reported", () => {
  expect(messages("device 0 | B0 F0 W0 F1 F1 W1", work(1, 2, 1))).toEqual([
    "device 0, position 4: 0F1.0 was already run by device 0, position 3",
    "0B1.0 is missing",
    "device 0, position 0: 0B0.0 runs before 0F0.0, which it needs",
  ]);
});

test("chunks run forward in time and backward in reverse", () => {
  expect(messages("device 0 | F0.1 F0.0 B0.0 B0.1 W0.0 W0.1", work(1, 1, 2))).toEqual([
    "device 0, position 0: 0F0.1 runs before 0F0.0, which it needs",
    "device 0, position 2: 0B0.0 runs before 0B0.1, which it needs",
  ]);
});

test("an action outside the work, and a stage whose devices do not all do the same, are refused", () => {
  expect(messages("device 0 | F0 F7", work(1, 1, 1))).toEqual([
    "device 0, position 1: 0F7.0 is not part of 1 stages, 1 micro-batches and 1 chunks",
  ]);
  expect(messages("device 0 | F0 B0\ndevice 1 | 0W0", work(1, 1, 1))).toEqual([
    "0F0.0 is missing on device 1, which holds stage 0 too",
    "0B0.0 is missing on device 1, which holds stage 0 too",
    "0W0.0 is missing on device 0, which holds stage 0 too",
  ]);
});

test("each choice of weights has its own order rule", () => {
  expect(messages("device 0 | F0 F1 B0 B1 W0 W1", work(1, 2, 1, "fused"))).toEqual([
    "device 0, position 4: 0W0.0 must directly follow its B, because weights are fused",
    "device 0, position 5: 0W1.0 must directly follow its B, because weights are fused",
  ]);
  expect(messages("device 0 | F0.0 F0.1 B0.1 W0.1 B0.0 W0.0", work(1, 1, 2, "per-micro-batch"))).toEqual([
    "device 0, position 5: 0W0.0 is apart from the other W of its micro-batch, which run as one piece",
  ]);
  expect(messages("device 0 | F0 B0 W0 F1 B1 W1", work(1, 2, 1, "deferred"))).toEqual([
    "device 0, position 3: 0F1.0 follows a W, but weights are deferred to the end",
  ]);
});

test("only real edges of the stage graph are waited for", () => {
  const text = "device 0 | F0 F1 B0 B1 W0 W1\ndevice 1 | F1 F0 B1 B0 W0 W1\ndevice 2 | F0 F1 B0 B1 W0 W1";
  const towers: Work = {
    ...work(3, 2, 1),
    edges: [
      [0, 2],
      [1, 2],
    ],
  };
  expect(messages(text, towers)).toEqual([]);
  const timeline = replay(parseSchedule(text), towers, uniformCosts(1, 1, 1));
  expect(renderTimeline(timeline)).toBe(
    [
      "device 0 | F0 F1 .  .  .  B0 B1 W0 W1 .",
      "device 1 | F1 F0 .  .  .  .  B1 B0 W0 W1",
      "device 2 | .  .  F0 F1 B0 B1 W0 W1 .  .",
    ].join("\n"),
  );
});

test("removing, repeating or replacing any one action of a good schedule is noticed", () => {
  const of = { ...work(3, 3, 2, "fused"), kind: "1f1b", devices: 3 } as const;
  const good = schedule(of);
  fc.assert(
    fc.property(
      fc.nat(2),
      fc.nat(17),
      fc.nat(17),
      fc.constantFrom("remove", "repeat", "replace"),
      (d, i, j, how) => {
        const row = [...(good[d] ?? [])];
        const [a, b] = [row[i], row[j]];
        if (a === undefined || b === undefined) return;
        if (how === "remove") row.splice(i, 1);
        if (how === "repeat") row.splice(i, 0, a);
        if (how === "replace") row.splice(i, 1, b);
        const changed = good.with(d, row);
        expect(verifySchedule(changed, of).length > 0).toBe(how !== "replace" || i !== j);
      },
    ),
  );
});

test("transfer time delays what comes from another device, and only that", () => {
  const of = { ...work(2, 1, 1, "fused"), kind: "gpipe", devices: 2 } as const;
  const costs = { ...uniformCosts(1, 1, 1), transfer: 0.5 };
  expect(replay(schedule(of), of, costs).makespan).toBe(6 + 2 * 0.5);
});
