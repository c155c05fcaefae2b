/** Random shapes for property tests: dims of size 1, operands that broadcast, dims in another order. */

import fc from "fast-check";
import type { Dense } from "../../src/graph/op-rules.ts";
import type { Shape } from "../../src/graph/shape.ts";
import { distinctDense, randomDense } from "./dense.ts";

export const seeds: fc.Arbitrary<number> = fc.nat(1_000_000);

/** Dims of size 1 to 3; `minRank` to `maxRank` of them. */
export function shapesOf(minRank: number, maxRank: number): fc.Arbitrary<number[]> {
  return fc.array(fc.integer({ min: 1, max: 3 }), { minLength: minRank, maxLength: maxRank });
}

/** Shapes that broadcast together: each lacks some leading dims of a common shape, and others are 1. */
export function broadcastable(count: number): fc.Arbitrary<number[][]> {
  const flags = fc.array(fc.boolean(), { minLength: 3, maxLength: 3 });
  const operand = fc.tuple(fc.nat(3), flags);
  return fc
    .tuple(shapesOf(0, 3), fc.array(operand, { minLength: count, maxLength: count }))
    .map(([shape, operands]) =>
      operands.map(([dropped, ones]) =>
        shape.slice(Math.min(dropped, shape.length)).map((size, dim) => (ones[dim] === true ? 1 : size)),
      ),
    );
}

/** An order of `rank` dims. */
export function permutations(rank: number): fc.Arbitrary<number[]> {
  const dims = Array.from({ length: rank }, (_, dim) => dim);
  return fc.shuffledSubarray(dims, { minLength: rank, maxLength: rank });
}

/** Random values in (-2, 2). */
export function signed(shape: Shape, seed: number): Dense {
  return mapped(randomDense(shape, seed), (value) => 2 * value);
}

/** Values in (0.5, 2.5). */
export function positive(shape: Shape, seed: number): Dense {
  return mapped(randomDense(shape, seed), (value) => value + 1.5);
}

/** Values with a size in (0.5, 1.5). */
export function nonZero(shape: Shape, seed: number): Dense {
  return mapped(randomDense(shape, seed), (value) => value + 0.5 * Math.sign(value));
}

/** Zeros and ones. */
export function bits(shape: Shape, seed: number): Dense {
  return mapped(randomDense(shape, seed), (value) => (value > 0 ? 1 : 0));
}

/** Whole numbers in 0..below-1. */
export function integers(shape: Shape, seed: number, below: number): Dense {
  return mapped(randomDense(shape, seed), (value) => Math.floor(((value + 1) / 2) * below));
}

/** Two tensors all of whose elements differ from each other. */
export function distinctPair(a: Shape, b: Shape, seed: number): readonly [Dense, Dense] {
  const size = a.reduce((x, y) => x * y, 1);
  const { data } = distinctDense([size + b.reduce((x, y) => x * y, 1)], seed);
  return [
    { shape: a, data: data.slice(0, size) },
    { shape: b, data: data.slice(size) },
  ];
}

export function mapped(x: Dense, change: (value: number) => number): Dense {
  return { shape: x.shape, data: x.data.map(change) };
}

export function dense(shape: Shape, ...values: number[]): Dense {
  return { shape, data: Float64Array.from(values) };
}
