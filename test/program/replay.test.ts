import fc from "fast-check";
import { expect, test } from "vitest";
import type { Program, Run } from "../../src/program/program.ts";
import { replayPrograms } from "../../src/program/replay.ts";
import { edited, twoDevices } from "./hand-made.ts";
import { choices, cuts, realPrograms } from "./real-programs.ts";

const unit = { duration: () => 1, transfer: () => 0.5 };

test("receives wait for messages, and everything else follows the order of the program", () => {
  const { devices, makespan, stuck } = replayPrograms(edited(twoDevices), unit);
  const ends = devices.map((timed) => timed.map(({ end }) => end));
  expect(ends).toEqual([
    [1, 1, 1, 2, 2, 2, 4, 5, 5, 6, 7, 7, 8, 8, 8, 9, 9, 9],
    [1.5, 2.5, 3.5, 3.5, 3.5, 3.5, 3.5, 4.5, 5.5, 5.5, 5.5, 5.5, 8.5, 8.5, 8.5, 9.5],
  ]);
  expect([makespan, stuck]).toEqual([9.5, []]);
  expect(devices[0]?.[6]).toEqual({ start: 2, end: 4 });
});

test("a transfer is asked for by bytes", () => {
  const bytes: number[] = [];
  replayPrograms(edited(twoDevices), { duration: () => 0, transfer: (size) => bytes.push(size) });
  expect(bytes).toEqual([8, 8, 8, 8, 4, 8]);
});

test("devices that wait for each other are named with the message each lacks", () => {
  const programs = edited(twoDevices, ["send dy[0.0] to 0 tag 2 item 0.0\n", ""]);
  const { stuck, devices } = replayPrograms(programs, unit);
  expect(stuck).toEqual([
    { device: 0, instruction: 6, waitsFor: programs[0]?.instructions[6] },
    { device: 1, instruction: 11, waitsFor: programs[1]?.instructions[11] },
  ]);
  expect(devices.map(({ length }) => length)).toEqual([6, 11]);
});

test("a send blocks while its channel has no free slot", () => {
  const programs = edited(
    twoDevices,
    ["send y[1.0] to 1 tag 1 item 1.0", "send y[1.0] to 1 tag 0 item 1.0"],
    ["receive y[1.0] from 0 tag 1 item 1.0", "receive y[1.0] from 0 tag 0 item 1.0"],
  );
  const slow = { duration: ({ group }: Run) => (group === "above" ? 10 : 1), transfer: () => 4, slots: 1 };
  expect(replayPrograms(programs, slow).devices[0]?.[4]).toEqual({ start: 2, end: 5 });
  expect(replayPrograms(programs, { ...slow, slots: 2 }).devices[0]?.[4]).toEqual({ start: 2, end: 2 });
});

/** Forward takes 1 and backward 2 on every stage. */
const stageCosts = {
  duration: ({ phase, group }: Run): number => {
    if (!["layer0", "layer1", "layer2"].includes(group) || phase === "U") return 0;
    return phase === "F" ? 1 : 2;
  },
  transfer: () => 0,
};

test.each([
  ["naive", 4, 4 * 3 * 3],
  ["gpipe", 4, (4 + 3 - 1) * 3],
  ["1f1b", 4, (4 + 3 - 1) * 3],
  ["1f1b", 8, (8 + 3 - 1) * 3],
] as const)(
  "real programs of %s with %d micro-batches take as long as the closed form says",
  (schedule, microBatches, time) => {
    const programs = realPrograms({
      model: "lstm",
      stages: cuts[2] ?? [],
      microBatches,
      chunks: 1,
      schedule,
      weights: "fused",
    });
    expect(replayPrograms(programs, stageCosts).makespan).toBe(time);
  },
);

test("no replay is faster than the work of its busiest device, and fewer slots are never faster", () => {
  const real = choices()
    .filter((_choice, i) => i % 9 === 0)
    .map(realPrograms);
  fc.assert(
    fc.property(fc.constantFrom(...real), fc.nat(5), fc.nat(5), (programs, fast, slow) => {
      const costs = { duration: ({ phase }: Run) => (phase === "F" ? fast : slow), transfer: () => 1 };
      const { makespan, stuck } = replayPrograms(programs, costs);
      const work = (program: Program) =>
        program.instructions.reduce((sum, step) => sum + (step.kind === "run" ? costs.duration(step) : 0), 0);
      expect(stuck).toEqual([]);
      expect(makespan).toBeGreaterThanOrEqual(Math.max(...programs.map(work)));
      expect(replayPrograms(programs, { ...costs, slots: 1 }).makespan).toBeGreaterThanOrEqual(makespan);
    }),
    { numRuns: 50 },
  );
});
