import fc from "fast-check";
import { expect, test } from "vitest";
import { deriveKey, hashIndex, normal, permutation, uniform } from "../../src/base/random.ts";

const mask = (1n << 32n) - 1n;

/** The same mixing in exact integer arithmetic. */
function hashWithBigInt(key: number, index: number): number {
  let x = (BigInt(key) + BigInt(index)) & mask;
  x ^= x >> 16n;
  x = (x * 0x7feb352dn) & mask;
  x ^= x >> 15n;
  x = (x * 0x846ca68bn) & mask;
  x ^= x >> 16n;
  return Number(x);
}

test("hashIndex equals the published mixing in exact integer arithmetic", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.nat({ max: 2 ** 31 - 1 }), (key, index) => {
      expect(hashIndex(key, index)).toBe(hashWithBigInt(key, index));
    }),
  );
});

test("hashIndex reproduces literal values", () => {
  expect([0, 1, 2, 3].map((index) => hashIndex(0, index))).toEqual([0, 1753845952, 3507691905, 1408362973]);
  expect(hashIndex(0xdeadbeef, 12345)).toBe(2789961146);
  expect(hashIndex(0xffffffff, 1)).toBe(0);
});

test("uniform numbers fill [0, 1) evenly (chi-square over 256 buckets)", () => {
  const samples = 1 << 18;
  for (const seed of [1, 2, 3]) {
    const key = deriveKey(seed, "uniform");
    const buckets = new Array<number>(256).fill(0);
    for (let i = 0; i < samples; i++) {
      const value = uniform(key, i);
      const bucket = Math.floor(value * 256);
      buckets[bucket] = (buckets[bucket] ?? Number.NaN) + 1;
    }
    const expected = samples / 256;
    const chiSquare = buckets.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 255 degrees of freedom: mean 255, standard deviation 22.6; five deviations either side.
    expect(chiSquare).toBeGreaterThan(255 - 113);
    expect(chiSquare).toBeLessThan(255 + 113);
  }
});

test("neighbours, in index and in seed, are uncorrelated", () => {
  const samples = 100_000;
  const correlation = (a: (i: number) => number, b: (i: number) => number): number => {
    let sum = 0;
    for (let i = 0; i < samples; i++) sum += (a(i) - 0.5) * (b(i) - 0.5) * 12;
    return sum / samples;
  };
  const bound = 5 / Math.sqrt(samples);
  const key = deriveKey(7, "left");
  const next = deriveKey(8, "left");
  for (const lag of [1, 2, 3, 64, 400, 1024]) {
    expect(
      Math.abs(
        correlation(
          (i) => uniform(key, i),
          (i) => uniform(key, i + lag),
        ),
      ),
    ).toBeLessThan(bound);
  }
  expect(
    Math.abs(
      correlation(
        (i) => uniform(key, i),
        (i) => uniform(next, i),
      ),
    ),
  ).toBeLessThan(bound);
});

test("uniform is exact in float32 and never reaches 1", () => {
  expect(Math.fround((0xffffffff >>> 8) * 2 ** -24)).toBeLessThan(1);
  for (let i = 0; i < 1000; i++) expect(Math.fround(uniform(5, i))).toBe(uniform(5, i));
});

test("normal numbers have the moments of the standard normal distribution", () => {
  const samples = 200_000;
  const key = deriveKey(3, "normal");
  const moments = [0, 0, 0, 0];
  for (let i = 0; i < samples; i++) {
    const value = normal(key, i);
    for (let power = 1; power <= 4; power++) {
      moments[power - 1] = (moments[power - 1] ?? 0) + value ** power / samples;
    }
  }
  // Standard errors: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt(samples).
  const [mean = 9, square = 9, cube = 9, fourth = 9] = moments;
  const unit = 5 / Math.sqrt(samples);
  expect(Math.abs(mean)).toBeLessThan(unit);
  expect(Math.abs(square - 1)).toBeLessThan(unit * Math.SQRT2);
  expect(Math.abs(cube)).toBeLessThan(unit * Math.sqrt(15));
  expect(Math.abs(fourth - 3)).toBeLessThan(unit * Math.sqrt(96));
});

test("a normal number is finite even where its first uniform number is zero", () => {
  // hashIndex(key, 0) = 0 where key = 0: the logarithm's worst case.
  expect(uniform(0, 0)).toBe(0);
  expect(normal(0, 0)).toBe(0);
});

test("deriveKey separates order, type, boundaries and large numbers", () => {
  const keys = [
    deriveKey(),
    deriveKey(1),
    deriveKey("1"),
    deriveKey(1, 2),
    deriveKey(2, 1),
    deriveKey("ab"),
    deriveKey("a", "b"),
    deriveKey("", "ab"),
    deriveKey(0),
    deriveKey(2 ** 32),
    deriveKey(-1),
    deriveKey(0, 0),
  ];
  expect(new Set(keys).size).toBe(keys.length);
  for (const key of keys) expect(key).toBe(key >>> 0);
});

test("deriveKey rejects numbers that are not whole", () => {
  expect(() => deriveKey(0.5)).toThrow("internal: a random key needs whole numbers, got 0.5");
});

test("ten thousand derived keys collide no more often than chance allows", () => {
  const keys = new Set<number>();
  for (let step = 0; step < 100; step++) {
    for (let layer = 0; layer < 100; layer++) keys.add(deriveKey(17, step, `layer${layer}`));
  }
  expect(keys.size).toBeGreaterThan(10_000 - 3);
});

test("a permutation holds every index once and is the same for the same key", () => {
  fc.assert(
    fc.property(fc.nat(), fc.nat({ max: 200 }), (seed, count) => {
      const order = permutation(deriveKey(seed), count);
      expect(Array.from(order).sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
      expect(permutation(deriveKey(seed), count)).toEqual(order);
    }),
  );
});

test("all orders of four elements are equally likely", () => {
  const counts = new Map<string, number>();
  const samples = 24_000;
  for (let seed = 0; seed < samples; seed++) {
    const order = permutation(deriveKey(seed, "order"), 4).join("");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
  expect(counts.size).toBe(24);
  expect(chiSquare).toBeLessThan(23 + 5 * Math.sqrt(46));
});
