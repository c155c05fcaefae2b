import fc from "fast-check";
import { expect, test } from "vitest";
import { planMemory } from "../../src/program/memory.ts";
import { parsePrograms } from "../../src/program/parse.ts";
import type { BufferSpec, Instruction, Program, Run } from "../../src/program/program.ts";
import { edited, stackedRows, twoDevices } from "./hand-made.ts";
import { choices, realPrograms } from "./real-programs.ts";

/** An activation of some bytes that is written at one time and freed at a later one. */
interface Life {
  readonly bytes: number;
  readonly start: number;
  readonly end: number;
}

const run = (outputs: readonly number[]): Run => ({
  kind: "run",
  kernel: 0,
  inputs: [],
  outputs,
  phase: "F",
  stage: 0,
  group: "only",
});

/** A program with these lives: at every time what begins is written, then what ends is freed. */
function programOf(lives: readonly Life[]): Program {
  const times = Math.max(0, ...lives.map(({ end }) => end)) + 1;
  const ids = [...lives.keys()];
  return {
    device: 0,
    kernels: [],
    feeds: [],
    buffers: lives.map(
      ({ bytes }, i): BufferSpec => ({
        name: `b${i}`,
        type: { dtype: "bool", shape: [bytes] },
        kind: "activation",
      }),
    ),
    instructions: Array.from({ length: times }, (_, time): Instruction[] => [
      run(ids.filter((id) => lives[id]?.start === time)),
      ...ids.filter((id) => lives[id]?.end === time).map((buffer): Instruction => ({ kind: "free", buffer })),
    ]).flat(),
  };
}

const someLives = fc.array(
  fc
    .tuple(fc.integer({ min: 1, max: 1000 }), fc.nat(30), fc.nat(10))
    .map(([bytes, start, length]): Life => ({ bytes, start, end: start + length })),
  { maxLength: 40 },
);

const aligned = (bytes: number): number => 64 * Math.ceil(bytes / 64);

test("buffers that live at the same time never overlap, lie in the arena and are aligned", () => {
  fc.assert(
    fc.property(someLives, (lives) => {
      const { offsets, arenaBytes } = planMemory(programOf(lives));
      lives.forEach((a, i) => {
        const at = offsets.get(i) ?? Number.NaN;
        expect(at % 64).toBe(0);
        expect(at + a.bytes).toBeLessThanOrEqual(arenaBytes);
        lives.slice(0, i).forEach((b, j) => {
          const other = offsets.get(j) ?? Number.NaN;
          const isApart =
            a.end < b.start || b.end < a.start || at + a.bytes <= other || other + b.bytes <= at;
          expect(isApart).toBe(true);
        });
      });
    }),
  );
});

test("the lower bound is the most that lives at one time, and no arena is smaller", () => {
  fc.assert(
    fc.property(someLives, (lives) => {
      const { lowerBound, arenaBytes, liveBytes } = planMemory(programOf(lives));
      const sums = lives.map(({ start: time }) =>
        lives.reduce(
          (sum, { bytes, start, end }) => sum + (start <= time && time <= end ? aligned(bytes) : 0),
          0,
        ),
      );
      expect(lowerBound).toBe(Math.max(0, ...sums));
      expect(Math.max(0, ...liveBytes)).toBe(lowerBound);
      expect(arenaBytes).toBeGreaterThanOrEqual(lowerBound);
    }),
  );
});

test("buffers of equal size need no more than the lower bound", () => {
  fc.assert(
    fc.property(someLives, (lives) => {
      const { lowerBound, arenaBytes } = planMemory(
        programOf(lives.map((life) => ({ ...life, bytes: 100 }))),
      );
      expect(arenaBytes).toBe(lowerBound);
    }),
  );
});

test("the better of two rules is taken", () => {
  /* Best fit puts c at 128, behind the hole that a leaves, so that d does not fit below it; largest first starts with d. */
  const lives = [
    { bytes: 128, start: 0, end: 1 },
    { bytes: 64, start: 1, end: 2 },
    { bytes: 192, start: 2, end: 3 },
  ];
  const { arenaBytes, lowerBound } = planMemory(programOf(lives));
  expect([arenaBytes, lowerBound]).toEqual([256, 256]);
});

test("the arenas of real programs are at most 1.3 times the lower bound", () => {
  for (const choice of choices().filter((_choice, i) => i % 5 === 0)) {
    for (const program of realPrograms(choice)) {
      const { arenaBytes, lowerBound } = planMemory(program);
      expect(arenaBytes).toBeLessThanOrEqual(1.3 * lowerBound);
    }
  }
});

test("a small program's memory is what one counts by hand", () => {
  const [program] = edited(twoDevices) as [Program];
  const plan = planMemory(program);
  expect(plan.bytesByKind).toEqual({
    parameter: 8,
    optimizer: 0,
    statistic: 0,
    gradient: 8,
    result: 0,
    data: 16,
    scalar: 4,
    constant: 0,
    activation: 64,
  });
  expect([plan.arenaBytes, plan.lowerBound, plan.peakBytes]).toEqual([64, 64, 100]);
  expect(plan.liveBytes).toEqual([64, 64, 0, 64, 64, 0, 64, 64, 0, 64, 64, 0, 64, 64, 64, 64, 0, 0]);
  expect([...plan.offsets]).toEqual([3, 4, 5, 6, 8].map((buffer) => [buffer, 0]));
});

test("views take no memory of their own and keep their owner alive", () => {
  const plan = planMemory(parsePrograms(stackedRows)[0] as Program);
  expect([...plan.offsets.keys()]).toEqual([3]);
  expect([plan.bytesByKind.data, plan.liveBytes]).toEqual([32, [64, 64, 64, 0]]);
});
