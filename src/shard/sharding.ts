/**
 * How a tensor lies on the devices of a mesh. A dim is a product of factors, outermost first, so that the four gates of an LSTM or the
 * heads of an attention can be split together; a factor may be split along one axis, the first ranks getting one more where it does
 * not divide, or each its share where the axis has such. A tensor is `partial` along an axis when the tensors of its ranks have yet to be
 * added up.
 *
 *     [4·H, I] with the units split over 2     dim 0: 4 x H/tensor     rank 0: [4·H/2, I]
 */

import { type Shape, sizeOf } from "../graph/shape.ts";
import { type Axis, coordinate, type Mesh, type SplitAxis } from "./mesh.ts";

export interface Factor {
  readonly size: number;
  /** The axis it is split along; none: every rank has all of it. */
  readonly along?: Axis;
}

/** The factors of one dim; their product is its size. Neighbours that are not split are one. */
export type Factors = readonly Factor[];

export interface Sharding {
  readonly dims: readonly Factors[];
  readonly partial: readonly SplitAxis[];
}

/** Every rank has the whole tensor. */
export function whole(shape: Shape): Sharding {
  return { dims: shape.map((size) => [{ size }]), partial: [] };
}

/**
 * The one way to write factors: those of size 1 are left out, neighbours that are not split are one, and what lies inside of a split
 * factor belongs to it where every rank has as much: `4/tensor x 2` is `8/tensor` on two equal devices.
 */
export function tidy(factors: Factors): Factors {
  const joined: Factor[] = [];
  for (const factor of factors) {
    const last = joined.at(-1);
    if (factor.along === undefined && factor.size === 1) continue;
    if (factor.along === undefined && last !== undefined && isEven(last))
      joined[joined.length - 1] = { ...last, size: last.size * factor.size };
    else joined.push(factor);
  }
  return joined.length === 0 ? [{ size: 1 }] : joined;
}

/** Whether every rank has as much of a factor as any other. */
export function isEven({ size, along }: Factor): boolean {
  return along === undefined || (along.shares === undefined && size % along.size === 0);
}

export function isSplit(factors: Factors): boolean {
  return factors.some(({ along }) => along !== undefined);
}

export function axesOf(factors: Factors): readonly SplitAxis[] {
  return factors.flatMap(({ along }) => along?.axis ?? []);
}

export function sizeOfFactors(factors: Factors): number {
  return sizeOf(factors.map(({ size }) => size));
}

export function sameFactors(a: Factors, b: Factors): boolean {
  return showFactors(a) === showFactors(b);
}

export function sameSharding(a: Sharding, b: Sharding): boolean {
  return showSharding(a) === showSharding(b);
}

/** `[4 x 8/tensor, 16] + tensor`: dims, then the axes along which it is partial. */
export function showSharding({ dims, partial }: Sharding): string {
  const sums = [...partial].sort().map((axis) => ` + ${axis}`);
  return `[${dims.map(showFactors).join(", ")}]${sums.join("")}`;
}

function showFactors(factors: Factors): string {
  return tidy(factors)
    .map(({ size, along }) => (along === undefined ? `${size}` : `${size}/${along.axis}`))
    .join(" x ");
}

/**
 * First index and length of what the device at `index` along an axis has of `size`. Without shares the first ones get one more where it
 * does not divide; with shares every one gets at least one where there are as many.
 */
export function share(
  size: number,
  { size: count, shares }: Pick<Axis, "size" | "shares">,
  index: number,
): readonly [start: number, length: number] {
  if (shares === undefined || size < count) {
    const [least, rest] = [Math.floor(size / count), size % count];
    return [least * index + Math.min(index, rest), least + (index < rest ? 1 : 0)];
  }
  const total = shares.reduce((sum, one) => sum + one, 0);
  let [start, end, upTo] = [0, 0, 0];
  for (let at = 0; at <= index; at++) {
    upTo += shares[at] ?? 0;
    start = end;
    const left = count - 1 - at;
    end = Math.max(start + 1, Math.min(Math.round((size * upTo) / total), size - left));
  }
  return [start, end - start];
}

/** What a rank holds of one factor. */
export function shareOf(factor: Factor, mesh: Mesh, rank: number): readonly [start: number, length: number] {
  if (factor.along === undefined) return [0, factor.size];
  return share(factor.size, factor.along, coordinate(mesh, rank, factor.along.axis));
}

/** The shape of a rank's tensor. */
export function localShape({ dims }: Sharding, mesh: Mesh, rank: number): Shape {
  return dims.map((factors) => sizeOf(factors.map((factor) => shareOf(factor, mesh, rank)[1])));
}
