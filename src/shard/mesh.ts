/**
 * The devices of one stage in one replica as a grid with named axes. Ranks count row-major: the last axis varies fastest.
 *
 *     height 2 x tensor 2      rank 0 (0,0)  rank 1 (0,1)
 *                              rank 2 (1,0)  rank 3 (1,1)
 */

import type { MeshAxis } from "../layout/layout.ts";

/** The axes of a mesh; `data` only where replicas share an update. */
export type SplitAxis = MeshAxis | "data";

/** One axis and the number of devices along it. */
export interface Axis {
  readonly axis: SplitAxis;
  readonly size: number;
  /** What each device along it gets of a dim, beside the others; all as much without it. */
  readonly shares?: readonly number[];
}

export interface Mesh {
  readonly axes: readonly Axis[];
}

export const noMesh: Mesh = { axes: [] };

export function rankCount({ axes }: Mesh): number {
  return axes.reduce((product, { size }) => product * size, 1);
}

/** Position of a rank along an axis; 0 where the mesh does not have it. */
export function coordinate({ axes }: Mesh, rank: number, axis: SplitAxis): number {
  const at = axes.findIndex((own) => own.axis === axis);
  if (at < 0) return 0;
  const inner = axes.slice(at + 1).reduce((product, { size }) => product * size, 1);
  return Math.floor(rank / inner) % (axes[at]?.size ?? 1);
}

/** Whether a rank is the first along some axes: the one that adds what is to be added once. */
export function isFirstAlong(mesh: Mesh, rank: number, axes: readonly SplitAxis[]): boolean {
  return axes.every((axis) => coordinate(mesh, rank, axis) === 0);
}

/** The ranks that differ only along `over`, set by set, each in order; every rank is in one set. */
export function ranksAlong(mesh: Mesh, over: readonly SplitAxis[]): readonly (readonly number[])[] {
  const sets = new Map<string, number[]>();
  for (let rank = 0; rank < rankCount(mesh); rank++) {
    const others = mesh.axes.filter(({ axis }) => !over.includes(axis));
    const key = others.map(({ axis }) => coordinate(mesh, rank, axis)).join();
    sets.set(key, [...(sets.get(key) ?? []), rank]);
  }
  return [...sets.values()];
}

/** The ranks that differ from a rank only along `over`, with itself, in order. */
export function ranksWith(mesh: Mesh, rank: number, over: readonly SplitAxis[]): readonly number[] {
  return ranksAlong(mesh, over).find((ranks) => ranks.includes(rank)) ?? [];
}

export function sameMesh(a: Mesh, b: Mesh): boolean {
  return (
    a.axes.length === b.axes.length &&
    a.axes.every((own, i) => {
      const { axis, size, shares } = b.axes[i] as Axis;
      return own.axis === axis && own.size === size && own.shares?.join() === shares?.join();
    })
  );
}

/** `tensor 2 x height 2`; `one device` where there are no axes. */
export function showMesh({ axes }: Mesh): string {
  return axes.map(({ axis, size }) => `${axis} ${size}`).join(" x ") || "one device";
}
