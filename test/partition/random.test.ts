/** Random models on random layouts give the results of one device. */

import fc from "fast-check";
import { test } from "vitest";
import type { InputSpec } from "../../src/data/dataset.ts";
import { add, concat, sliceDim } from "../../src/graph/functions.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";
import type { Layer } from "../../src/model/layer.ts";
import { dropout, layerNorm, linear, sequential, tanh } from "../../src/model/layers/basic.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { modelOf } from "../../src/model/model-builder.ts";
import { adam, sgd } from "../../src/model/optimizer.ts";
import { scheduleKinds } from "../../src/schedule/schedule.ts";
import { isLegal, nameLayout } from "./layouts.ts";
import type { Example } from "./models.ts";
import { expectSame, outcomeOf } from "./train.ts";

const width = 2;

const kinds = ["linear", "lstm", "gru", "norm", "shared"] as const;

/** One group: a layer, and the earlier values that come in beside the last one. */
interface Block {
  readonly kind: (typeof kinds)[number];
  readonly skips: readonly number[];
  readonly dropout: boolean;
  readonly joined: "add" | "concat";
}

const blocks: fc.Arbitrary<readonly Block[]> = fc.array(
  fc.record({
    kind: fc.constantFrom(...kinds),
    skips: fc.array(fc.nat(5), { maxLength: 2 }),
    dropout: fc.boolean(),
    joined: fc.constantFrom("add", "concat"),
  }),
  { minLength: 1, maxLength: 5 },
);

function layerOf(kind: Block["kind"], group: string, shared: Layer): Layer {
  switch (kind) {
    case "linear":
      return sequential([linear({ units: width, group }), tanh({ group })]);
    case "lstm":
      return lstm({ units: width, group });
    case "gru":
      return gru({ units: width, group });
    case "norm":
      return layerNorm({ group });
    case "shared":
      return sequential([shared], { group });
    default:
      return kind satisfies never;
  }
}

/** Values go from every block to any later ones; blocks of kind "shared" have one weight in common. */
function modelFrom(list: readonly Block[]) {
  const shared = linear({ units: width, name: "shared" });
  const layers = list.map(({ kind }, i) => layerOf(kind, `g${i}`, shared));
  const masks = list.map((_, i) => dropout({ rate: 0.4, group: `g${i}`, name: `drop${i}` }));
  return ({ x }: { readonly [name: string]: Tensor }): Tensor => {
    const values = [x as Tensor];
    for (const [i, block] of list.entries()) {
      const input = modelOf(x as Tensor).within({ group: `g${i}` }, () => joinSkips(block, values));
      const output = (layers[i] as Layer)(input);
      values.push(block.dropout ? (masks[i] as Layer)(output) : output);
    }
    return values.at(-1) as Tensor;
  };
}

function joinSkips({ skips, joined }: Block, values: readonly Tensor[]): Tensor {
  return skips.reduce((sum, skip) => {
    const other = values[skip % values.length] as Tensor;
    return joined === "add" ? add(sum, other) : sliceDim(concat([other, sum], 2), 2, 1, width + 1);
  }, values.at(-1) as Tensor);
}

const sequences: readonly InputSpec[] = ["x", "targets"].map((name) => ({
  name,
  dtype: "f32",
  dims: ["time", "batch", { size: width }],
}));

const examples: fc.Arbitrary<Example> = fc
  .record({
    list: blocks,
    batch: fc.integer({ min: 1, max: 4 }),
    time: fc.integer({ min: 1, max: 4 }),
    optimizer: fc.constantFrom(sgd({ rate: 0.2, clipNorm: 0.1 }), adam({ rate: 0.01, epsilon: 1e-3 })),
  })
  .map(({ list, batch, time, optimizer }) => ({
    name: "random",
    source: {
      model: modelFrom(list),
      loss: "mean-squared-error",
      inputs: sequences,
      optimizer,
      dtype: "f64",
    },
    groups: list.map((_, i) => `g${i}`),
    shapes: [{ batch, time }],
    hasChunks: true,
    vocabulary: 2,
  }));

/** Any cut of the groups into stages on any devices, with any items, that the schedule takes. */
function layoutsFor(groups: readonly string[]): fc.Arbitrary<Layout> {
  const count = groups.length;
  return fc
    .record({
      cuts: fc.subarray(groups.slice(1).map((_, i) => i + 1)),
      places: fc.array(fc.nat(3), { minLength: count, maxLength: count }),
      microBatches: fc.integer({ min: 1, max: 4 }),
      chunks: fc.integer({ min: 1, max: 4 }),
      schedule: fc.constantFrom(...scheduleKinds),
      weights: fc.constantFrom<Layout["weights"]>("fused", "per-item", "per-micro-batch", "deferred"),
      recompute: fc.constantFrom<Layout["recompute"]>("none", "full", [groups[0] as string]),
      inTurn: fc.boolean(),
    })
    .map(({ cuts, places, inTurn, ...choice }): Layout => {
      const starts = [0, ...cuts];
      const chosen = starts.map((_, stage) =>
        inTurn ? stage % ((places[0] as number) + 1) : (places[stage] as number),
      );
      const used = [...new Set(chosen)].sort((a, b) => a - b);
      return {
        version: 1,
        devices: used.map((device) => ({ name: `cpu:${device}`, threads: 1 })),
        stages: starts.map((start, stage) => ({
          devices: [`cpu:${chosen[stage]}`],
          groups: groups.slice(start, starts[stage + 1] ?? count),
        })),
        ...choice,
      };
    })
    .filter(isLegal);
}

test("random models on random layouts give the results of one device", async () => {
  const cases = examples.chain((example) => fc.tuple(fc.constant(example), layoutsFor(example.groups)));
  await fc.assert(
    fc.asyncProperty(cases, async ([example, layout]) => {
      const expected = await outcomeOf(example, oneDevice(example.groups));
      expectSame(await outcomeOf(example, layout), expected, 1e-9, nameLayout(layout));
    }),
    { numRuns: 80 },
  );
});
