/** Orders groups so that values flow forward, and cuts an order into stages. */

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

/**
 * Runs of `units` (in an order as of `unitsInOrder`) on one device, as few as a greedy choice finds: a run goes on as long as some unit
 * of its device has all it needs.
 */
export function runsOf(
  units: readonly (readonly string[])[],
  edges: readonly GroupEdge[],
  deviceOf: (group: string) => string,
): readonly { readonly device: string; readonly groups: readonly string[] }[] {
  const runs: { device: string; groups: string[] }[] = [];
  const waiting = [...units];
  while (waiting.length > 0) {
    const held = new Set(waiting.flat());
    const isReady = (unit: readonly string[]): boolean =>
      edges.every(({ from, to }) => !unit.includes(to) || unit.includes(from) || !held.has(from));
    const device = runs.at(-1)?.device;
    const ready = waiting.filter(isReady);
    const next = ready.find(([group]) => group !== undefined && deviceOf(group) === device) ?? ready[0];
    const unit = next ?? (waiting[0] as readonly string[]);
    waiting.splice(waiting.indexOf(unit), 1);
    const place = deviceOf(unit[0] as string);
    if (place === device) runs.at(-1)?.groups.push(...unit);
    else runs.push({ device: place, groups: [...unit] });
  }
  return runs;
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
