/** ZeRO stage 1: replicas share the optimizer's state and the update; the numbers stay those of one device. */

import { expect, test } from "vitest";
import { oneDevice } from "../../src/layout/layout.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import { layoutOf, replicated } from "./layouts.ts";
import { type Example, exampleNames, exampleOf } from "./models.ts";
import { expectSame, type Outcome, outcomeOf } from "./train.ts";

const names = exampleNames.filter((name) => name !== "batch-norm");

function elements(example: Example, layout: Parameters<typeof compileTraining>[1], kind: string) {
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

for (const name of names) {
  for (const replicas of [2, 3]) {
    test(`${name} on ${replicas} replicas of two stages`, async () => {
      const example = exampleOf(name, { dtype: "f64", batch: 5 });
      const { groups } = example;
      const plain = replicated(layoutOf({ groups, devices: 2, schedule: "gpipe" }), replicas);
      const shared = { ...plain, zero: 1 } as const;
      const [got, expected] = [await outcomeOf(example, shared), await outcomeOf(example, oneDevice(groups))];
      expectSame(withoutGradients(got), withoutGradients(expected), 1e-9, name);
      const [whole, own] = [elements(example, plain, "optimizer"), elements(example, shared, "optimizer")];
      const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
      if (sum(whole) > 0) expect(sum(own)).toBeLessThan((1.3 * sum(whole)) / replicas);
    });
  }
}
