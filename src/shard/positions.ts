/**
 * Where sums over a domain axis go: every rank gets those of its own positions, where values of this shape have their positions split. So
 * the gradients of what an attention gathers, its keys and values, are dealt out again:
 *
 *     forward    k own ── all-gather ──► k whole          backward    dk partial ── reduce-scatter ──► dk own
 */

import { axesOf, isSplit, type Sharding, sizeOfFactors } from "./sharding.ts";
import type { Site } from "./site.ts";

/** Remembers how a result lies whose positions are split. */
export function notePositions({ place, positions }: Site, { dims }: Sharding): void {
  if (dims.some(isPositions)) positions.set(keyOf(place.stage, dims), dims);
}

/** How an operand lies that may not stay partial, once it is added up along the domain axes. */
export function addedUp({ place, positions }: Site, own: Sharding | undefined): Sharding | undefined {
  if (own === undefined || own.partial.length === 0) return own;
  const known = positions.get(keyOf(place.stage, own.dims));
  const dims = own.dims.map((factors, dim) => {
    const noted = known?.[dim] ?? factors;
    const isMet = isPositions(noted) && axesOf(noted).every((axis) => own.partial.includes(axis));
    return isMet && !isSplit(factors) ? noted : factors;
  });
  return dims.some((factors, dim) => factors !== own.dims[dim]) ? { dims, partial: [] } : own;
}

function isPositions(factors: Sharding["dims"][number]): boolean {
  return axesOf(factors).some((axis) => axis !== "tensor");
}

function keyOf(stage: number, dims: Sharding["dims"]): string {
  return `${stage} ${dims.map(sizeOfFactors)}`;
}
