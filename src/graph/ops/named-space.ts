/** Writes an iteration space with loop names, as one would on paper, instead of indices into the list of loops. */

import type { DimIndex, IterationSpace, Loop } from "../op-rules.ts";

/** The names of the loops that index each dim of a tensor, separated by spaces, outermost first: `["n", "g c", "oh kh"]`. */
export type NamedIndex = readonly string[];

/** The iteration space over `loops`; a name that no loop has is left out, so that an optional loop needs no special case. */
export function namedSpace(
  loops: readonly Loop[],
  operands: readonly NamedIndex[],
  results: readonly NamedIndex[],
  flopsPerPoint: number,
): IterationSpace {
  const positions = new Map(loops.map((loop, position) => [loop.name, position]));
  const resolve = (index: NamedIndex): readonly DimIndex[] =>
    index.map((names) => names.split(" ").flatMap((name) => positions.get(name) ?? []));
  return { loops, operands: operands.map(resolve), results: results.map(resolve), flopsPerPoint };
}
