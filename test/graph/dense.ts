/** Float64 tensors for tests: seeded values, and comparison with a tolerance relative to the largest element. */

import { expect } from "vitest";
import type { Dense } from "../../src/graph/op-rules.ts";
import { type Shape, sizeOf } from "../../src/graph/shape.ts";

/** Multiples of 1/1024 in (-1, 1); neighbours differ, and the same seed gives the same values. */
export function randomDense(shape: Shape, seed: number): Dense {
  let state = (seed * 2_654_435_761 + 12_345) >>> 0;
  const data = Float64Array.from({ length: sizeOf(shape) }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state >>> 21) / 1024 - 1 + 1 / 2048;
  });
  return { shape, data };
}

/** All elements different by at least 1/`count`, in a seeded order, within (-1, 1): no maximum is a tie. */
export function distinctDense(shape: Shape, seed: number): Dense {
  const size = sizeOf(shape);
  const order = [...randomDense([size], seed).data.entries()].toSorted((a, b) => a[1] - b[1] || a[0] - b[0]);
  const data = new Float64Array(size);
  order.forEach(([at], rank) => {
    data[at] = (2 * rank + 1) / size - 1;
  });
  return { shape, data };
}

/** Shapes equal, and no element further off than `tolerance` times the largest magnitude (at least 1e-3). */
export function expectClose(got: Dense, expected: Dense, tolerance: number, what = "tensor"): void {
  expect(got.shape, `shape of ${what}`).toEqual(expected.shape);
  expect(got.data.length, `length of ${what}`).toBe(expected.data.length);
  const scale = expected.data.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
  for (const [i, value] of expected.data.entries()) {
    const off = Math.abs((got.data[i] as number) - value);
    if (!(off <= tolerance * scale)) {
      expect.fail(
        `${what}: element ${i} is ${got.data[i]}, expected ${value} (tolerance ${tolerance} of ${scale})`,
      );
    }
  }
}
