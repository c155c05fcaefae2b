/** Programs of real training steps, written by the partitioner, for small models. */

import type { InputSpec } from "../../src/data/dataset.ts";
import type { Layout } from "../../src/layout/layout.ts";
import type { Model } from "../../src/model/layer.ts";
import { embedding, linear, sequential } from "../../src/model/layers/basic.ts";
import { lstm } from "../../src/model/layers/recurrent.ts";
import { adam, type Optimizer, sgd } from "../../src/model/optimizer.ts";
import { compileEvaluation, compileTraining } from "../../src/partition/compile.ts";
import type { Program } from "../../src/program/program.ts";
import { scheduleKinds, specProblems } from "../../src/schedule/schedule.ts";

export type Choice = Pick<Layout, "microBatches" | "chunks" | "schedule" | "weights"> & {
  readonly model: "lstm" | "tied";
  /** Groups of each stage, and the device of each stage by number. */
  readonly stages: readonly (readonly string[])[];
  readonly placement?: readonly number[];
  readonly optimizer?: "sgd" | "adam";
  readonly recompute?: Layout["recompute"];
  readonly batch?: number;
  readonly time?: number;
  readonly evaluation?: boolean;
};

const layers: readonly string[] = ["layer0", "layer1", "layer2"];

function languageModel(kind: Choice["model"]): Model {
  const embed = embedding({ vocabulary: 7, dim: 3, group: "embed" });
  const recurrent = layers.map((group) => lstm({ units: 3, dropout: 0.5, group }));
  const decode =
    kind === "tied" ? sequential([embed.decode], { group: "decode" }) : linear({ units: 7, group: "decode" });
  return sequential([embed, ...recurrent, decode]);
}

const inputs: readonly InputSpec[] = [
  { name: "tokens", dtype: "i32", dims: ["time", "batch"] },
  { name: "targets", dtype: "i32", dims: ["time", "batch"] },
];

const optimizers: { readonly [name in "sgd" | "adam"]: Optimizer } = {
  sgd: sgd({ rate: 0.1, clipNorm: 5 }),
  adam: adam({ rate: 0.1 }),
};

/** The groups of the model in 1 to 4 stages. */
export const cuts: readonly (readonly (readonly string[])[])[] = [
  [["embed", ...layers, "decode"]],
  [
    ["embed", "layer0"],
    ["layer1", "layer2", "decode"],
  ],
  [["embed", "layer0"], ["layer1"], ["layer2", "decode"]],
  [["embed", "layer0"], ["layer1"], ["layer2"], ["decode"]],
];

const weightTimings = ["fused", "per-item", "per-micro-batch", "deferred"] as const;

/** Choices of every schedule and weight timing, with and without cuts of the batch and of time, even and ragged. */
export function choices(): readonly Choice[] {
  const items = [
    { microBatches: 1, chunks: 1 },
    { microBatches: 3, chunks: 1, batch: 5 },
    { microBatches: 2, chunks: 2 },
    { microBatches: 1, chunks: 3, time: 5 },
  ];
  const placements = [[0], [0, 1], [0, 1, 2], [0, 1, 0, 1]];
  return placements.flatMap((placement, i) =>
    scheduleKinds.flatMap((schedule) =>
      weightTimings.flatMap((weights) =>
        items.flatMap((item): Choice[] => {
          const stages = cuts[i] as (typeof cuts)[number];
          const spec = {
            ...item,
            kind: schedule,
            devices: new Set(placement).size,
            stages: stages.length,
            placement: placement.map((device) => [device]),
            weights,
          };
          const model = stages.length < 3 ? "tied" : "lstm";
          const optimizer = item.chunks > 1 ? "adam" : "sgd";
          return specProblems(spec).length > 0
            ? []
            : [{ ...item, model, stages, placement, schedule, weights, optimizer }];
        }),
      ),
    ),
  );
}

export function realPrograms(choice: Choice): readonly Program[] {
  const { stages, microBatches, chunks, schedule, weights, recompute = "none" } = choice;
  const placement = choice.placement ?? stages.map((_, stage) => stage);
  const layout: Layout = {
    version: 1,
    devices: Array.from({ length: Math.max(...placement) + 1 }, (_, i) => ({ name: `cpu:${i}`, threads: 1 })),
    stages: stages.map((held, stage) => ({ devices: [`cpu:${placement[stage]}`], groups: held })),
    microBatches,
    chunks,
    schedule,
    weights,
    recompute,
  };
  const source = {
    model: languageModel(choice.model),
    loss: "cross-entropy",
    inputs,
    optimizer: optimizers[choice.optimizer ?? "sgd"],
    dtype: "f32",
  } as const;
  const shape = { batch: choice.batch ?? 2 * microBatches, time: choice.time ?? 2 * chunks };
  const compile = choice.evaluation === true ? compileEvaluation : compileTraining;
  return compile(source, layout, shape).programs;
}
