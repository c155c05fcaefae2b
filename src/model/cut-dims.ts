/**
 * Which dims of a tensor are cut when a mini-batch is cut into items, followed through operations by their iteration spaces. A dim
 * is a product of parts, so that merging dims (a reshape) and taking them apart again loses nothing:
 *
 *     [time 4, batch 2, 8]   ── reshape ──►   [time 4 · batch 2, 8]   ── reshape ──►   [time 4, batch 2, 8]
 */

import type { IterationSpace } from "../graph/op-rules.ts";
import { sizeOf } from "../graph/shape.ts";

/** The dims of a mini-batch that can be cut: into micro-batches, and into chunks of time. */
export type CutRole = "batch" | "time";

/** What a part of a dim runs over; `fixed` is not cut. */
export interface DimPart {
  readonly role: CutRole | "fixed";
  readonly size: number;
}

/** The parts of one dim, outermost first; their product is its size. */
export type DimParts = readonly DimPart[];

/**
 * The parts of every dim of every result. `refuse` is called with a role where an operation needs all of a cut dim, or gives a result in
 * which it cannot be followed; `inOrder` is a role that the operation itself carries from item to item.
 */
export function followCuts(
  space: IterationSpace,
  operands: readonly (readonly DimParts[])[],
  inOrder: CutRole | undefined,
  refuse: (role: CutRole) => void,
): readonly (readonly DimParts[])[] {
  const sizeOfLoop = (loop: number): number => space.loops[loop]?.size ?? Number.NaN;
  const ofLoop = new Map<number, DimParts>();
  operands.flat().forEach((parts, i) => {
    const roles = rolesIn(parts);
    if (roles.length === 0) return;
    const loops = space.operands.flat()[i] ?? [];
    const shares = distribute(parts, loops.map(sizeOfLoop));
    if (shares === undefined) roles.forEach(refuse);
    else
      for (const [at, share] of shares.entries())
        if (rolesIn(share).length > 0) ofLoop.set(loops[at] as number, share);
  });
  for (const [loop, parts] of ofLoop) {
    const isFree = space.loops[loop]?.kind === "parallel";
    for (const role of rolesIn(parts)) if (!isFree && role !== inOrder) refuse(role);
  }
  const results = space.results.map((dims) =>
    dims.map((loops) => {
      const parts = loops.flatMap((loop) => ofLoop.get(loop) ?? fixed(sizeOfLoop(loop)));
      return rolesIn(parts).length > 0 ? parts : [fixed(sizeOf(parts.map(({ size }) => size)))];
    }),
  );
  for (const dims of results) {
    const roles = dims.flatMap(rolesIn);
    for (const [i, role] of roles.entries()) if (roles.indexOf(role) !== i) refuse(role);
  }
  return results;
}

/** The roles of a dim's parts that are not fixed. */
export function rolesIn(parts: DimParts): readonly CutRole[] {
  return parts.flatMap(({ role }) => (role === "fixed" ? [] : [role]));
}

export function fixed(size: number): DimPart {
  return { role: "fixed", size };
}

/** Deals parts out to loops so that the sizes agree; fixed parts may be divided. Undefined where that is not possible. */
function distribute(parts: DimParts, sizes: readonly number[]): readonly DimParts[] | undefined {
  const left = [...parts];
  const shares = sizes.map((size, i) => takeShare(left, size, i === sizes.length - 1));
  return left.length > 0 || shares.includes(undefined) ? undefined : (shares as readonly DimParts[]);
}

/** Removes parts from the front of `left` whose product is `size`. Further parts of size 1 are left for loops that come later. */
function takeShare(left: DimPart[], size: number, isLast: boolean): DimParts | undefined {
  const share: DimPart[] = [];
  let missing = size;
  for (let part = left[0]; part !== undefined; part = left[0]) {
    if (missing === 1 && (part.size > 1 || (share.length > 0 && !isLast))) break;
    const divides = missing % part.size === 0;
    if (!divides && (part.role !== "fixed" || part.size % missing !== 0)) return undefined;
    const taken = divides ? part : fixed(missing);
    left.splice(0, 1, ...(divides ? [] : [fixed(part.size / missing)]));
    share.push(taken);
    missing /= taken.size;
  }
  return missing === 1 ? share : undefined;
}
