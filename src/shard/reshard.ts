/**
 * From one sharding to another on one mesh, with the fewest kinds of moves:
 *
 *     partial  → whole    all-reduce          split → whole    all-gather
 *     partial  → split    reduce-scatter      whole → split    each rank keeps its part
 *
 * Collectives work on dim 0; a dim further in is moved as flat parts that are put together afterwards.
 */

import { concat, reshape, slice, split, transpose } from "../graph/functions.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Mesh, ranksWith, type SplitAxis } from "./mesh.ts";
import { onEach, type Place, type Sharded, together } from "./sharded.ts";
import {
  axesOf,
  type Factor,
  type Factors,
  isSplit,
  localShape,
  type Sharding,
  sameFactors,
  shareOf,
  tidy,
} from "./sharding.ts";

/** `value` with the sharding `target`; axes in `target.partial` must be partial already. */
export function reshard(place: Place, value: Sharded, target: Sharding): Sharded {
  const summed = addUp(place, value, target);
  const gathered = target.dims.reduce(
    (current, factors, dim) => gatherDim(place, current, dim, factors),
    summed,
  );
  return target.dims.reduce((current, factors, dim) => keepOwn(place, current, dim, factors), gathered);
}

/** Adds up along the axes that are partial and may not stay so. */
function addUp(place: Place, value: Sharded, target: Sharding): Sharded {
  const axes = value.sharding.partial.filter((axis) => !target.partial.includes(axis));
  let [rest, current] = [axes, value];
  for (const axis of axes) {
    const at = scatterPoint(current.sharding, target, axis);
    if (at === undefined) continue;
    current = reduceScatter(place, current, axis, at);
    rest = rest.filter((other) => other !== axis);
  }
  if (rest.length === 0) return current;
  const parts = together(place, rest, current.parts, () => ({ kind: "all-reduce", reduce: "sum" }));
  return { ...current, parts, sharding: withoutPartial(current.sharding, rest) };
}

function withoutPartial(sharding: Sharding, axes: readonly SplitAxis[]): Sharding {
  return { ...sharding, partial: sharding.partial.filter((axis) => !axes.includes(axis)) };
}

interface Point {
  readonly dim: number;
  readonly factors: Factors;
  readonly at: number;
}

/** The factor that `target` splits along `axis`, where all other factors of its dim are as they are now. */
function scatterPoint(now: Sharding, target: Sharding, axis: SplitAxis): Point | undefined {
  for (const [dim, factors] of target.dims.entries()) {
    const at = factors.findIndex(({ along }) => along?.axis === axis);
    if (at < 0) continue;
    const unsplit = factors.with(at, { size: (factors[at] as Factor).size });
    if (sameFactors(unsplit, now.dims[dim] as Factors)) return { dim, factors, at };
  }
  return undefined;
}

function reduceScatter(place: Place, value: Sharded, axis: SplitAxis, { dim, factors, at }: Point): Sharded {
  const { mesh } = place;
  const sharding: Sharding = {
    dims: value.sharding.dims.with(dim, factors),
    partial: value.sharding.partial.filter((other) => other !== axis),
  };
  if (isOutermost(dim, at)) {
    const sizes = (ranks: readonly number[]) =>
      ranks.map((rank) => localShape(sharding, mesh, rank)[0] as number);
    const scatter = (ranks: readonly number[]) => ({ kind: "reduce-scatter", sizes: sizes(ranks) }) as const;
    return { ...value, sharding, parts: together(place, [axis], value.parts, scatter) };
  }
  const flat = onEach(place, (rank) => {
    const part = value.parts[rank] as Tensor;
    const lengths = factors.map((factor, i) => (i === at ? factor.size : shareOf(factor, mesh, rank)[1]));
    const view = around(part.shape, dim, lengths, at);
    const sizes = ranksWith(mesh, rank, [axis]).map(
      (other) => shareOf(factors[at] as Factor, mesh, other)[1],
    );
    if (view[0] === 1) return reshape(part, [sizeOf(view)]);
    if (areEqual(sizes)) return reshape(exchanged(part, [view[0], sizes.length]), [sizeOf(view)]);
    const pieces = split(reshape(part, view), 1, sizes).map((piece) => reshape(piece, [sizeOf(piece.shape)]));
    return concat(pieces, 0);
  });
  const scattered = together(place, [axis], flat, (ranks) => ({
    kind: "reduce-scatter",
    sizes: ranks.map((rank) => sizeOf(localShape(sharding, mesh, rank))),
  }));
  const parts = onEach(place, (rank) => reshape(scattered[rank] as Tensor, localShape(sharding, mesh, rank)));
  return { ...value, sharding, parts };
}

function areEqual(sizes: readonly number[]): boolean {
  return sizes.every((size) => size === sizes[0]);
}

/** `x` as [first, second, rest], with the first two dims exchanged: how parts of equal size are put beside each other. */
function exchanged(x: Tensor, [first, second]: readonly [number, number]): Tensor {
  return transpose(reshape(x, [first, second, sizeOf(x.shape) / first / second]), [1, 0, 2]);
}

/** Whether the factor `at` of `dim` is the outermost of all, so that parts are neighbouring rows of dim 0. */
function isOutermost(dim: number, at: number): boolean {
  return dim === 0 && at === 0;
}

/** Gathers dim `dim` unless it is split as `target` says. */
function gatherDim(place: Place, value: Sharded, dim: number, target: Factors): Sharded {
  const factors = value.sharding.dims[dim] as Factors;
  if (!isSplit(factors) || sameFactors(factors, target)) return value;
  let current = value;
  for (const axis of axesOf(factors)) current = gatherAxis(place, current, dim, axis);
  return current;
}

function gatherAxis(place: Place, value: Sharded, dim: number, axis: SplitAxis): Sharded {
  const { mesh } = place;
  const factors = value.sharding.dims[dim] as Factors;
  const at = factors.findIndex(({ along }) => along?.axis === axis);
  const factor = factors[at] as Factor;
  const dims = value.sharding.dims.with(dim, tidy(factors.with(at, { size: factor.size })));
  const sharding: Sharding = { ...value.sharding, dims };
  if (isOutermost(dim, at))
    return {
      ...value,
      sharding,
      parts: together(place, [axis], value.parts, () => ({ kind: "all-gather" })),
    };
  const flat = onEach(place, (rank) => {
    const part = value.parts[rank] as Tensor;
    return reshape(part, [sizeOf(part.shape)]);
  });
  const gathered = together(place, [axis], flat, () => ({ kind: "all-gather" }));
  const parts = onEach(place, (rank) => {
    const all = gathered[rank] as Tensor;
    const shape = localShape(sharding, mesh, rank);
    const views = ranksWith(mesh, rank, [axis]).map((other) => {
      const lengths = factors.map((own) => shareOf(own, mesh, other)[1]);
      return around(localShape(value.sharding, mesh, other), dim, lengths, at);
    });
    const [outer = 1] = views[0] ?? [];
    if (outer === 1) return reshape(all, shape);
    if (areEqual(views.map((view) => sizeOf(view))))
      return reshape(exchanged(all, [views.length, outer]), shape);
    const pieces = split(
      all,
      0,
      views.map((view) => sizeOf(view)),
    ).map((piece, i) => reshape(piece, views[i] as Shape));
    return reshape(concat(pieces, 1), shape);
  });
  return { ...value, sharding, parts };
}

/** Each rank keeps its part of a dim that all have whole. */
function keepOwn(place: Place, value: Sharded, dim: number, target: Factors): Sharded {
  if (sameFactors(value.sharding.dims[dim] as Factors, target)) return value;
  const sharding: Sharding = { ...value.sharding, dims: value.sharding.dims.with(dim, target) };
  const parts = onEach(place, (rank) => cutOut(value.parts[rank] as Tensor, dim, target, place.mesh, rank));
  return { ...value, sharding, parts };
}

/** A rank's part of a dim of `x` that is whole. */
export function cutOut(x: Tensor, dim: number, factors: Factors, mesh: Mesh, rank: number): Tensor {
  const own = factors.map((factor) => shareOf(factor, mesh, rank));
  const [before, after] = [x.shape.slice(0, dim), x.shape.slice(dim + 1)];
  const view = [...before, ...factors.map(({ size }) => size), ...after];
  const start = view.map((_, i) => own[i - dim]?.[0] ?? 0);
  const stop = view.map((size, i) => (start[i] as number) + (own[i - dim]?.[1] ?? size));
  const cut = slice(
    reshape(x, view),
    start,
    stop,
    view.map(() => 1),
  );
  return reshape(cut, [...before, sizeOf(own.map(([, length]) => length)), ...after]);
}

/** A tensor of one rank as [what lies outside of one factor of `dim`, that factor, what lies inside]; `lengths` are those of all factors. */
function around(
  shape: Shape,
  dim: number,
  lengths: readonly number[],
  at: number,
): readonly [number, number, number] {
  const outer = sizeOf(shape.slice(0, dim)) * sizeOf(lengths.slice(0, at));
  const inner = sizeOf(lengths.slice(at + 1)) * sizeOf(shape.slice(dim + 1));
  return [outer, lengths[at] as number, inner];
}
