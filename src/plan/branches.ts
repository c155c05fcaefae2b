/**
 * Places parallel branches on different devices: for few units, every assignment of units to devices is tried, and judged by the time
 * that one item takes through the branches and back.
 *
 *     user  ──┐                 cpu:0 | user          | user
 *             ├─ score          cpu:1 | item  score   | score item        the towers work at the same time
 *     item  ──┘
 */

import type { GroupEdge } from "../layout/order.ts";
import { type BalanceUnit, type PlanDevice, speedOf } from "./balance.ts";

export interface BranchProblem {
  /** In an order in which values flow forward. */
  readonly units: readonly BalanceUnit[];
  readonly edges: readonly GroupEdge[];
  readonly devices: readonly PlanDevice[];
}

/** More assignments than these are not tried. */
const mostAssignments = 20_000;

/** An assignment: the index of the device of each unit. */
export type Assignment = readonly number[];

/**
 * Of the assignments to as many devices as there are units for, the one with the shortest time of one item and the one with the least loaded busiest device; each with the fewest edges between
 * devices among equals, and the first found then. None where there are more than `mostAssignments`.
 */
export function branchAssignments(problem: BranchProblem): readonly Assignment[] {
  const { units, devices } = problem;
  if (devices.length ** units.length > mostAssignments) return [];
  const before = unitsBefore(problem);
  const goals = [
    (assignment: Assignment) => itemTime(problem, before, assignment),
    (assignment: Assignment) => busiest(problem, assignment),
  ];
  const best: { assignment: Assignment; value: number; cuts: number }[] = [];
  for (let code = 0; code < devices.length ** units.length; code++) {
    const assignment = units.map((_, i) => Math.floor(code / devices.length ** i) % devices.length);
    if (new Set(assignment).size < Math.min(devices.length, units.length)) continue;
    const cuts = before.reduce(
      (sum, needs, i) => sum + needs.filter((need) => assignment[need] !== assignment[i]).length,
      0,
    );
    goals.forEach((goal, g) => {
      const value = goal(assignment);
      const known = best[g];
      if (known !== undefined && !isBetter({ value, cuts }, known)) return;
      best[g] = { assignment, value, cuts };
    });
  }
  return best.map(({ assignment }) => assignment);
}

function isBetter(
  a: { readonly value: number; readonly cuts: number },
  b: { readonly value: number; readonly cuts: number },
): boolean {
  if (Math.abs(a.value - b.value) > 1e-9 * b.value) return a.value < b.value;
  return a.cuts < b.cuts;
}

/** For each unit the units whose values it uses. */
function unitsBefore({ units, edges }: BranchProblem): readonly (readonly number[])[] {
  const indexOf = new Map(units.flatMap(({ groups }, i) => groups.map((group) => [group, i] as const)));
  return units.map(({ groups }, i) => {
    const makers = edges.flatMap(({ from, to }) => (groups.includes(to) ? (indexOf.get(from) ?? []) : []));
    return [...new Set(makers)].filter((maker) => maker !== i);
  });
}

/** One item forward in order and, with twice the time, backward: forward and backward mirror each other, so forward decides. */
function itemTime(
  { units, devices }: BranchProblem,
  before: readonly (readonly number[])[],
  assignment: Assignment,
): number {
  const free = devices.map(() => 0);
  const ends: number[] = [];
  units.forEach(({ seconds }, i) => {
    const device = assignment[i] as number;
    const ready = (before[i] ?? []).reduce(
      (time, need) => Math.max(time, ends[need] ?? 0),
      free[device] ?? 0,
    );
    ends[i] = ready + seconds / speedOf(devices[device] as PlanDevice);
    free[device] = ends[i] as number;
  });
  return Math.max(0, ...ends);
}

function busiest({ units, devices }: BranchProblem, assignment: Assignment): number {
  return devices.reduce((most, device, d) => {
    const load = units.reduce((sum, { seconds }, i) => sum + (assignment[i] === d ? seconds : 0), 0);
    return Math.max(most, load / speedOf(device));
  }, 0);
}
