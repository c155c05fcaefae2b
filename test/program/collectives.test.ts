/** What programs say of collectives: text, table, replay, channels, and all that keeps the members of a group from meeting. */

import { expect, test } from "vitest";
import { channelPlan } from "../../src/program/channels.ts";
import { planMemory } from "../../src/program/memory.ts";
import { parsePrograms } from "../../src/program/parse.ts";
import type { Program } from "../../src/program/program.ts";
import { placeKey, sharedTensors } from "../../src/program/regions.ts";
import { replayPrograms } from "../../src/program/replay.ts";
import { printTable } from "../../src/program/table.ts";
import { printPrograms } from "../../src/program/text.ts";
import { assertPrograms, verifyPrograms } from "../../src/program/verify.ts";
import { type Edit, edited } from "./hand-made.ts";
import { meetingText } from "./meetings.ts";

const two = { dtype: "f32", sizes: [3, 2] } as const;
const [first, second] = [meetingText(two, 0), meetingText(two, 1)];

test("collectives are printed as they were written", () => {
  expect(printPrograms(parsePrograms(`${first}\n${second}`))).toBe(`${first}\n${second}`);
  expect(first).toContain("\nall-reduce max y group 4 of 0,1 F item 0.0\n");
  expect(first).toContain("\nreduce-scatter y into part sizes 3,2 group 4 of 0,1 F item 0.0\n");
  expect(first).toContain("\nall-gather own into w sizes 3,2 group 4 of 0,1 F item 0.0\n");
});

test("the table shows the members of a group beside each other", () => {
  expect(printTable(parsePrograms(`${first}\n${second}`))).toBe(
    [
      "device 0                 device 1",
      "-----------------------  -----------------------",
      " 0 F g0 0.0               0 F g1 0.0",
      " 1 all-reduce x 0.0       1 all-reduce x 0.0",
      " 2 F g0 0.0               2 F g1 0.0",
      " 4 all-reduce max y 0.0   4 all-reduce max y 0.0",
      " 5 reduce-scatter y 0.0   5 reduce-scatter y 0.0",
      " 7 F g0 0.0               7 F g1 0.0",
      " 9 all-gather w 0.0       9 all-gather w 0.0",
    ].join("\n"),
  );
});

test("a meeting begins when its last device comes, and costs what its kind and bytes say", () => {
  const costs = {
    duration: ({ stage }: { readonly stage: number }) => (stage === 0 ? 1 : 4),
    transfer: () => 0,
    collective: (bytes: number, { kind }: { readonly kind: string }) => (kind === "all-gather" ? bytes : 0.5),
  };
  const { devices, makespan } = replayPrograms(parsePrograms(`${first}\n${second}`), costs);
  expect(devices[0]?.[1]).toEqual({ start: 1, end: 4.5 });
  expect(devices[1]?.[1]).toEqual({ start: 4, end: 4.5 });
  expect(devices[0]?.[4]).toEqual({ start: 5.5, end: 9 });
  expect(devices[0]?.[5]).toEqual({ start: 9, end: 9.5 });
  expect(makespan).toBe(9.5 + 4 + 20);
});

test("a group shares the parameter that it gathers, and no activations, which live like all others", () => {
  const programs = parsePrograms(`${first}\n${second}`);
  const { groups } = channelPlan([programs]);
  expect(groups).toEqual([{ id: 4, ranks: [0, 1], regionBytes: 64, label: "devices 0, 1" }]);
  const { liveBytes } = planMemory(programs[0] as Program);
  expect(liveBytes).toEqual([64, 64, 128, 64, 64, 128, 64, 128, 64, 64, 0]);
});

/** A gradient added up in the groups of `meetings`, per device. */
function gradients(...meetings: readonly (readonly string[])[]): readonly Program[] {
  const texts = meetings.map(
    (groups, rank) => `program ${rank} replica ${rank}
buffer x: f32[2] data
buffer grad:w: f32[2] gradient
feed x = "x" from [0]
run k0 (x) -> (grad:w) W stage 0 item 0.0 @only
${groups.map((group) => `all-reduce sum grad:w group ${group}\n`).join("")}kernel k0
    %0: f32[2] = input "x" {role: "data", group: "only"}
    %1: f32[2] = add %0 %0 @only W
    output "grad" %1
`,
  );
  return parsePrograms(texts.join("\n"));
}

test("a gradient lies in the memory of the only group that adds it up, and in none where there are several", () => {
  const one = gradients(["0 of 0,1"], ["0 of 0,1"]);
  expect(verifyPrograms(one)).toEqual([]);
  expect(channelPlan([one]).groups[0]?.regionBytes).toBe(64);
  expect(sharedTensors(one.slice(0, 1)).map(({ spec, group }) => `${placeKey(spec)} in ${group}`)).toEqual([
    "grad:w f32[2] in 0",
  ]);
  const grid = gradients(
    ["0 of 0,1", "2 of 0,2"],
    ["0 of 0,1", "3 of 1,3"],
    ["1 of 2,3", "2 of 0,2"],
    ["1 of 2,3", "3 of 1,3"],
  );
  expect(verifyPrograms(grid)).toEqual([]);
  expect(channelPlan([grid]).groups.map(({ regionBytes }) => regionBytes)).toEqual([0, 0, 0, 0]);
});

test("members that would look for a gradient in different memory are refused", () => {
  const programs = gradients(["0 of 0,1", "1 of 0,2"], ["0 of 0,1"], ["1 of 0,2"]);
  expect(verifyPrograms(programs).map(({ message }) => message)).toEqual([
    'device 1: shares "grad:w" in other groups than device 0, with which it shares its memory: expected the same groups on both',
    'device 2: shares "grad:w" in other groups than device 0, with which it shares its memory: expected the same groups on both',
  ]);
});

test("a number that means different devices in different sets of programs is our mistake", () => {
  const [one, other] = [gradients(["0 of 0,1"], ["0 of 0,1"], []), gradients(["0 of 0,2"], [], ["0 of 0,2"])];
  expect(() => channelPlan([one, other])).toThrow("internal: group 0 is devices 0, 1 and devices 0, 2");
});

/** A fault planted in the program of device 1, and all that must be said about it. */
type Case = readonly [fault: string, edits: readonly Edit[], messages: readonly string[]];

const meeting = "group 4 of 0,1 F item 0.0";

const cases: readonly Case[] = [
  [
    "a maximum where the others add up",
    [[`all-reduce sum x ${meeting}`, `all-reduce max x ${meeting}`]],
    [
      'device 1, instruction 1 (all-reduce max x 0.0): takes the maximum of "x" (f32[5]) in F of item 0.0 over devices 0, 1, while device 0 of its group adds up "x" (f32[5]) in F of item 0.0 over devices 0, 1',
    ],
  ],
  [
    "a meeting that one member never comes to",
    [[`all-reduce max y ${meeting}\n`, ""]],
    [
      'device 1, instruction 4 (reduce-scatter y 0.0): adds up and deals out "y" (f32[5]) in F of item 0.0 in parts of 3, 2 elements over devices 0, 1, while device 0 of its group takes the maximum of "y" (f32[5]) in F of item 0.0 over devices 0, 1',
    ],
  ],
  [
    "a last meeting that is missing",
    [[`all-gather own into w sizes 3,2 ${meeting}\n`, ""]],
    [
      'device 1: never gathers "w" (f32[5]) in F of item 0.0 in parts of 3, 2 elements over devices 0, 1, for which device 0 waits',
    ],
  ],
  [
    "a meeting for another item",
    [[`all-reduce sum x ${meeting}`, "all-reduce sum x group 4 of 0,1 F"]],
    [
      'device 1, instruction 1 (all-reduce x): adds up "x" (f32[5]) in F over devices 0, 1, while device 0 of its group adds up "x" (f32[5]) in F of item 0.0 over devices 0, 1',
    ],
  ],
  [
    "parts of other sizes",
    [
      [`all-gather own into w sizes 3,2 ${meeting}`, `all-gather own into w sizes 2,2 ${meeting}`],
      ["buffer w: f32[5] parameter", "buffer w: f32[4] parameter"],
    ],
    [
      'device 1, instruction 9 (all-gather w 0.0): gathers "w" (f32[4]) in F of item 0.0 in parts of 2, 2 elements over devices 0, 1, while device 0 of its group gathers "w" (f32[5]) in F of item 0.0 in parts of 3, 2 elements over devices 0, 1',
    ],
  ],
  [
    "a part that is not as large as its size",
    [[`reduce-scatter y into part sizes 3,2 ${meeting}`, `reduce-scatter y into part sizes 2,3 ${meeting}`]],
    [
      'device 1, instruction 5 (reduce-scatter y 0.0): "part" has 2 elements, expected 3 of parts of 2, 3 elements',
      'device 1, instruction 5 (reduce-scatter y 0.0): adds up and deals out "y" (f32[5]) in F of item 0.0 in parts of 2, 3 elements over devices 0, 1, while device 0 of its group adds up and deals out "y" (f32[5]) in F of item 0.0 in parts of 3, 2 elements over devices 0, 1',
    ],
  ],
  [
    "a size too many",
    [[`all-gather own into w sizes 3,2 ${meeting}`, `all-gather own into w sizes 3,2,0 ${meeting}`]],
    ["device 1, instruction 9 (all-gather w 0.0): names 3 parts, expected one for each of 2 devices"],
  ],
  [
    "a group without the device itself, and with one that there is not",
    [[`all-reduce max y ${meeting}`, "all-reduce max y group 4 of 0,2 F item 0.0"]],
    [
      "device 1, instruction 4 (all-reduce max y 0.0): names device 2, but the devices are 0 to 1",
      "device 1, instruction 4 (all-reduce max y 0.0): meets devices 0, 2, but its own is not among them",
    ],
  ],
  [
    "a number for two lists of devices",
    [[`all-reduce max y ${meeting}`, "all-reduce max y group 4 of 1,0 F item 0.0"]],
    [
      "device 1, instruction 4 (all-reduce max y 0.0): calls devices 1, 0 group 4, which elsewhere is devices 0, 1",
    ],
  ],
  [
    "a meeting in a group that others do not have",
    [
      [
        `all-reduce sum x ${meeting}\n`,
        `all-gather own into w sizes 3,2 ${meeting.replace("4", "5")}\nall-reduce sum x ${meeting}\n`,
      ],
      [`free part\nall-gather own into w sizes 3,2 ${meeting}\n`, "free part\n"],
    ],
    [
      'device 1, instruction 1 (all-gather w 0.0): reads "own" before it is written by instruction 8 (F g1 0.0)',
      'device 1: never gathers "w" (f32[5]) in F of item 0.0 in parts of 3, 2 elements over devices 0, 1, for which device 0 waits',
      'device 1, instruction 1 (all-gather w 0.0): gathers "w" (f32[5]) in F of item 0.0 in parts of 3, 2 elements over devices 0, 1, while device 0 of its group comes to no more meetings',
    ],
  ],
  [
    "a sum that is sent before it is changed in place",
    [[`all-reduce max y ${meeting}`, `send y to 0 tag 7\nall-reduce max y ${meeting}`]],
    [
      'device 1, instruction 5 (all-reduce max y 0.0): changes "y" in place, which instruction 4 (send→0 #7) may still be sending',
      'device 1, instruction 4 (send→0 #7): sends "y", expected a receive with tag 7 on device 0, but there is none for it',
    ],
  ],
  [
    "a result on top of its operand",
    [[`reduce-scatter y into part sizes 3,2 ${meeting}`, `reduce-scatter y into y sizes 3,2 ${meeting}`]],
    [
      'device 1, instruction 5 (reduce-scatter y 0.0): "y" has 5 elements, expected 2 of parts of 3, 2 elements',
      'device 1, instruction 5 (reduce-scatter y 0.0): makes "y" of "y", with which it shares memory',
      'device 1, instruction 5 (reduce-scatter y 0.0): writes "y", which instruction 4 (all-reduce max y 0.0) has written already',
      'device 1, instruction 7 (F g1 0.0): reads "part" before it is written (it never is)',
    ],
  ],
];

test("the programs without a fault pass", () => {
  expect(() => assertPrograms(edited(`${first}\n${second}`))).not.toThrow();
});

test.each(cases)("%s is refused", (_fault, edits, expected) => {
  const [changed] = edited(second, ...edits) as readonly [Program];
  const programs = [parsePrograms(first)[0] as Program, changed];
  expect(verifyPrograms(programs).map(({ message }) => message)).toEqual(expected);
});

/** Replicas that each update their part of w, and gather it. */
const partedUpdate = [0, 1]
  .map(
    (rank) => `program ${rank} replica ${rank}
buffer x: f32[2] data
buffer grad:w: f32[2] gradient
buffer part: f32[1] activation
buffer w[${rank}]: f32[1] parameter
buffer w: f32[2] parameter
feed x = "x" from [${2 * rank}]
run k0 (x, w) -> (grad:w) W stage 0 item 0.0 @only
reduce-scatter grad:w into part sizes 1,1 group 0 of 0,1
run k1 (w[${rank}], part) -> (w[${rank}]) U stage 0 @only
free part
all-gather w[${rank}] into w sizes 1,1 group 0 of 0,1
kernel k0
    %0: f32[2] = input "x" {role: "data", group: "only"}
    %1: f32[2] = input "w" {role: "parameter", group: "only"}
    %2: f32[2] = mul %0 %1 @only W
    output "grad" %2
kernel k1
    %0: f32[1] = input "w" {role: "parameter", group: "only"}
    %1: f32[1] = input "grad" {role: "gradient", group: "only"}
    %2: f32[1] = sub %0 %1 @only U
    output "w" %2
`,
  )
  .join("\n");

test("replicas may update a part each of what they gather afterwards, but not before", () => {
  expect(verifyPrograms(edited(partedUpdate))).toEqual([]);
  const gather = "all-gather w[1] into w sizes 1,1 group 0 of 0,1\n";
  const early = edited(partedUpdate, [gather, ""], ["run k1 (w[1]", `${gather}run k1 (w[1]`]);
  expect(verifyPrograms(early).map(({ message }) => message)).toEqual([
    'device 1, instruction 2 (all-gather w): gathers parameter "w[1]" before its update',
  ]);
  const never = edited(partedUpdate, [gather, ""]);
  expect(verifyPrograms(never).map(({ message }) => message)).toEqual([
    'device 1: never gathers "w" (f32[2]) in parts of 1, 1 elements over devices 0, 1, for which device 0 waits',
    'device 1: parameter "w" has a gradient, but no U run updates it: it must have one owner',
  ]);
});

/** Two devices of one replica that each update w from a gradient of their own. */
const alike = [0, 1]
  .map(
    (rank) => `program ${rank}
buffer x: f32[2] data
buffer grad:w: f32[2] gradient
buffer w: f32[2] parameter
feed x = "x" from [0]
run k0 (x, w) -> (grad:w) W stage 0 rank ${rank} item 0.0 @only
run k1 (w, grad:w) -> (w) U stage 0 rank ${rank} @only
kernel k0
    %0: f32[2] = input "x" {role: "data", group: "only"}
    %1: f32[2] = input "w" {role: "parameter", group: "only"}
    %2: f32[2] = mul %0 %1 @only W
    output "grad" %2
kernel k1
    %0: f32[2] = input "w" {role: "parameter", group: "only"}
    %1: f32[2] = input "grad" {role: "gradient", group: "only"}
    %2: f32[2] = sub %0 %1 @only U
    output "w" %2
`,
  )
  .join("\n");

test("ranks of one mesh may all update what is not split, and parts of a tensor have owners of their own", () => {
  expect(verifyPrograms(edited(alike))).toEqual([]);
  const stages = alike.replaceAll("stage 0 rank 1", "stage 1 rank 1");
  expect(verifyPrograms(edited(stages)).map(({ message }) => message)).toEqual([
    'device 1, instruction 1 (U only): updates "w", which device 0 updates too: it must have one owner',
  ]);
  const parts = stages
    .split("\n\n")
    .map((text, rank) =>
      text.replace(
        "buffer w: f32[2] parameter",
        `buffer w: f32[2] parameter part [${2 * rank}] size [2] of [4]`,
      ),
    );
  expect(verifyPrograms(edited(parts.join("\n\n")))).toEqual([]);
});

test("the ranks of a mesh share a stage, but no two devices are the same rank of it", () => {
  const mesh = (...ranks: readonly number[]) =>
    gradients(["0 of 0,1"], ["0 of 0,1"]).map((program, device) => ({
      ...program,
      replica: 0,
      instructions: program.instructions.map((one) =>
        one.kind === "run" ? { ...one, rank: ranks[device] ?? 0 } : one,
      ),
    }));
  expect(verifyPrograms(mesh(0, 1))).toEqual([]);
  expect(verifyPrograms(mesh(1, 1)).map(({ message }) => message)).toEqual([
    "device 1, instruction 0 (W only 0.0): runs rank 1 of stage 0, which also runs on device 0",
  ]);
});

test("a sum done twice counts everything twice and is refused", () => {
  const twice = gradients(["0 of 0,1", "0 of 0,1"], ["0 of 0,1", "0 of 0,1"]);
  expect(verifyPrograms(twice).map(({ message }) => message)).toEqual(
    [0, 1].map(
      (rank) =>
        `device ${rank}, instruction 2 (all-reduce grad:w): reduces "grad:w" again, which instruction 1 (all-reduce grad:w) has done`,
    ),
  );
});

test("what a device computes of a gradient after its sum is refused", () => {
  const late = gradients(["0 of 0,1"], ["0 of 0,1"]).map((program) => {
    const [run, sum] = program.instructions;
    return { ...program, instructions: run && sum ? [sum, run] : [] };
  });
  expect(verifyPrograms(late).map(({ message }) => message)).toEqual(
    [0, 1].flatMap((rank) => [
      `device ${rank}, instruction 0 (all-reduce grad:w): reads "grad:w" before it is written by instruction 1 (W only 0.0)`,
      `device ${rank}, instruction 1 (W only 0.0): changes "grad:w" after instruction 0 (all-reduce grad:w) reduced it over its devices`,
    ]),
  );
});

test("element types that no transport reduces are refused, and may be gathered", () => {
  const text = [first, second].map((program) => program.replaceAll("f32[", "i64[")).join("\n");
  expect(
    verifyPrograms(parsePrograms(text)).map(({ message }) => message.replace(/^device \d, /, "")),
  ).toEqual(
    [0, 1].flatMap(() => [
      'instruction 1 (all-reduce x 0.0): reduces "x", which is i64[5]: expected f32, f64, i32',
      'instruction 4 (all-reduce max y 0.0): reduces "y", which is i64[5]: expected f32, f64, i32',
      'instruction 5 (reduce-scatter y 0.0): reduces "y", which is i64[5]: expected f32, f64, i32',
    ]),
  );
});

test("groups that meet in different orders are named in the deadlock", () => {
  const orders = [
    ["0 of 0,1", "1 of 0,2"],
    ["2 of 1,2", "0 of 0,1"],
    ["1 of 0,2", "2 of 1,2"],
  ];
  expect(verifyPrograms(gradients(...orders)).map(({ message }) => message)).toEqual([
    'device 0, instruction 1 (all-reduce grad:w): waits for ever for device 1 to add up "grad:w", which waits at instruction 1 (all-reduce grad:w) (deadlock)',
    'device 1, instruction 1 (all-reduce grad:w): waits for ever for device 2 to add up "grad:w", which waits at instruction 1 (all-reduce grad:w) (deadlock)',
    'device 2, instruction 1 (all-reduce grad:w): waits for ever for device 0 to add up "grad:w", which waits at instruction 1 (all-reduce grad:w) (deadlock)',
  ]);
});

test("a guard that ends one member of a group must end all", () => {
  const guarded = (has: boolean) => [
    ["buffer w:", `buffer s: f32[] scalar\nbuffer w:`] as Edit,
    ...(has ? [[`all-reduce sum x`, `guard s\nall-reduce sum x`] as Edit] : []),
  ];
  const programs = [edited(first, ...guarded(true)), edited(second, ...guarded(false))].flat();
  expect(
    verifyPrograms(programs)
      .slice(0, 1)
      .map(({ message }) => message),
  ).toEqual([
    'device 1, instruction 1 (all-reduce x 0.0): waits for ever when device 0 ends at its guard on "s", expected a guard on it before this meeting',
  ]);
});

test("removing or repeating any one instruction of programs with collectives is noticed", () => {
  for (const [at, program] of edited(`${first}\n${second}`).entries()) {
    for (const [index, instruction] of program.instructions.entries()) {
      for (const again of [[], [instruction, instruction]]) {
        const programs = edited(`${first}\n${second}`).with(at, {
          ...program,
          instructions: program.instructions.toSpliced(index, 1, ...again),
        });
        expect(verifyPrograms(programs), `${again.length} of instruction ${index}`).not.toEqual([]);
      }
    }
  }
});
