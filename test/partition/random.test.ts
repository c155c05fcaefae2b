/** Random models on random layouts give the results of one device. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import type { InputSpec } from "../../src/data/dataset.ts";
import { add, concat, sliceDim } from "../../src/graph/functions.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import {
  type Layout,
  type LayoutStage,
  type Mesh,
  meshSize,
  oneDevice,
  type ZeroStage,
} from "../../src/layout/layout.ts";
import type { Layer } from "../../src/model/layer.ts";
import { dropout, layerNorm, linear, sequential, tanh } from "../../src/model/layers/basic.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { modelOf } from "../../src/model/model-builder.ts";
import { adam, sgd } from "../../src/model/optimizer.ts";
import { scheduleSpec } from "../../src/schedule/layout-spec.ts";
import { scheduleKinds, specProblems } from "../../src/schedule/schedule.ts";
import { isLegal, nameLayout } from "./layouts.ts";
import type { Example } from "./models.ts";
import { imageExamples, type RandomExample, sequenceExamples } from "./random-models.ts";
import { expectSame, type Outcome, outcomeOf } from "./train.ts";

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

/** Sizes of the axes that the example can carry, 4 devices at most. */
function meshesFor({ axes }: RandomExample): fc.Arbitrary<Mesh> {
  return fc
    .tuple(...axes.map(() => fc.constantFrom(1, 1, 2, 2, 3)))
    .map((sizes): Mesh => Object.fromEntries(axes.map((axis, i) => [axis, sizes[i]])))
    .filter((mesh) => meshSize({ mesh }) <= 4);
}

/** Stages on meshes that may overlap with those before; replicas that may share the update. */
function meshedLayoutsFor(example: RandomExample): fc.Arbitrary<Layout> {
  const { groups, hasChunks, hasStatistics, shapes } = example;
  const [{ batch, time = 1 }] = shapes as [{ readonly batch: number; readonly time?: number }];
  return fc
    .record({
      cuts: fc.uniqueArray(fc.integer({ min: 1, max: groups.length - 1 }), { maxLength: 2 }),
      meshes: fc.array(meshesFor(example), { minLength: 3, maxLength: 3 }),
      shares: fc.option(fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 }), {
        nil: undefined,
      }),
      overlaps: fc.array(fc.nat(4), { minLength: 3, maxLength: 3 }),
      replicas: fc.integer({ min: 1, max: hasStatistics ? 1 : 2 }),
      divided: fc.constantFrom<ZeroStage>(0, 1, 2),
      order: fc.nat(),
      microBatches: fc.integer({ min: 1, max: 4 }),
      chunks: fc.integer({ min: 1, max: hasChunks ? Math.min(3, time) : 1 }),
      schedule: fc.constantFrom(...scheduleKinds),
      weights: fc.constantFrom<Layout["weights"]>("fused", "per-item", "per-micro-batch", "deferred"),
      recompute: fc.constantFrom<Layout["recompute"]>("none", "full", [groups[0] as string]),
    })
    .filter(({ microBatches, replicas }) => microBatches * replicas <= batch)
    .map(({ cuts, meshes, shares, overlaps, replicas, divided, order, ...choice }): Layout => {
      const starts = [0, ...cuts.toSorted((a, b) => a - b)];
      let used = 0;
      const ranges = starts.map((_, stage) => {
        const size = meshSize({ mesh: meshes[stage] as Mesh });
        const first = Math.max(0, used - (overlaps[stage] as number));
        used = Math.max(used, first + size);
        return { first, size };
      });
      const stages = starts.map((start, stage): LayoutStage => {
        const { first, size } = ranges[stage] as (typeof ranges)[0];
        const held = Array.from({ length: replicas * size }, (_, i) => ({
          replica: Math.floor(i / size),
          device: first + (i % size),
        }));
        const { tensor = 1 } = meshes[stage] as Mesh;
        return {
          devices: held.map(({ replica, device }) => `cpu:${replica * used + device}`),
          mesh: meshes[stage] as Mesh,
          ...(shares && tensor > 1 && { shares: shares.slice(0, tensor) }),
          groups: groups.slice(start, starts[stage + 1]),
        };
      });
      const count = replicas * used;
      const names = Array.from({ length: count }, (_, i) => `cpu:${(i + order) % count}`);
      const zero = replicas > 1 && (divided < 2 || batch % replicas === 0) ? divided : 0;
      return { version: 1, devices: names.map((name) => ({ name, threads: 1 })), stages, ...choice, zero };
    })
    .filter((layout) => specProblems(scheduleSpec(layout, layout.microBatches, layout.chunks)).length === 0);
}

/** Replicas that share the update keep the gradients of their own samples; only parts of them are added up. */
function comparable(outcome: Outcome, { zero = 0 }: Layout): Outcome {
  return zero === 0 ? outcome : new Map([...outcome].filter(([name]) => !name.startsWith("grad:")));
}

test("random models on random meshes and replicas give the results of one device, and few are refused", async () => {
  const cases = fc
    .oneof(imageExamples, sequenceExamples)
    .chain((example) => fc.tuple(fc.constant(example), meshedLayoutsFor(example)));
  let [all, refused] = [0, 0];
  await fc.assert(
    fc.asyncProperty(cases, async ([example, layout]) => {
      all++;
      const { microBatches } = layout;
      try {
        const got = comparable(await outcomeOf(example, layout), layout);
        const plain: Layout = { ...oneDevice(example.groups), microBatches, schedule: "gpipe" };
        const expected = comparable(await outcomeOf(example, plain), layout);
        expectSame(got, expected, 1e-9, JSON.stringify(layout));
      } catch (error) {
        if (!(error instanceof UserError) || error.problems.length === 0) throw error;
        refused++;
      }
    }),
    { numRuns: 40 },
  );
  expect(refused / all).toBeLessThan(0.45);
});
