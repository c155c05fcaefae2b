/** Random models split over random meshes compute what one device computes, before there is any program. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { trainingStep } from "../../src/autodiff/training-step.ts";
import { UserError } from "../../src/base/errors.ts";
import type { InputSpec } from "../../src/data/dataset.ts";
import { buildForward } from "../../src/model/forward.ts";
import { linear, sequential, tanh } from "../../src/model/layers/basic.ts";
import { lstm } from "../../src/model/layers/recurrent.ts";
import { sgd } from "../../src/model/optimizer.ts";
import type { Axis, Mesh } from "../../src/shard/mesh.ts";
import { settleParameters } from "../../src/shard/settle.ts";
import { splitItem, splitUpdate } from "../../src/shard/step.ts";
import { imageExamples, type RandomExample, sequenceExamples } from "../partition/random-models.ts";
import { expectSameOutputs } from "./evaluate-split.ts";

interface Case {
  readonly example: RandomExample;
  /** The numbers of the groups with which a new stage begins, in any order. */
  readonly cuts: readonly number[];
  /** Whether parameters lie as the forward graph settles it, which refuses axes that split nothing. */
  readonly isSettled: boolean;
  /** For parameters in their order, over and over: which dim the tensor axis is asked to split; none: as by default. */
  readonly chosen: readonly (number | "whole" | undefined)[];
  /** By stage. */
  readonly meshes: readonly Mesh[];
}

function meshesFor({ axes }: RandomExample): fc.Arbitrary<Mesh> {
  return fc
    .tuple(
      ...axes.map((axis) => fc.record({ axis: fc.constant(axis), size: fc.integer({ min: 1, max: 3 }) })),
    )
    .map((all) => all.filter(({ size }) => size > 1) as readonly Axis[])
    .filter((axes) => axes.reduce((product, { size }) => product * size, 1) <= 6)
    .chain((axes) =>
      fc
        .option(fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 }), { nil: undefined })
        .map(
          (shares): Mesh => ({
            axes: axes.map((axis) =>
              axis.axis === "tensor" && shares ? { ...axis, shares: shares.slice(0, axis.size) } : axis,
            ),
          }),
        ),
    );
}

const cases: fc.Arbitrary<Case> = fc.oneof(imageExamples, sequenceExamples).chain((example) =>
  fc.record({
    example: fc.constant(example),
    cuts: fc.uniqueArray(fc.integer({ min: 1, max: example.groups.length - 1 }), { maxLength: 2 }),
    isSettled: fc.boolean(),
    chosen: fc.oneof(
      { arbitrary: fc.constant([undefined]), weight: 2 },
      {
        arbitrary: fc.array(fc.constantFrom(undefined, 0, 1, "whole" as const), {
          minLength: 1,
          maxLength: 5,
        }),
        weight: 1,
      },
    ),
    meshes: fc.array(meshesFor(example), { minLength: 3, maxLength: 3 }),
  }),
);

/** Whether the split is refused; otherwise it computes the same. */
function isRefused({ example, cuts, isSettled, chosen, meshes }: Case): boolean {
  const { source, groups, shapes, vocabulary } = example;
  const [shape] = shapes as [(typeof shapes)[number]];
  const options = { shape: { item: shape, total: shape }, training: true, dtype: "f64" } as const;
  const forward = buildForward(source, options);
  const step = trainingStep(forward, { optimizer: source.optimizer });
  const stageOf = (group: string) => cuts.filter((cut) => cut <= Math.max(0, groups.indexOf(group))).length;
  const common = {
    meshOf: (group: string) => ({ stage: stageOf(group), mesh: meshes[stageOf(group)] as Mesh }),
    chosen: new Map(
      forward.parameters.flatMap(({ name, type }, i) => {
        const dim = chosen[i % chosen.length];
        return dim === undefined || (dim !== "whole" && dim >= type.shape.length)
          ? []
          : [[name, dim] as const];
      }),
    ),
    timeDims: (input: string) =>
      (source.inputs.find(({ name }) => name === input)?.dims ?? []).flatMap((dim, i) =>
        dim === "time" ? [i] : [],
      ),
  };
  try {
    const settled = isSettled ? settleParameters(forward.graph, common) : undefined;
    const item = splitItem(step, common, settled);
    expectSameOutputs(step.item, item, vocabulary);
    expectSameOutputs(step.update, splitUpdate(step, item, common), vocabulary);
    return false;
  } catch (error) {
    if (error instanceof UserError) return true;
    throw error;
  }
}

test("random models on random meshes compute what one device computes, and few are refused", () => {
  let [all, refused] = [0, 0];
  fc.assert(
    fc.property(cases, (one) => {
      all++;
      if (isRefused(one)) refused++;
    }),
    { numRuns: 60 },
  );
  expect(refused / all).toBeLessThan(0.45);
});

test("a sum that is not complete is completed where it meets a tensor that is split along the same axis", () => {
  const layers = [
    linear({ units: 4, group: "first" }),
    tanh({ group: "first" }),
    lstm({ units: 2, group: "g0" }),
    linear({ units: 3, group: "last" }),
  ];
  const inputs = [3, 3].map((size, i): InputSpec => {
    return { name: ["x", "targets"][i] as string, dtype: "f32", dims: ["time", "batch", { size }] };
  });
  const example: RandomExample = {
    name: "linear, LSTM, linear",
    source: {
      model: sequential(layers),
      loss: "mean-squared-error",
      inputs,
      optimizer: sgd({ rate: 0.1 }),
      dtype: "f64",
    },
    groups: ["first", "g0", "last"],
    shapes: [{ batch: 2, time: 3 }],
    hasChunks: true,
    vocabulary: 2,
    axes: ["tensor"],
    hasStatistics: false,
  };
  const mesh: Mesh = { axes: [{ axis: "tensor", size: 2 }] };
  expect(isRefused({ example, cuts: [], isSettled: true, chosen: [undefined], meshes: [mesh] })).toBe(false);
});
