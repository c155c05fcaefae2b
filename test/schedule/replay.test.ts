/** Schedules on paper: updates of the step before, and what a device did last. */

import { expect, test } from "vitest";
import type { Action } from "../../src/schedule/action.ts";
import { type ReplayCosts, replay } from "../../src/schedule/replay.ts";
import { type ScheduleSpec, schedule } from "../../src/schedule/schedule.ts";

const two: ScheduleSpec = {
  kind: "gpipe",
  devices: 2,
  stages: 2,
  microBatches: 2,
  chunks: 1,
  weights: "fused",
};
const plain: ReplayCosts = { durations: () => 1, transfer: 0 };

function makespanWith(updates: readonly (readonly number[])[], of: ScheduleSpec = two): number {
  const costs = { ...plain, updates: (stage: number, device: number) => updates[stage]?.[device] ?? 0 };
  return replay(schedule(of), of, costs).makespan;
}

/** Two F, two B and two W on each device, and one action of the other one to wait for at both ends. */
const alone = replay(schedule(two), two, plain).makespan;

test("an update comes before the first action of its stage, and one that fits into the wait for it costs nothing", () => {
  expect(makespanWith([[0], [0, 1]])).toBe(alone);
  expect(makespanWith([[0], [0, 1.5]])).toBe(alone + 0.5);
  expect(makespanWith([[0.5], [0, 1]])).toBe(alone + 0.5);
  expect(makespanWith([[0.5], [0, 1.5]])).toBe(alone + 0.5);
});

test("a device with several stages does the update of a later one while it waits for the first item, or before its use", () => {
  const inTurn = { ...two, stages: 4, kind: "wavefront" as const };
  const base = replay(schedule(inTurn), inTurn, plain).makespan;
  expect(makespanWith([[], [0, 0.5], [], [0, 0.5]], inTurn)).toBe(base);
  expect(makespanWith([[], [0, 0.5], [], [0, 1.5]], inTurn)).toBeGreaterThan(base);
});

test("updates are no bubble", () => {
  const busy = replay(schedule(two), two, plain);
  const renewing = replay(schedule(two), two, { ...plain, updates: () => 1 });
  expect(renewing.makespan).toBe(busy.makespan + 1);
  renewing.bubbles.forEach((bubble, device) => {
    const idle = (busy.bubbles[device] as number) * busy.makespan;
    expect(bubble * renewing.makespan).toBeCloseTo(idle, 12);
  });
});

test("durations may depend on what the device did last", () => {
  const seen: (readonly [Action, Action | undefined])[] = [];
  replay(schedule(two), two, {
    transfer: 0,
    durations: (action, device, before) => {
      if (device === 0) seen.push([action, before]);
      return 1;
    },
  });
  const order = schedule(two)[0] as readonly Action[];
  expect(seen).toEqual(order.map((action, i) => [action, order[i - 1]]));
});
