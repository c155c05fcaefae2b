/** Which updates may come after their step. */

import { expect, test } from "vitest";
import { type Layout, oneDevice, withReplicas } from "../../src/layout/layout.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import { postponable, touchedBy } from "../../src/program/postpone.ts";
import type { Instruction, Program } from "../../src/program/program.ts";
import { replayPrograms } from "../../src/program/replay.ts";
import { layoutOf } from "../partition/layouts.ts";
import { type ExampleName, exampleOf } from "../partition/models.ts";
import { edited, twoDevices } from "./hand-made.ts";

function programsOf(name: ExampleName, layoutFor: (groups: readonly string[]) => Layout): readonly Program[] {
  const { source, groups, shapes } = exampleOf(name);
  return compileTraining(source, layoutFor(groups), shapes[0] as { batch: number }).programs;
}

function at(program: Program, index: number): Instruction {
  return program.instructions[index] as Instruction;
}

/** Runs of U behind the guard. */
function updatesOf({ instructions }: Program): readonly number[] {
  const guard = instructions.findIndex(({ kind }) => kind === "guard");
  return [...instructions.keys()].filter((index) => {
    const one = instructions[index] as Instruction;
    return index > guard && one.kind === "run" && one.phase === "U";
  });
}

test.each(["lstm", "gru", "transformer"] as const)("all updates of %s can wait, on every device", (name) => {
  for (const devices of [1, 2, 3])
    for (const program of programsOf(name, (groups) => layoutOf({ groups, devices }))) {
      const updates = updatesOf(program);
      expect(updates.length).toBeGreaterThan(0);
      expect([...postponable(program)].sort((a, b) => a - b)).toEqual(updates);
    }
});

test("an update cannot wait whose parameters are sent: embedding and decoder are tied on two devices", () => {
  const programs = programsOf("tied", (groups) => layoutOf({ groups, devices: 2 }));
  const sent = programs.flatMap((program) =>
    program.instructions.flatMap((one) =>
      one.kind === "send" && program.buffers[one.buffer]?.kind === "parameter"
        ? [{ program, buffer: one.buffer }]
        : [],
    ),
  );
  expect(sent.length).toBeGreaterThan(0);
  for (const { program, buffer } of sent)
    for (const index of postponable(program))
      expect(touchedBy(program, at(program, index))).not.toContain(buffer);
  expect(programs.flatMap((program) => [...postponable(program)]).length).toBeGreaterThan(0);
});

test("updates that replicas share cannot wait, but those that each does for itself can", () => {
  const replicas = (zero: 0 | 1) => (groups: readonly string[]) => ({
    ...withReplicas(oneDevice(groups), [[{ name: "cpu:1", threads: 1 }]]),
    ...(zero === 1 && { zero }),
  });
  for (const program of programsOf("lstm", replicas(0)))
    expect(postponable(program).size).toBe(updatesOf(program).length);
  for (const program of programsOf("lstm", replicas(1))) {
    const gathered = program.instructions.flatMap((one) =>
      one.kind === "all-gather" ? [one.into, one.buffer] : [],
    );
    for (const index of postponable(program))
      for (const id of touchedBy(program, at(program, index))) expect(gathered).not.toContain(id);
  }
});

const last = "run k4 (w, grad:w, scale, rate) -> (w) U stage 0 @below\n";
const sending = "free scale\nsend w to 1 tag 5\n";
type Edit = readonly [from: string, to: string];
const cases: readonly { readonly why: string; readonly edits: readonly Edit[]; readonly waits: number }[] = [
  { why: "nothing comes after it", edits: [[sending, "free scale\n"]], waits: 1 },
  { why: "its result is sent", edits: [], waits: 0 },
  {
    why: "it comes before the guard",
    edits: [[`guard scale\n${last}${sending}`, `${last}guard scale\nfree scale\n`]],
    waits: 0,
  },
  {
    why: "it reads more than one number that does not last",
    edits: [
      [sending, "free scale\n"],
      ["(w, grad:w, scale, rate) -> (w)", "(w, y[0.0], scale, rate) -> (w)"],
    ],
    waits: 0,
  },
];

test.each(cases)("whether an update can wait: $why", ({ edits, waits }) => {
  const [program] = edited(twoDevices, ...edits) as [Program];
  expect(postponable(program).size).toBe(waits);
});

test("on paper, updates fill the wait at the start of a step, and come before the first use of what they renew", () => {
  const programs = programsOf("lstm", (groups) => layoutOf({ groups, devices: 2, schedule: "naive" }));
  const updates = programs.map((program) => updatesOf(program).length);
  const duration = { duration: () => 1, transfer: () => 0 };
  const { devices } = replayPrograms(programs, duration);
  programs.forEach((program, device) => {
    const timed = devices[device] ?? [];
    for (const update of postponable(program)) {
      const touched = touchedBy(program, at(program, update));
      const users = [...program.instructions.keys()].filter(
        (index) =>
          index !== update && touchedBy(program, at(program, index)).some((id) => touched.includes(id)),
      );
      expect(users.length).toBeGreaterThan(0);
      for (const user of users)
        expect(timed[user]?.start).toBeGreaterThanOrEqual(timed[update]?.end as number);
    }
  });
  const [, second = []] = devices;
  const firstReceive = programs[1]?.instructions.findIndex(({ kind }) => kind === "receive") as number;
  const early = [...postponable(programs[1] as Program)].filter(
    (update) => (second[update]?.end as number) <= (second[firstReceive]?.end as number),
  );
  expect(early.length).toBe(updates[1]);
});
