import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import {
  gaussian,
  type Initializer,
  initialize,
  kaiming,
  ones,
  uniformWithin,
  xavier,
  zeros,
} from "../../src/model/initializer.ts";
import { adam, adamW, sgd } from "../../src/model/optimizer.ts";
import { checkRate, cosineRate, type Rate, rateAt, stepRate, warmUp } from "../../src/model/rate.ts";

describe("initialisers", () => {
  const names = fc.string({ minLength: 1 });

  test("give the same numbers for the same seed and name, and others for others", () => {
    fc.assert(
      fc.property(names, names, fc.nat(), (a, b, seed) => {
        fc.pre(a !== b);
        const values = initialize(gaussian(1), a, [8], seed);
        expect(initialize(gaussian(1), a, [8], seed)).toEqual(values);
        expect(initialize(gaussian(1), b, [8], seed)).not.toEqual(values);
        expect(initialize(gaussian(1), a, [8], seed + 1)).not.toEqual(values);
      }),
    );
  });

  test("are functions of the element's index: a longer parameter starts with the shorter one", () => {
    for (const initializer of [uniformWithin(2), gaussian(3)])
      expect(initialize(initializer, "w", [5, 4], 7).slice(0, 8)).toEqual(
        initialize(initializer, "w", [2, 4], 7),
      );
  });

  test("stay within their bounds", () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-3, max: 10, noNaN: true }), names, (bound, name) => {
        for (const value of initialize(uniformWithin(bound), name, [50], 1)) {
          expect(value).toBeGreaterThanOrEqual(-bound);
          expect(value).toBeLessThan(bound);
        }
      }),
    );
    expect([...initialize(zeros, "w", [2], 1), ...initialize(ones, "w", [2], 1)]).toEqual([0, 0, 1, 1]);
    expect(initialize(ones, "w", [], 1)).toEqual(Float64Array.of(1));
  });

  test.each<[string, Initializer, number]>([
    ["uniform within b: b/√3", uniformWithin(0.1), 0.1 / Math.sqrt(3)],
    ["normal: its deviation", gaussian(0.5), 0.5],
    ["xavier: √(2/(in + out))", xavier(30, 70), Math.sqrt(2 / 100)],
    ["kaiming: √(2/in)", kaiming(50), Math.sqrt(2 / 50)],
  ])("have mean 0 and the deviation of the closed form, %s", (_name, initializer, deviation) => {
    const count = 40_000;
    const values = initialize(initializer, "weight", [200, 200], 3);
    const mean = values.reduce((a, b) => a + b, 0) / count;
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / count;
    expect(Math.abs(mean)).toBeLessThan((4 * deviation) / Math.sqrt(count));
    expect(Math.abs(Math.sqrt(variance) / deviation - 1)).toBeLessThan(0.02);
  });
});

describe("rates", () => {
  test("follow their closed forms", () => {
    expect([0, 9].map((step) => rateAt(0.3, step))).toEqual([0.3, 0.3]);
    const steps = stepRate(0.8, { factor: 0.5, every: 3 });
    expect([0, 2, 3, 5, 6, 9].map((step) => rateAt(steps, step))).toEqual([0.8, 0.8, 0.4, 0.4, 0.2, 0.1]);
    const cosine = cosineRate(1, { steps: 8, final: 0.2 });
    const expected = [1, 0.2 + 0.4 * (1 + Math.SQRT1_2), 0.6, 0.2 + 0.4 * (1 - Math.SQRT1_2), 0.2, 0.2];
    [0, 2, 4, 6, 8, 100].forEach((step, i) => {
      expect(rateAt(cosine, step)).toBeCloseTo(expected[i] as number, 14);
    });
    expect(rateAt(cosineRate(1, { steps: 8 }), 8)).toBe(0);
  });

  test("warm up linearly, reach the rate that follows at its first step, and then follow it", () => {
    const rate = warmUp(4, stepRate(1, { factor: 0.1, every: 2 }));
    expect([0, 1, 2, 3].map((step) => rateAt(rate, step))).toEqual([0.2, 0.4, 0.6, 0.8]);
    expect([4, 5, 6].map((step) => rateAt(rate, step))).toEqual([1, 1, 0.1]);
  });

  test.each<[string, Rate, string[]]>([
    ["not positive", 0, ["a rate must be positive, got 0"]],
    ["not a number", Number.NaN, ["a rate must be positive, got NaN"]],
    [
      "a step with three faults",
      stepRate(-1, { factor: Number.NaN, every: 0.5 }),
      [
        "a rate must be positive, got -1",
        "every must be a positive whole number, got 0.5",
        "factor must be at least 0, got NaN",
      ],
    ],
    [
      "a cosine that ends below 0",
      cosineRate(1, { steps: 5, final: -1 }),
      ["final must be at least 0, got -1"],
    ],
    [
      "within a warm-up",
      warmUp(0, cosineRate(1, { steps: -5 })),
      ["steps must be a positive whole number, got 0", "steps must be a positive whole number, got -5"],
    ],
  ])("that cannot be followed are refused with every fault: %s", (_what, rate, problems) => {
    let found: unknown;
    try {
      checkRate(rate);
    } catch (error) {
      found = error;
    }
    expect(found).toBeInstanceOf(UserError);
    expect((found as UserError).problems).toEqual(problems);
  });
});

describe("optimizers", () => {
  test.each<[string, () => unknown, string]>([
    ["a rate", () => sgd({ rate: -1 }), "the learning rate is not valid: a rate must be positive, got -1"],
    [
      "momentum",
      () => sgd({ rate: 1, momentum: 1 }),
      "the optimizer sgd is not valid: momentum must be at least 0 and below 1, got 1",
    ],
    ["nesterov", () => sgd({ rate: 1, nesterov: true }), "sgd: nesterov needs a momentum above 0"],
    ["clipping", () => adam({ rate: 1, clipNorm: 0 }), "clipNorm must be positive, got 0"],
    [
      "betas",
      () => adamW({ rate: 1, beta1: 1, beta2: -1 }),
      "beta1 must be at least 0 and below 1, got 1\n  - beta2 must be",
    ],
    [
      "epsilon",
      () => adam({ rate: 1, epsilon: 0 }),
      "the optimizer adam is not valid: epsilon must be positive, got 0",
    ],
  ])("refuse %s that cannot be", (_what, make, message) => {
    expect(make).toThrow(UserError);
    expect(make).toThrow(message);
  });

  test("give the same scalars at every step, and Adam corrects its bias", () => {
    const optimizer = adam({ rate: stepRate(0.1, { factor: 0.5, every: 10 }), beta1: 0.5, beta2: 0.75 });
    expect(optimizer.scalars(0)).toEqual({ rate: 0.1, size: 0.2, root: 2 });
    expect(Object.keys(optimizer.scalars(9))).toEqual(Object.keys(optimizer.scalars(0)));
    expect(optimizer.scalars(10)["rate"]).toBe(0.05);
  });
});
