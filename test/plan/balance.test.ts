import fc from "fast-check";
import { expect, test } from "vitest";
import { type BalanceProblem, balance, type PlanDevice, speedOf } from "../../src/plan/balance.ts";

interface Case {
  readonly seconds: readonly number[];
  readonly devices: readonly PlanDevice[];
  readonly bytes: readonly number[];
  readonly memory: readonly number[];
}

function problemOf({ seconds, devices, bytes, memory }: Case): BalanceProblem {
  return {
    units: seconds.map((time, i) => ({ groups: [`g${i}`], seconds: time })),
    devices,
    incoming: (from) => (from === 0 ? 0 : (bytes[from] ?? 0)),
    memory: (from, to, stage, stages) =>
      memory.slice(from, to).reduce((sum, size) => sum + size, 0) * (stages - stage),
  };
}

interface Solution {
  readonly slowest: number;
  readonly bytes: number;
  readonly stages: number;
}

/** Every cut into ranges on every choice and order of devices; of equally fast ones those with the most stages count. */
function bruteForce(problem: BalanceProblem): Solution | undefined {
  const most = Math.min(problem.devices.length, problem.units.length);
  let best: Solution | undefined;
  for (let stages = most; stages >= 1; stages--) {
    for (const found of solutions(problem, 0, problem.devices, stages, 0)) {
      const isFaster = best === undefined || found.slowest < best.slowest;
      const isCloser = best?.slowest === found.slowest && best.stages === stages && found.bytes < best.bytes;
      if (isFaster || isCloser) best = { ...found, stages };
    }
  }
  return best;
}

function solutions(
  problem: BalanceProblem,
  from: number,
  left: readonly PlanDevice[],
  stages: number,
  stage: number,
): readonly Solution[] {
  const count = problem.units.length;
  if (stage === stages) return from === count ? [{ slowest: 0, bytes: 0, stages }] : [];
  const ends = Array.from({ length: count - from }, (_, i) => from + i + 1);
  return left.flatMap((device) => {
    const others = left.filter((other) => other !== device);
    return ends
      .filter(
        (to) =>
          (problem.memory?.(from, to, stage, stages) ?? 0) <= (device.memory ?? Number.POSITIVE_INFINITY),
      )
      .flatMap((to) => {
        const load = problem.units.slice(from, to).reduce((sum, { seconds }) => sum + seconds, 0);
        return solutions(problem, to, others, stages, stage + 1).map((rest) => ({
          slowest: Math.max(rest.slowest, load / speedOf(device)),
          bytes: rest.bytes + problem.incoming(from, to),
          stages,
        }));
      });
  });
}

const whole = (max: number) => fc.integer({ min: 1, max });
const device: fc.Arbitrary<Omit<PlanDevice, "name">> = fc.record({
  threads: fc.constantFrom(1, 2),
  speed: fc.constantFrom(1, 2, 4),
  memory: fc.constantFrom(20, 60, 1000),
});
const cases: fc.Arbitrary<Case> = fc.record({
  seconds: fc.array(whole(9), { minLength: 1, maxLength: 7 }),
  devices: fc
    .array(device, { minLength: 1, maxLength: 4 })
    .map((devices) => devices.map((entry, i) => ({ ...entry, name: `cpu:${i}` }))),
  bytes: fc.array(whole(5), { minLength: 7, maxLength: 7 }),
  memory: fc.array(whole(9), { minLength: 7, maxLength: 7 }),
});

test("the slowest stage, and then the bytes between stages, are as small as brute force finds them", () => {
  fc.assert(
    fc.property(cases, (given) => {
      const problem = problemOf(given);
      const found = balance(problem);
      const best = bruteForce(problem);
      expect(found.fits).toBe(best !== undefined);
      if (!found.fits || best === undefined) return;
      const bytes = found.stages.reduce((sum, { from, to }) => sum + problem.incoming(from, to), 0);
      expect(found.seconds).toBeCloseTo(best.slowest, 9);
      expect(bytes).toBe(best.bytes);
    }),
    { numRuns: 300 },
  );
});

test("stages cover all units in order, each on a device of its own", () => {
  fc.assert(
    fc.property(cases, (given) => {
      const found = balance(
        problemOf({ ...given, devices: given.devices.map(({ memory, ...rest }) => rest) }),
      );
      if (!found.fits) throw new Error("there is no limit");
      expect(found.stages[0]?.from).toBe(0);
      expect(found.stages.at(-1)?.to).toBe(given.seconds.length);
      for (const [i, { from }] of found.stages.slice(1).entries()) expect(from).toBe(found.stages[i]?.to);
      expect(new Set(found.stages.map((stage) => stage.device.name)).size).toBe(found.stages.length);
    }),
  );
});

test("equal devices are all used as long as there are units", () => {
  const devices = ["a", "b", "c"].map((name) => ({ name, threads: 1 }));
  const found = balance({ ...problemOf({ seconds: [1, 1, 9, 1], devices, bytes: [], memory: [] }), devices });
  expect(found.fits && found.stages.map(({ from, to }) => [from, to])).toEqual([
    [0, 2],
    [2, 3],
    [3, 4],
  ]);
});

test("a device twice as fast gets about twice the work, wherever it stands in the list", () => {
  const devices = [
    { name: "slow", threads: 1 },
    { name: "fast", threads: 2 },
  ];
  const found = balance(problemOf({ seconds: [1, 1, 1, 1, 1, 1], devices, bytes: [], memory: [] }));
  const sizes = found.fits ? found.stages.map(({ device: { name }, from, to }) => [name, to - from]) : [];
  expect(Object.fromEntries(sizes)).toEqual({ slow: 2, fast: 4 });
});

test("a device that would hold up the others is left out", () => {
  const devices = [
    { name: "snail", threads: 1, speed: 0.01 },
    { name: "cpu:0", threads: 1 },
  ];
  const found = balance(problemOf({ seconds: [1, 1], devices, bytes: [], memory: [] }));
  expect(found.fits && found.stages.map((stage) => stage.device.name)).toEqual(["cpu:0"]);
});

test("where nothing fits, the least that can be lacking is reported", () => {
  const devices = ["a", "b"].map((name) => ({ name, threads: 1, memory: 10 }));
  const problem = { ...problemOf({ seconds: [1, 1, 1], devices, bytes: [], memory: [] }) };
  const sizes = [8, 9, 7];
  const memory = (from: number, to: number) => sizes.slice(from, to).reduce((sum, size) => sum + size, 0);
  expect(balance({ ...problem, memory })).toMatchObject({ fits: false, needs: 16, lacks: 6 });
});
