/**
 * The part of a tensor that one rank holds: the dims written as products of factors, and a range of each factor. A block is a list of
 * runs of neighbouring elements of the whole tensor:
 *
 *     [4 x 6, 2] with rows 2..4 of each six     runs [4, 4] [16, 4] [28, 4] [40, 4]     (first element, length)
 */

import type { TypedArray } from "../graph/dtype.ts";
import { type Shape, sizeOf, stridesOf } from "../graph/shape.ts";
import type { Mesh } from "./mesh.ts";
import { type Factors, type Sharding, shareOf } from "./sharding.ts";

export interface Block {
  readonly shape: Shape;
  readonly start: readonly number[];
  readonly size: readonly number[];
}

/** What a rank holds of a tensor; `undefined` when it holds all of it. */
export function blockOf({ dims }: Sharding, mesh: Mesh, rank: number): Block | undefined {
  const factors: Factors = dims.flat();
  const own = factors.map((factor) => shareOf(factor, mesh, rank));
  if (own.every(([, length], i) => length === factors[i]?.size)) return undefined;
  return {
    shape: factors.map(({ size }) => size),
    start: own.map(([start]) => start),
    size: own.map(([, length]) => length),
  };
}

/** First element and length of every run of a block, in order. */
function runsOf({ shape, start, size }: Block): readonly (readonly [first: number, length: number])[] {
  const strides = stridesOf(shape);
  const split = shape.findLastIndex((whole, dim) => size[dim] !== whole);
  const outer = size.slice(0, Math.max(split, 0));
  const outerStrides = stridesOf(outer);
  const length = sizeOf(size.slice(Math.max(split, 0)));
  return Array.from({ length: sizeOf(outer) }, (_, run) => {
    const first = start.reduce((sum, from, dim) => {
      const index =
        dim < outer.length ? Math.floor(run / (outerStrides[dim] as number)) % (outer[dim] as number) : 0;
      return sum + (from + index) * (strides[dim] as number);
    }, 0);
    return [first, length];
  });
}

/** Copies a block out of the whole tensor. */
export function takeBlock(block: Block, whole: TypedArray, into: TypedArray): void {
  let at = 0;
  for (const [first, length] of runsOf(block)) {
    (into as Float32Array).set((whole as Float32Array).subarray(first, first + length), at);
    at += length;
  }
}

/** Copies a block to its place in the whole tensor. */
export function putBlock(block: Block, part: TypedArray, whole: TypedArray): void {
  let at = 0;
  for (const [first, length] of runsOf(block)) {
    (whole as Float32Array).set((part as Float32Array).subarray(at, at + length), first);
    at += length;
  }
}
