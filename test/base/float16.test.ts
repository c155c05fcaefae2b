import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeFloat16, encodeFloat16 } from "../../src/base/float16.ts";

describe("half precision", () => {
  test("every pattern survives decoding and encoding", () => {
    for (let pattern = 0; pattern < 65_536; pattern++) {
      const value = decodeFloat16(pattern);
      expect(Number.isNaN(value) ? 0x7e00 : encodeFloat16(value)).toBe(
        Number.isNaN(value) ? 0x7e00 : pattern,
      );
    }
  });

  test("known numbers have the bits of IEEE 754", () => {
    const known: readonly (readonly [number, number])[] = [
      [1, 0x3c00],
      [-2, 0xc000],
      [65_504, 0x7bff],
      [65_519, 0x7bff],
      [65_520, 0x7c00],
      [2 ** -24, 0x0001],
      [2 ** -25, 0x0000],
      [2 ** -14, 0x0400],
      [1 / 3, 0x3555],
      [-0, 0x8000],
      [Number.NEGATIVE_INFINITY, 0xfc00],
    ];
    for (const [value, pattern] of known) expect(encodeFloat16(value), `${value}`).toBe(pattern);
    expect(decodeFloat16(encodeFloat16(Number.NaN))).toBeNaN();
  });

  test("the nearest number is chosen, the even one of two", () => {
    fc.assert(
      fc.property(fc.nat(0x7bfe), fc.double({ min: 0, max: 1, noNaN: true }), (below, share) => {
        const [low, high] = [decodeFloat16(below), decodeFloat16(below + 1)];
        const value = low + share * (high - low);
        const nearer = value - low < high - value ? below : below + 1;
        const tie = value - low === high - value;
        expect(encodeFloat16(value)).toBe(tie ? below + (below % 2) : nearer);
      }),
    );
  });
});
