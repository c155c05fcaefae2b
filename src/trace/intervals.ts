/**
 * Sets of instants on the time line, kept as sorted intervals that neither touch nor overlap. Statistics are sums
 * over such sets, so that overlapping events never count twice.
 */

/** From `start` up to `end`, in any unit; `start < end`. */
export interface Interval {
  readonly start: number;
  readonly end: number;
}

/** Sorted by time, each ending before the next starts. */
export type IntervalSet = readonly Interval[];

/** The set covered by intervals in any order; empty ones vanish. */
export function union(intervals: readonly Interval[]): IntervalSet {
  const merged: { start: number; end: number }[] = [];
  const sorted = intervals.filter(({ start, end }) => end > start).toSorted((a, b) => a.start - b.start);
  for (const { start, end } of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else merged.push({ start, end });
  }
  return merged;
}

/** What is in both sets. Finds its place in `a` by bisection: cheap for a short `b`. */
export function intersection(a: IntervalSet, b: IntervalSet): IntervalSet {
  const common: Interval[] = [];
  for (const window of b) {
    for (let i = firstEndingAfter(a, window.start); i < a.length; i++) {
      const current = a[i];
      if (current === undefined || current.start >= window.end) break;
      common.push({
        start: Math.max(current.start, window.start),
        end: Math.min(current.end, window.end),
      });
    }
  }
  return common;
}

/** What is in `a` and not in `b`. */
export function difference(a: IntervalSet, b: IntervalSet): IntervalSet {
  const rest: Interval[] = [];
  for (const { start, end } of a) {
    let from = start;
    for (let i = firstEndingAfter(b, start); i < b.length; i++) {
      const hole = b[i];
      if (hole === undefined || hole.start >= end) break;
      if (hole.start > from) rest.push({ start: from, end: hole.start });
      from = Math.max(from, hole.end);
    }
    if (from < end) rest.push({ start: from, end });
  }
  return rest;
}

/** The length of the whole set. */
export function total(set: IntervalSet): number {
  return set.reduce((sum, { start, end }) => sum + end - start, 0);
}

/**
 * For k = 0, 1, ... how long exactly k of the sets are active within `window`; one entry more than there are sets,
 * adding up to the length of the window.
 */
export function overlapHistogram(sets: readonly IntervalSet[], window: IntervalSet): readonly number[] {
  const changes = sets
    .flatMap((set) => intersection(set, window))
    .flatMap(({ start, end }) => [
      { time: start, by: 1 },
      { time: end, by: -1 },
    ])
    .toSorted((a, b) => a.time - b.time || a.by - b.by);
  const times = Array.from({ length: sets.length + 1 }, () => 0);
  let active = 0;
  let since = 0;
  for (const { time, by } of changes) {
    if (active > 0) times[active] = (times[active] ?? 0) + time - since;
    active += by;
    since = time;
  }
  times[0] = Math.max(0, total(window) - times.reduce((sum, time) => sum + time, 0));
  return times;
}

function firstEndingAfter(set: IntervalSet, time: number): number {
  let low = 0;
  let high = set.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((set[middle]?.end ?? 0) > time) high = middle;
    else low = middle + 1;
  }
  return low;
}
