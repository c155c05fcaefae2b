/** Tensors of the split graph: one symbolic tensor for each rank of a mesh, and what can be done with them rank by rank or together. */

import { invariant } from "../base/errors.ts";
import type { GraphBuilder } from "../graph/builder.ts";
import type { DType } from "../graph/dtype.ts";
import { concat } from "../graph/functions.ts";
import type { Phase } from "../graph/graph.ts";
import type { Op } from "../graph/op.ts";
import type { Shape } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Mesh, rankCount, ranksAlong, ranksWith, type SplitAxis } from "./mesh.ts";
import type { Sharding } from "./sharding.ts";

export interface Sharded {
  readonly dtype: DType;
  /** Of the whole tensor. */
  readonly shape: Shape;
  readonly mesh: Mesh;
  readonly sharding: Sharding;
  /** By rank. */
  readonly parts: readonly Tensor[];
}

/** Where new operations go: a group of the model and a phase, on all ranks of the group's mesh. */
export interface Place {
  readonly builder: GraphBuilder;
  readonly group: string;
  readonly phase: Phase;
  readonly mesh: Mesh;
}

/** The group of the split graph that holds what `ranks` of a group do; the group itself where there is one rank. */
function rankGroup(group: string, mesh: Mesh, ranks: readonly number[]): string {
  return rankCount(mesh) === 1 ? group : `${group}#${ranks.join("+")}`;
}

/** The group and the ranks that a group of the split graph stands for; rank 0 where it has no mark. */
export function splitGroup(name: string): { readonly group: string; readonly ranks: readonly number[] } {
  const match = /^(.*)#(\d+(?:\+\d+)*)$/s.exec(name);
  if (match === null) return { group: name, ranks: [0] };
  return { group: match[1] as string, ranks: (match[2] as string).split("+").map(Number) };
}

/** Builds one tensor on every rank. */
export function onEach(place: Place, build: (rank: number) => Tensor): readonly Tensor[] {
  return eachRank(place, (rank) => [build(rank)]).map(([tensor]) => tensor as Tensor);
}

/** Builds several tensors on every rank; by rank. */
export function eachRank(
  place: Place,
  build: (rank: number) => readonly Tensor[],
): readonly (readonly Tensor[])[] {
  return Array.from({ length: rankCount(place.mesh) }, (_, rank) => onRank(place, rank, () => build(rank)));
}

/** Builds on one rank. */
export function onRank<T>({ builder, group, phase, mesh }: Place, rank: number, build: () => T): T {
  return builder.within({ group: rankGroup(group, mesh, [rank]), phase }, build);
}

/** Result `i` of every rank. */
export function partsAt(made: readonly (readonly Tensor[])[], i: number): readonly Tensor[] {
  return made.map((results) => results[i] as Tensor);
}

/**
 * What all ranks that differ along `axes` have, one under the other on each of them. Every part is a message: other than in an all-gather
 * nobody has to be there for it at the same time, but on n ranks it is n - 1 messages from each.
 */
export function collected(
  place: Place,
  axes: readonly SplitAxis[],
  parts: readonly Tensor[],
): readonly Tensor[] {
  return onEach(place, (rank) =>
    concat(
      ranksWith(place.mesh, rank, axes).map((other) => parts[other] as Tensor),
      0,
    ),
  );
}

/** One collective operation for every set of ranks that differ along `axes`; results by rank. */
export function together(
  place: Place,
  axes: readonly SplitAxis[],
  parts: readonly Tensor[],
  opOf: (ranks: readonly number[]) => Op,
): readonly Tensor[] {
  const { builder, group, phase, mesh } = place;
  const results: Tensor[] = [];
  for (const ranks of ranksAlong(mesh, axes)) {
    const operands = ranks.map((rank) => parts[rank] as Tensor);
    const made = builder.within({ group: rankGroup(group, mesh, ranks), phase }, () =>
      builder.apply(opOf(ranks), operands),
    );
    ranks.forEach((rank, i) => {
      results[rank] = made[i] as Tensor;
    });
  }
  invariant(results.length === parts.length, "every rank is in one set");
  return results;
}
