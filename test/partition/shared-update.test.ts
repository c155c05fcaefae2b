/** ZeRO stage 1: replicas share the optimizer's state and the update; the numbers stay those of one device. */

import { expect, test } from "vitest";
import { type Layout, oneDevice, withMesh, type ZeroStage } from "../../src/layout/layout.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import { layoutOf, replicated } from "./layouts.ts";
import { type Example, exampleNames, exampleOf } from "./models.ts";
import { expectSame, type Outcome, outcomeOf } from "./train.ts";

const names = exampleNames.filter((name) => name !== "batch-norm");

function elements(example: Example, layout: Layout, kind: string) {
  const [shape = { batch: 4 }] = example.shapes;
  return compileTraining(example.source, layout, shape).programs.map(({ buffers }) =>
    buffers
      .filter((buffer) => buffer.kind === kind)
      .reduce((sum, { type }) => sum + type.shape.reduce((product, size) => product * size, 1), 0),
  );
}

/** Every replica keeps the gradients of its own samples; only their parts are added up. */
function withoutGradients(outcome: Outcome): Outcome {
  return new Map([...outcome].filter(([name]) => !name.startsWith("grad:")));
}

/** A pipeline of two stages in copies that share what `zero` says. */
function sharing(
  { groups, hasChunks }: Example,
  zero: ZeroStage,
  replicas: number,
  rest: Partial<Layout>,
): Layout {
  const chunks = hasChunks && zero === 2 ? 2 : 1;
  return { ...replicated(layoutOf({ groups, devices: 2, chunks }), replicas), zero, ...rest };
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

for (const name of names) {
  for (const [zero, replicas, batch, rest] of [
    [1, 2, 5, {}],
    [1, 3, 5, {}],
    [2, 2, 6, { microBatches: 2 }],
    [2, 3, 6, { microBatches: 2, weights: "deferred" }],
    [2, 2, 6, { microBatches: 3, weights: "per-item", schedule: "zero-bubble-h1" }],
  ] as const) {
    const { microBatches = 1, weights = "fused" }: Partial<Layout> = rest;
    test(`${name}: stage ${zero}, ${replicas} replicas, ${microBatches} micro-batches, W ${weights}`, async () => {
      const example = exampleOf(name, { dtype: "f64", batch });
      const plain = sharing(example, 0, replicas, rest);
      const shared = sharing(example, zero, replicas, rest);
      const [got, expected] = [
        await outcomeOf(example, shared),
        await outcomeOf(example, oneDevice(example.groups)),
      ];
      expectSame(withoutGradients(got), withoutGradients(expected), 1e-9, name);
      for (const kind of zero === 1 ? ["optimizer"] : ["optimizer", "gradient"]) {
        const [whole, own] = [sum(elements(example, plain, kind)), sum(elements(example, shared, kind))];
        if (whole > 0) expect(own).toBeLessThan((1.3 * whole) / replicas);
      }
    });
  }
}

for (const name of ["transformer", "lstm", "convolution"] as const) {
  for (const zero of [1, 2] as const) {
    test(`${name}: stage ${zero}, two replicas of a layer split over two devices`, async () => {
      const example = exampleOf(name, { dtype: "f64", batch: 6 });
      const { groups } = example;
      const layout = layoutOf({ groups, devices: 1, microBatches: 2 });
      const split = withMesh(layout, { tensor: 2 }, [[{ name: "cpu:1", threads: 1 }]]);
      const got = await outcomeOf(example, { ...replicated(split, 2), zero });
      const expected = await outcomeOf(example, oneDevice(groups));
      expectSame(withoutGradients(got), withoutGradients(expected), 1e-9, name);
    });
  }
}
