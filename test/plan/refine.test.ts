import fc from "fast-check";
import { expect, test } from "vitest";
import type { LayoutStage } from "../../src/layout/layout.ts";
import { type Moves, otherCuts, otherShares, refine } from "../../src/plan/refine.ts";

interface Placed {
  readonly layout: { readonly stages: readonly LayoutStage[] };
  readonly seconds: number;
}

function stagesOf(sizes: readonly number[]): readonly LayoutStage[] {
  let from = 0;
  return sizes.map((size, i) => {
    const groups = Array.from({ length: size }, (_, k) => `g${from + k}`);
    from += size;
    return { devices: [`cpu:${i % 2}`], groups };
  });
}

const sizesOf = (stages: readonly LayoutStage[]): readonly number[] =>
  stages.map(({ groups }) => groups.length);

function timed(stages: readonly LayoutStage[], time: (sizes: readonly number[]) => number): Placed {
  return { layout: { stages }, seconds: time(sizesOf(stages)) };
}

const unitsOf = (count: number) => Array.from({ length: count }, (_, i) => [`g${i}`]);

const cutsOf =
  (units: readonly (readonly string[])[]): Moves =>
  (stages) =>
    otherCuts(stages, units);

test("parts of a mesh move from one device to the next; equal shares are not written", () => {
  const mesh = (shares?: readonly number[]): LayoutStage => ({
    devices: ["cpu:0", "cpu:1", "cpu:2"],
    mesh: { tensor: 3 },
    ...(shares && { shares }),
    groups: ["all"],
  });
  const towards =
    (wanted: readonly number[]) =>
    (stages: readonly LayoutStage[]): Placed => {
      const { shares = [16, 16, 16] } = stages[0] as LayoutStage;
      return {
        layout: { stages },
        seconds: 50 + shares.reduce((sum, share, i) => sum + Math.abs(share - (wanted[i] ?? 0)), 0),
      };
    };
  const time = towards([20, 15, 13]);
  expect(refine(time([mesh()]), otherShares, time).layout.stages).toEqual([mesh([20, 15, 13])]);
  const back = towards([16, 16, 16]);
  expect(refine(back([mesh([20, 15, 13])]), otherShares, back).layout.stages).toEqual([mesh()]);
  expect(otherShares([{ devices: ["cpu:0"], groups: ["all"] }])).toEqual([]);
});

test("units move until every stage has the size that is fastest, however far that is", () => {
  const wanted = [1, 2, 5, 4];
  const time = (sizes: readonly number[]) =>
    10 + sizes.reduce((sum, size, i) => sum + Math.abs(size - (wanted[i] ?? 0)), 0);
  const found = refine(timed(stagesOf([4, 4, 2, 2]), time), cutsOf(unitsOf(12)), (stages) =>
    timed(stages, time),
  );
  expect(sizesOf(found.layout.stages)).toEqual(wanted);
  expect(found.layout.stages.map(({ devices }) => devices[0])).toEqual(["cpu:0", "cpu:1", "cpu:0", "cpu:1"]);
  expect(found.layout.stages.flatMap(({ groups }) => groups)).toEqual(unitsOf(12).flat());
});

test("a unit may go through a stage, where neither of the two moves alone would help", () => {
  const time = ([first = 0, , third = 0]: readonly number[]) => 10 + Math.max(first, 4 - third);
  const start = timed(stagesOf([3, 2, 1]), (sizes) => (sizes[1] === 2 ? time(sizes) : 100));
  const found = refine(start, cutsOf(unitsOf(6)), (stages) =>
    timed(stages, (sizes) => (sizes[1] === 2 ? time(sizes) : 100)),
  );
  expect(sizesOf(found.layout.stages)).toEqual([1, 2, 3]);
});

test("groups that need each other move together, and what is not allowed is not done", () => {
  const units = [["a"], ["b", "c"], ["d"]];
  const start: Placed = {
    layout: {
      stages: [
        { devices: ["cpu:0"], groups: ["a", "b", "c"] },
        { devices: ["cpu:1"], groups: ["d"] },
      ],
    },
    seconds: 3,
  };
  const few = (stages: readonly LayoutStage[]): Placed => ({
    layout: { stages },
    seconds: stages[0]?.groups.length ?? 0,
  });
  expect(refine(start, cutsOf(units), few).layout.stages.map(({ groups }) => groups)).toEqual([
    ["a"],
    ["b", "c", "d"],
  ]);
  expect(refine(start, cutsOf(units), () => undefined)).toBe(start);
});

test("stages that do not follow the units in their order stay as they are", () => {
  const start = timed(
    [
      { devices: ["cpu:0"], groups: ["g1"] },
      { devices: ["cpu:1"], groups: ["g0", "g2"] },
    ],
    () => 5,
  );
  const attempts: unknown[] = [];
  const found = refine(start, cutsOf(unitsOf(3)), (stages) => {
    attempts.push(stages);
    return timed(stages, () => 1);
  });
  expect(found).toBe(start);
  expect(attempts).toEqual([]);
});

test("whatever the times, the result is no slower, keeps all groups in order, and leaves no stage empty", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 2, maxLength: 5 });
  fc.assert(
    fc.property(sizes, fc.integer(), (start, salt) => {
      const time = (of: readonly number[]) => 1 + Math.abs(Math.sin(hash(of, salt)));
      const units = unitsOf(start.reduce((sum, size) => sum + size, 0));
      const first = timed(stagesOf(start), time);
      const found = refine(first, cutsOf(units), (stages) => timed(stages, time));
      expect(found.seconds).toBeLessThanOrEqual(first.seconds);
      expect(found.layout.stages.flatMap(({ groups }) => groups)).toEqual(units.flat());
      expect(Math.min(...sizesOf(found.layout.stages))).toBeGreaterThan(0);
    }),
  );
});

function hash(sizes: readonly number[], salt: number): number {
  return sizes.reduce((sum, size) => (sum * 31 + size) % 1_000_003, Math.abs(salt) % 1000);
}
