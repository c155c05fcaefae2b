/** How a dim is dealt out along an axis. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { share } from "../../src/shard/sharding.ts";

const axes = fc
  .tuple(
    fc.integer({ min: 1, max: 6 }),
    fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 6, maxLength: 6 }),
  )
  .chain(([size, shares]) => fc.constantFrom({ size }, { size, shares: shares.slice(0, size) }));

test("the parts follow each other without gaps, and nobody is left out who could have one", () => {
  fc.assert(
    fc.property(fc.nat(200), axes, (size, along) => {
      const parts = Array.from({ length: along.size }, (_, i) => share(size, along, i));
      let next = 0;
      for (const [start, length] of parts) {
        expect(start).toBe(next);
        next = start + length;
      }
      expect(next).toBe(size);
      const least = size >= along.size ? 1 : 0;
      for (const [, length] of parts) expect(length).toBeGreaterThanOrEqual(least);
    }),
  );
});

test("equal parts differ by one at most, the first ones are larger; shares are met to the nearest element", () => {
  expect([0, 1, 2].map((i) => share(8, { size: 3 }, i))).toEqual([
    [0, 3],
    [3, 3],
    [6, 2],
  ]);
  expect([0, 1].map((i) => share(10_000, { size: 2, shares: [17, 15] }, i))).toEqual([
    [0, 5313],
    [5313, 4687],
  ]);
  expect([0, 1, 2].map((i) => share(4, { size: 3, shares: [100, 1, 1] }, i)[1])).toEqual([2, 1, 1]);
});
