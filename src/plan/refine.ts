/**
 * Moves the cuts between stages while that makes a step faster. Stages of equal work are a good start, but not the best where a pipeline
 * fills and drains: the first devices start while the last ones wait, and what runs last on one device may be waited for on another. What
 * several devices split between them is shared out in the same way.
 */

import type { LayoutStage } from "../layout/layout.ts";
import { partsEach, withShares } from "./shares.ts";

/** A placement and the time of its step. */
export interface Timed {
  readonly layout: { readonly stages: readonly LayoutStage[] };
  readonly seconds: number;
}

/** A move that gains a smaller part is not made. */
const smallestGain = 1e-3;

/** The placements that differ from one by one move. */
export type Moves = (stages: readonly LayoutStage[]) => readonly (readonly LayoutStage[])[];

/**
 * The placement that none of `moves` makes faster, found from `start` by always making the best one. `attempt` times stages, or finds that
 * they are not legal or do not fit.
 */
export function refine<T extends Timed>(
  start: T,
  moves: Moves,
  attempt: (stages: readonly LayoutStage[]) => T | undefined,
): T {
  let best = start;
  for (;;) {
    const moved = moves(best.layout.stages).flatMap((stages) => attempt(stages) ?? []);
    const [next] = moved.toSorted((a, b) => a.seconds - b.seconds);
    if (next === undefined || next.seconds > best.seconds * (1 - smallestGain)) return best;
    best = next;
  }
}

/**
 * All stages that differ by one unit: a stage has one more, the next or the one after has one less, and what is between moves along.
 * None where the stages do not follow the units in their order (parallel branches), or a stage would be empty; a stage on a mesh stays.
 */
export function otherCuts(
  stages: readonly LayoutStage[],
  units: readonly (readonly string[])[],
): readonly (readonly LayoutStage[])[] {
  if (stages.flatMap(({ groups }) => groups).join("\n") !== units.flat().join("\n")) return [];
  const sizes = stages.map(
    ({ groups }) => units.filter(([first]) => groups.includes(first as string)).length,
  );
  const isMeshed = (i: number): boolean => stages[i]?.mesh !== undefined;
  const moves = sizes.flatMap((_, i) =>
    [i - 2, i - 1, i + 1, i + 2].flatMap((k) => {
      const [more, less] = [sizes[i] as number, sizes[k]];
      if (less === undefined || less === 1 || isMeshed(i) || isMeshed(k)) return [];
      return [sizes.with(i, more + 1).with(k, less - 1)];
    }),
  );
  return moves.map((moved) => withSizes(stages, units, moved));
}

function withSizes(
  stages: readonly LayoutStage[],
  units: readonly (readonly string[])[],
  sizes: readonly number[],
): readonly LayoutStage[] {
  let from = 0;
  return stages.map((stage, i) => {
    const groups = units.slice(from, from + (sizes[i] as number)).flat();
    from += sizes[i] as number;
    return { ...stage, groups };
  });
}

/** All stages that differ in that a device of a mesh gives one of its parts to another one. */
export function otherShares(stages: readonly LayoutStage[]): readonly (readonly LayoutStage[])[] {
  return stages.flatMap((stage, i) => {
    const { tensor = 1 } = stage.mesh ?? {};
    const { shares = Array.from({ length: tensor }, () => partsEach) } = stage;
    return shares.flatMap((given, from) =>
      shares.flatMap((taken, to) => {
        if (from === to || given === 1) return [];
        return [stages.with(i, withShares(stage, shares.with(from, given - 1).with(to, taken + 1)))];
      }),
    );
  });
}
