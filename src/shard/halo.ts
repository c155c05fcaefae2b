/**
 * Rows of an image beyond the own slab: the neighbours on the mesh slice off what is missing, the rank itself puts the rows together.
 *
 *     rank 0   0 1 2 3              needs 0 … 4   →   own 0 1 2 3, and 4 of rank 1
 *     rank 1           4 5 6        needs 3 … 7   →   3 of rank 0, own 4 5 6, and 7 of rank 2
 *     rank 2                 7 8 9  needs 6 … 9   →   6 of rank 1, own 7 8 9
 *
 * Dryden et al. 2019, "Improving Strong-Scaling of CNN Training by Exploiting Finer-Grained Parallelism".
 */

import { concat, sliceDim } from "../graph/functions.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Axis, coordinate, ranksAlong } from "./mesh.ts";
import { onEach, onRank, type Place } from "./sharded.ts";
import { share } from "./sharding.ts";

/** Indices `start` to `stop` (exclusive) along one dim; none where they meet or cross. */
export interface Span {
  readonly start: number;
  readonly stop: number;
}

export function isEmpty({ start, stop }: Span): boolean {
  return stop <= start;
}

/** What rank `at` of the axis has of a dim of `size` elements in even shares. */
export function slabOf(size: number, axis: Axis, at: number): Span {
  const [start, length] = share(size, axis, at);
  return { start, stop: start + length };
}

/** The most elements that a rank needs beyond its slab on one side, where the slab of the neighbour there has fewer. */
export interface WideHalo {
  readonly halo: number;
  readonly slab: number;
  /** Position along the axis of that neighbour. */
  readonly neighbour: number;
}

/** The widest halo that reaches past a neighbour's slab; `spans` are what is needed, by position along the axis. */
export function wideHalo(size: number, axis: Axis, spans: readonly Span[]): WideHalo | undefined {
  const wide = spans.flatMap((span, at): readonly WideHalo[] => {
    if (isEmpty(span)) return [];
    const own = slabOf(size, axis, at);
    const sides = [
      { halo: own.start - span.start, neighbour: at - 1 },
      { halo: span.stop - own.stop, neighbour: at + 1 },
    ];
    return sides.flatMap(({ halo, neighbour }) => {
      const { start, stop } = slabOf(size, axis, neighbour);
      return halo > 0 && halo > stop - start ? [{ halo, neighbour, slab: stop - start }] : [];
    });
  });
  return wide.toSorted((a, b) => b.halo - a.halo)[0];
}

/** Cuts `spans` (by position along the axis) out of dim `dim`, which all ranks have whole; who needs nothing keeps what it has. */
export function cutSpans(
  place: Place,
  parts: readonly Tensor[],
  dim: number,
  axis: Axis,
  spans: readonly Span[],
): readonly Tensor[] {
  return onEach(place, (rank) => {
    const part = parts[rank] as Tensor;
    const span = spans[coordinate(place.mesh, rank, axis.axis)] as Span;
    return isEmpty(span) ? part : sliceDim(part, dim, span.start, span.stop);
  });
}

/** Collects `spans` (by position along the axis) of dim `dim`, of which every rank has its slab; who needs nothing keeps what it has. */
export function collectSpans(
  place: Place,
  parts: readonly Tensor[],
  { dim, size }: { readonly dim: number; readonly size: number },
  axis: Axis,
  spans: readonly Span[],
): readonly Tensor[] {
  const collected: Tensor[] = [];
  for (const ranks of ranksAlong(place.mesh, [axis.axis])) {
    ranks.forEach((rank, at) => {
      const span = spans[at] as Span;
      const pieces = ranks.flatMap((other, otherAt) => {
        const slab = slabOf(size, axis, otherAt);
        const [start, stop] = [Math.max(span.start, slab.start), Math.min(span.stop, slab.stop)];
        if (stop <= start) return [];
        const part = parts[other] as Tensor;
        return [onRank(place, other, () => sliceDim(part, dim, start - slab.start, stop - slab.start))];
      });
      collected[rank] =
        pieces.length === 0 ? (parts[rank] as Tensor) : onRank(place, rank, () => concat(pieces, dim));
    });
  }
  return collected;
}
