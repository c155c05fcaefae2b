import fc from "fast-check";
import { expect, test } from "vitest";
import { arrays } from "../../src/data/arrays.ts";
import type { TensorData } from "../../src/data/dataset.ts";
import { splitSamples } from "../../src/data/split.ts";
import { collect, numbers } from "./collect.ts";

/** Sample s has the features 10·s, 10·s + 1 and the label s. */
function labelled(count: number): Record<string, TensorData> {
  return {
    features: {
      dtype: "f32",
      shape: [count, 1, 2],
      data: Float32Array.from({ length: 2 * count }, (_, i) => 10 * Math.floor(i / 2) + (i % 2)),
    },
    targets: { dtype: "i32", shape: [count], data: Int32Array.from({ length: count }, (_, i) => i) },
  };
}

test("features stay with their labels, every sample is used once, splits do not overlap", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 2, max: 60 }),
      fc.integer({ min: 1, max: 9 }),
      fc.nat(),
      async (count, batch, seed) => {
        const data = arrays(labelled(count), { batch, lastBatch: "pad", validationShare: 0.2 });
        const labels: number[] = [];
        for (const part of [data.training(seed, 1), data.validation()]) {
          for (const { inputs, samples, validTargets, ...rest } of await collect(part)) {
            const targets = numbers({ inputs, samples, ...rest }, "targets");
            const features = numbers({ inputs, samples, ...rest }, "features");
            expect(inputs["features"]?.shape).toEqual([batch, 1, 2]);
            expect(targets).toHaveLength(batch);
            expect(validTargets).toBe(samples);
            for (const [lane, label] of targets.slice(0, samples).entries()) {
              expect(features.slice(2 * lane, 2 * lane + 2)).toEqual([10 * label, 10 * label + 1]);
            }
            expect(targets.slice(samples).every((target) => target === -1)).toBe(true);
            labels.push(...targets.slice(0, samples));
          }
        }
        expect(labels.sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
      },
    ),
  );
});

test("epochs are shuffled by seed and epoch, validation is in order", async () => {
  const data = arrays(labelled(40), { batch: 5, validationShare: 0.25, split: "position" });
  const labels = async (seed: number, epoch: number): Promise<number[]> =>
    (await collect(data.training(seed, epoch))).flatMap((batch) => numbers(batch, "targets"));
  expect(await labels(1, 0)).toEqual(await labels(1, 0));
  expect(await labels(1, 0)).not.toEqual(await labels(1, 1));
  expect(await labels(1, 0)).not.toEqual(await labels(2, 0));
  const held = (await collect(data.validation())).flatMap((batch) => numbers(batch, "targets"));
  expect(held).toEqual([30, 31, 32, 33, 34, 35, 36, 37, 38, 39]);
});

test("inputs of every element type, without targets that can be ignored, end in a short batch", async () => {
  const data = arrays(
    {
      users: { dtype: "i64", shape: [5], data: BigInt64Array.from([0n, 1n, 2n, 3n, 4n]) },
      targets: { dtype: "f32", shape: [5], data: Float32Array.from([0, 1, 2, 3, 4]) },
    },
    { batch: 2, lastBatch: "keep", validationShare: 0 },
  );
  expect(data.inputs).toEqual([
    { name: "users", dtype: "i64", dims: ["batch"] },
    { name: "targets", dtype: "f32", dims: ["batch"] },
  ]);
  expect(data.shapes).toEqual([{ batch: 2 }, { batch: 1 }]);
  for (const batch of await collect(data.training(1, 1))) {
    expect(numbers(batch, "users")).toEqual(numbers(batch, "targets"));
    expect(batch.validTargets).toBeUndefined();
  }
});

test("arrays that do not agree are refused with all their faults", () => {
  const data = Float32Array.from({ length: 6 });
  expect(() =>
    arrays({
      features: { dtype: "f32", shape: [4, 2], data },
      targets: { dtype: "i32", shape: [3], data: data.subarray(0, 3) },
    }),
  ).toThrow(
    [
      "cannot use the arrays:",
      '  - "features" has shape [4, 2], 8 elements, but 6 values',
      '  - "targets" is i32, which is stored in a Int32Array, got a Float32Array',
      '  - all arrays must have the same number of samples in their first dim, got "features" 4, "targets" 3',
    ].join("\n"),
  );
  expect(() => arrays({})).toThrow("cannot use the arrays: there is no array");
  expect(() => arrays({ x: { dtype: "f32", shape: [6], data } }, { batch: 7 })).toThrow(
    "do not fill one batch of 7",
  );
  expect(() => arrays({ x: { dtype: "f32", shape: [6], data } }, { batch: 4, lastBatch: "pad" })).toThrow(
    'only i32 "targets" can be ignored by the loss',
  );
});

test("a split has the asked share, at least one sample on either side, and nothing twice", () => {
  const share = fc.double({ min: 0, max: 0.99, noNaN: true });
  fc.assert(
    fc.property(fc.nat({ max: 300 }), share, fc.constantFrom("seeded", "position"), (count, part, mode) => {
      const { training, validation } = splitSamples(count, part, mode as "seeded");
      const all = [...training, ...validation].sort((a, b) => a - b);
      expect(all).toEqual(Array.from({ length: count }, (_, i) => i));
      expect(Math.abs(validation.length - count * part)).toBeLessThanOrEqual(1);
      if (count > 1 && part > 0) expect(validation.length).toBeGreaterThan(0);
      if (count > 0) expect(training.length).toBeGreaterThan(0);
      if (mode === "position") expect(validation[0] ?? count).toBe(training.length);
    }),
  );
});
