/** Orders groups so that values flow forward, and cuts an order into stages. */

import { invariant } from "../base/errors.ts";
import type { LayoutStage } from "./layout.ts";

/** One group gives a value to another. */
export interface GroupEdge {
  readonly from: string;
  readonly to: string;
}

/**
 * Units of `groups` in an order in which values flow forward only; otherwise as given. Groups that need each other's values in turn
 * form one unit, because no order of stages could separate them.
 */
export function unitsInOrder(
  groups: readonly string[],
  edges: readonly GroupEdge[],
): readonly (readonly string[])[] {
  const reached = new Map(groups.map((group) => [group, reachedFrom(group, edges)]));
  const reaches = (from: string, to: string): boolean => reached.get(from)?.has(to) === true;
  const units: (readonly string[])[] = [];
  const waiting = new Set(groups);
  while (waiting.size > 0) {
    const isFirst = (group: string): boolean =>
      [...waiting].every((other) => !reaches(other, group) || reaches(group, other));
    const [next] = [...waiting].filter(isFirst);
    const unit = [...waiting].filter(
      (group) => group === next || (reaches(next as string, group) && reaches(group, next as string)),
    );
    units.push(unit);
    for (const group of unit) waiting.delete(group);
  }
  return units;
}

/** Groups that one device works on in one go. */
export interface Run {
  readonly device: string;
  readonly groups: readonly string[];
}

/**
 * Runs of `units` (in an order as of `unitsInOrder`) on one device, as few as a greedy choice finds: a run goes on as long as some unit
 * of its device has all it needs. It ends before a unit that must wait for another device when what came before need not, so that
 * parallel branches can work at the same time:
 *
 *     cpu:0 | user              and not       cpu:0 | user
 *     cpu:1 | item ; score                    cpu:1 |      item score
 */
export function runsOf(
  units: readonly (readonly string[])[],
  edges: readonly GroupEdge[],
  deviceOf: (group: string) => string,
): readonly Run[] {
  const runs: { device: string; groups: string[]; needs: Set<number> }[] = [];
  const runOf = new Map<string, number>();
  const waiting = [...units];
  while (waiting.length > 0) {
    const last = runs.at(-1);
    const unit = nextUnit(waiting, edges, (group) => deviceOf(group) === last?.device);
    waiting.splice(waiting.indexOf(unit), 1);
    const device = deviceOf(unit[0] as string);
    const makers = edges.flatMap(({ from, to }) => (unit.includes(to) ? (runOf.get(from) ?? []) : []));
    const needs = new Set(makers.flatMap((run) => [run, ...(runs[run]?.needs ?? [])]));
    const isOwn = (run: number): boolean => run === runs.length - 1;
    const goesOn = last?.device === device && [...needs].every((run) => isOwn(run) || last.needs.has(run));
    if (last !== undefined && goesOn) last.groups.push(...unit);
    else runs.push({ device, groups: [...unit], needs });
    for (const group of unit) runOf.set(group, runs.length - 1);
  }
  return runs.map(({ device, groups }) => ({ device, groups }));
}

/** Runs as stages that are not split. */
export function stagesOf(runs: readonly Run[]): readonly LayoutStage[] {
  return runs.map(({ device, groups }) => ({ devices: [device], groups }));
}

/** The first of the units that have all they need, one on the current device before others. */
function nextUnit(
  waiting: readonly (readonly string[])[],
  edges: readonly GroupEdge[],
  isHere: (group: string) => boolean,
): readonly string[] {
  const held = new Set(waiting.flat());
  const ready = waiting.filter((unit) =>
    edges.every(({ from, to }) => !unit.includes(to) || unit.includes(from) || !held.has(from)),
  );
  const found = ready.find(([group]) => group !== undefined && isHere(group)) ?? ready[0];
  invariant(found !== undefined, "units that need each other in turn are one unit");
  return found;
}

/** Whether some two units are in parallel branches: neither needs the other. */
export function hasBranches(units: readonly (readonly string[])[], edges: readonly GroupEdge[]): boolean {
  return units.slice(1).some((unit, i) => {
    const before = units[i] as readonly string[];
    const reached = new Set(before.flatMap((group) => [...reachedFrom(group, edges)]));
    return !unit.some((group) => reached.has(group));
  });
}

function reachedFrom(group: string, edges: readonly GroupEdge[]): ReadonlySet<string> {
  const reached = new Set<string>();
  const open = [group];
  while (open.length > 0) {
    const from = open.pop();
    for (const edge of edges) {
      if (edge.from !== from || reached.has(edge.to)) continue;
      reached.add(edge.to);
      open.push(edge.to);
    }
  }
  return reached;
}
