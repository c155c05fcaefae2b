/**
 * Carries splits of operands to the loops of an operation, and from the loops to its other operands and its results.
 *
 *     x [B, K/tensor] · w [K, N]     loops m: B, n: N, k: K/tensor     ⇒ w [K/tensor, N], y [B, N] + tensor
 */

import type { DimIndex, IterationSpace } from "../graph/op-rules.ts";
import type { SplitAxis } from "./mesh.ts";
import { axesOf, type Factor, type Factors, isEven, isSplit, type Sharding, tidy } from "./sharding.ts";

/** The loops that are split, by index into the space's loops. */
export type LoopFactors = ReadonlyMap<number, Factors>;

/**
 * The splits that the operands, in their order, give the loops. A loop takes the first split that fits; an axis splits one loop only.
 * `allowed` says which kinds of loops can be split here.
 */
export function loopsOf(
  space: IterationSpace,
  operands: readonly (Sharding | undefined)[],
  allowed: (loop: number) => boolean,
): LoopFactors {
  const chosen = new Map<number, Factors>();
  const taken = new Set<SplitAxis>();
  const wishes = operands.flatMap((sharding, operand) =>
    (sharding?.dims ?? []).map((factors, dim) => ({ factors, loops: space.operands[operand]?.[dim] ?? [] })),
  );
  for (const { factors, loops } of wishes) {
    if (!isSplit(factors) || axesOf(factors).some((axis) => taken.has(axis))) continue;
    const splits = splitLoops(space, loops, factors);
    if (splits?.every(([loop]) => !chosen.has(loop) && allowed(loop)) !== true) continue;
    for (const [loop, share] of splits) chosen.set(loop, share);
    for (const axis of axesOf(factors)) taken.add(axis);
  }
  return chosen;
}

/** The loops of one dim that get a split, with their factors; `undefined` where the factors cannot be dealt out to the loops. */
export function splitLoops(
  space: IterationSpace,
  loops: readonly number[],
  factors: Factors,
): readonly (readonly [number, Factors])[] | undefined {
  const sizes = loops.map((loop) => space.loops[loop]?.size ?? Number.NaN);
  const shares = deal(factors, sizes);
  return shares?.flatMap((share, i) => (isSplit(share) ? [[loops[i] as number, share] as const] : []));
}

/** The sharding of a tensor whose dims are indexed by the loops. */
export function shardingBy(
  space: IterationSpace,
  dims: readonly DimIndex[],
  shape: readonly number[],
  loops: LoopFactors,
): Sharding {
  return {
    dims: dims.map((index, dim) => {
      if (!index.some((loop) => loops.has(loop))) return [{ size: shape[dim] as number }];
      return tidy(index.flatMap((loop) => loops.get(loop) ?? [{ size: space.loops[loop]?.size ?? 1 }]));
    }),
    partial: [],
  };
}

/** Axes along which results that sum over split loops are partial. */
export function partialBy(space: IterationSpace, loops: LoopFactors): readonly SplitAxis[] {
  return [...loops].flatMap(([loop, factors]) =>
    space.loops[loop]?.kind === "reduce" ? axesOf(factors) : [],
  );
}

/**
 * Deals factors out to loops so that the sizes agree. Factors that are not split may be divided anywhere, split ones where every rank
 * then has as much of the outer part. `undefined` where that is not possible.
 */
function deal(factors: Factors, sizes: readonly number[]): readonly Factors[] | undefined {
  const left = [...factors];
  const shares = sizes.map((size) => takeShare(left, size));
  if (left.some(({ size }) => size > 1)) return undefined;
  return shares.every((share) => share !== undefined) ? shares : undefined;
}

/** Removes factors from the front of `left` whose product is `size`. */
function takeShare(left: Factor[], size: number): Factors | undefined {
  const share: Factor[] = [];
  let missing = size;
  while (missing > 1) {
    const next = left.shift();
    if (next === undefined) return undefined;
    const isWhole = missing % next.size === 0;
    const divides = next.size % missing === 0 && isEven({ ...next, size: missing });
    if (!isWhole && !divides) return undefined;
    const taken = isWhole ? next.size : missing;
    share.push({ ...next, size: taken });
    if (!isWhole) left.unshift({ size: next.size / taken });
    missing /= taken;
  }
  return share.length === 0 ? [{ size: 1 }] : share;
}
