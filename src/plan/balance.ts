/**
 * Cuts a chain of units into stages, one for each device, so that the slowest stage is as fast as possible; among those that are, the
 * one with the fewest bytes between stages. Exact, by dynamic programming over (units placed, devices used): devices may differ in speed
 * and memory, equal ones are counted, not told apart (cf. Subhlok & Vondran 1995, "Optimal mapping of sequences of data parallel tasks").
 */

import type { LayoutDevice } from "../layout/layout.ts";

/** A device as the planner sees it. */
export interface PlanDevice extends LayoutDevice {
  /** Speed of one of its threads, 1 by default; times are divided by speed x threads. */
  readonly speed?: number;
  /** Bytes that it may hold; no limit by default. */
  readonly memory?: number;
}

/** Groups that stay together, and their time for a whole step on a device of speed 1. */
export interface BalanceUnit {
  readonly groups: readonly string[];
  readonly seconds: number;
}

/** A chain of units to place; ranges are `units[from]` up to but not including `units[to]`. */
export interface BalanceProblem {
  /** In the order in which values flow. */
  readonly units: readonly BalanceUnit[];
  readonly devices: readonly PlanDevice[];
  /** Bytes that arrive at a range from all others in a step. */
  readonly incoming: (from: number, to: number) => number;
  /** Bytes that a range needs as stage `stage` of `stages`; left out where no device has a limit. */
  readonly memory?: (from: number, to: number, stage: number, stages: number) => number;
}

/** The stages of a chain in order; or by how many bytes the best placement exceeds a device. */
export type Balance =
  | {
      readonly fits: true;
      readonly stages: readonly BalancedStage[];
      /** Time of the slowest stage. */
      readonly seconds: number;
    }
  | { readonly fits: false; readonly stage: BalancedStage; readonly needs: number; readonly lacks: number };

export interface BalancedStage {
  readonly device: PlanDevice;
  readonly from: number;
  readonly to: number;
}

/** Threads x relative speed. */
export function speedOf({ threads, speed = 1 }: PlanDevice): number {
  return threads * speed;
}

/**
 * The best stages for as many of the devices as help: all of them where they are equal, fewer where there are fewer units or where a
 * slow device would hold up the others.
 */
export function balance(problem: BalanceProblem): Balance {
  const { units, devices } = problem;
  const kinds = kindsOf(devices);
  const most = Math.min(devices.length, units.length);
  const loads = prefixSums(units.map(({ seconds }) => seconds));
  const seconds = (from: number, to: number, device: PlanDevice): number =>
    ((loads[to] ?? 0) - (loads[from] ?? 0)) / speedOf(device);
  let best: Cut | undefined;
  for (let stages = most; stages >= 1; stages--) {
    const cost: StageCost = (from, to, stage, device) =>
      excess(problem, from, to, stage, stages, device) > 0
        ? Number.POSITIVE_INFINITY
        : seconds(from, to, device);
    const fastest = cutChain(units.length, stages, kinds, cost, Math.max);
    if (fastest === undefined || (best !== undefined && fastest.value >= best.value * (1 - tolerance)))
      continue;
    const limit = fastest.value * (1 + tolerance);
    const near: StageCost = (from, to, stage, device) =>
      cost(from, to, stage, device) <= limit ? problem.incoming(from, to) : Number.POSITIVE_INFINITY;
    const closest = cutChain(units.length, stages, kinds, near, (a, b) => a + b) ?? fastest;
    best = { ...closest, value: fastest.value };
  }
  return best === undefined
    ? leastLack(problem, kinds, most)
    : { fits: true, stages: named(best.stages, kinds), seconds: best.value };
}

/** Relative difference below which two times are the same. */
const tolerance = 1e-9;

interface Kind {
  readonly device: PlanDevice;
  readonly members: readonly PlanDevice[];
}

type StageCost = (from: number, to: number, stage: number, device: PlanDevice) => number;

interface Cut {
  readonly value: number;
  readonly stages: readonly { readonly kind: number; readonly from: number; readonly to: number }[];
}

function kindsOf(devices: readonly PlanDevice[]): readonly Kind[] {
  const kinds = new Map<string, PlanDevice[]>();
  for (const device of devices) {
    const key = `${speedOf(device)} ${device.memory}`;
    kinds.set(key, [...(kinds.get(key) ?? []), device]);
  }
  return [...kinds.values()].map((members) => ({ device: members[0] as PlanDevice, members }));
}

/**
 * The cut of `count` units into `stages` ranges, each on a device of its own, with the smallest total of `cost`; totals are made by
 * `combine` (max or sum). Undefined where every one is infinite.
 */
function cutChain(
  count: number,
  stages: number,
  kinds: readonly Kind[],
  cost: StageCost,
  combine: (a: number, b: number) => number,
): Cut | undefined {
  const known = new Map<string, Cut | undefined>();
  /** The best way to put the first `to` units on the devices `used` (counts by kind). */
  const solve = (to: number, used: readonly number[]): Cut | undefined => {
    const stage = used.reduce((sum, uses) => sum + uses, 0);
    if (stage === 0) return to === 0 ? { value: 0, stages: [] } : undefined;
    const key = `${to} ${used}`;
    if (known.has(key)) return known.get(key);
    let best: Cut | undefined;
    used.forEach((uses, kind) => {
      if (uses === 0) return;
      const before = used.with(kind, uses - 1);
      for (let from = stage - 1; from < to; from++) {
        const rest = solve(from, before);
        if (rest === undefined) continue;
        const value = combine(rest.value, cost(from, to, stage - 1, (kinds[kind] as Kind).device));
        if (value < (best?.value ?? Number.POSITIVE_INFINITY))
          best = { value, stages: [...rest.stages, { kind, from, to }] };
      }
    });
    known.set(key, best);
    return best;
  };
  let best: Cut | undefined;
  for (const used of choices(stages, kinds)) {
    const cut = solve(count, used);
    if (cut !== undefined && cut.value < (best?.value ?? Number.POSITIVE_INFINITY)) best = cut;
  }
  return best;
}

/** All ways to take `count` devices: how many of each kind. */
function choices(count: number, kinds: readonly Kind[]): readonly (readonly number[])[] {
  const [first, ...others] = kinds;
  if (first === undefined) return count === 0 ? [[]] : [];
  return Array.from({ length: Math.min(count, first.members.length) + 1 }, (_, taken) => taken)
    .toReversed()
    .flatMap((taken) => choices(count - taken, others).map((rest) => [taken, ...rest]));
}

/** Bytes by which a stage exceeds its device. */
function excess(
  { memory }: BalanceProblem,
  from: number,
  to: number,
  stage: number,
  stages: number,
  device: PlanDevice,
): number {
  if (memory === undefined || device.memory === undefined) return 0;
  return Math.max(0, memory(from, to, stage, stages) - device.memory);
}

/** The placement whose worst device lacks the least, over all numbers of stages. */
function leastLack(problem: BalanceProblem, kinds: readonly Kind[], most: number): Balance {
  let best: (Cut & { readonly count: number }) | undefined;
  for (let count = most; count >= 1; count--) {
    const lack: StageCost = (from, to, stage, device) => excess(problem, from, to, stage, count, device);
    const cut = cutChain(problem.units.length, count, kinds, lack, Math.max);
    if (cut !== undefined && cut.value < (best?.value ?? Number.POSITIVE_INFINITY)) best = { ...cut, count };
  }
  const stages = best === undefined ? [] : named(best.stages, kinds);
  const lacks = ({ from, to, device }: BalancedStage, stage: number): number =>
    excess(problem, from, to, stage, stages.length, device);
  const worst = stages.reduce(
    (at, stage, i) => (lacks(stage, i) > lacks(stages[at] as BalancedStage, at) ? i : at),
    0,
  );
  const stage = stages[worst] as BalancedStage;
  return {
    fits: false,
    stage,
    needs: problem.memory?.(stage.from, stage.to, worst, stages.length) ?? 0,
    lacks: lacks(stage, worst),
  };
}

/** Devices of a kind in the order given. */
function named(stages: Cut["stages"], kinds: readonly Kind[]): readonly BalancedStage[] {
  const taken = kinds.map(() => 0);
  return stages.map(({ kind, from, to }) => {
    const index = taken[kind] ?? 0;
    taken[kind] = index + 1;
    return { device: kinds[kind]?.members[index] as PlanDevice, from, to };
  });
}

/** 0, then the sum of the first, of the first two, and so on. */
export function prefixSums(values: readonly number[]): readonly number[] {
  const sums = [0];
  for (const value of values) sums.push((sums.at(-1) ?? 0) + value);
  return sums;
}
