/** From a model and a layout to the programs of a mini-batch of one shape, for training and for evaluation. */

import { type TrainingStep, trainingStep } from "../autodiff/training-step.ts";
import { invariant, UserError } from "../base/errors.ts";
import { flowsOf } from "../cost/flow.ts";
import type { BatchShape } from "../data/dataset.ts";
import type { DType } from "../graph/dtype.ts";
import { layoutProblems, modelProblems } from "../layout/check.ts";
import { chunksOf, type Layout } from "../layout/layout.ts";
import { buildForward, type ForwardGraph, type ModelSource } from "../model/forward.ts";
import type { Initializer } from "../model/initializer.ts";
import type { ParameterSpec, StateSpec } from "../model/model-builder.ts";
import type { Optimizer } from "../model/optimizer.ts";
import type { Program } from "../program/program.ts";
import { assertPrograms } from "../program/verify.ts";
import { allActions, type Schedule } from "../schedule/action.ts";
import { schedule } from "../schedule/schedule.ts";
import { partition } from "./partition.ts";
import type { ItemSlice, PartitionSource } from "./source.ts";

export interface CompileSource extends ModelSource {
  readonly optimizer: Optimizer;
  readonly dtype: DType;
  readonly initializer?: Initializer;
}

/** The programs of all devices for one mini-batch shape, and what they keep between steps. */
export interface CompiledStep {
  readonly programs: readonly Program[];
  readonly parameters: readonly ParameterSpec[];
  readonly statistics: readonly StateSpec[];
  readonly optimizerStates: TrainingStep["optimizerStates"];
  /** Number of losses in the whole mini-batch: what it counts where the data does not say how many targets are valid. */
  readonly targets: number;
}

/** Programs that train on a mini-batch of `shape` once, proved correct. Throws a `UserError` where the model does not fit the layout. */
export function compileTraining(source: CompileSource, layout: Layout, shape: BatchShape): CompiledStep {
  const items = cutItems(shape, layout);
  const forwards = items.shapes.map((item) => forward(source, item, shape, true));
  const [first] = forwards;
  invariant(first !== undefined, "a mini-batch has at least one item");
  checkPlacement(layout, first);
  const groups = groupsOf(first);
  const again =
    layout.recompute === "none"
      ? {}
      : { recompute: new Set(layout.recompute === "full" ? groups : layout.recompute) };
  const steps = forwards.map((graph) => trainingStep(graph, { optimizer: source.optimizer, ...again }));
  const step = steps[0] as TrainingStep;
  const programs = partition({
    ...placement(layout),
    inputs: source.inputs,
    steps,
    items: items.slices,
    weights: layout.weights,
    schedule: scheduleOf(layout, items.slices),
  });
  assertPrograms(programs);
  const targets = items.slices
    .flat()
    .reduce((sum, { step: index }) => sum + (forwards[index]?.targets ?? 0), 0);
  return {
    programs,
    parameters: step.parameters,
    statistics: step.states.filter(({ kind }) => kind === "statistic"),
    optimizerStates: step.optimizerStates,
    targets,
  };
}

/** Programs that compute the loss of a mini-batch of `shape` without learning: one item, through all stages of a layout that trains. */
export function compileEvaluation(source: CompileSource, layout: Layout, shape: BatchShape): CompiledStep {
  const graph = forward(source, shape, shape, false);
  const slice: ItemSlice = { step: 0, batch: [0, shape.batch], time: [0, shape.time ?? 1] };
  const order: Schedule = layout.devices.map((_, device) =>
    allActions({ stages: layout.stages.length, microBatches: 1, chunks: 1, weights: "fused" }).filter(
      ({ phase, stage }) => phase === "F" && deviceOf(layout, stage) === device,
    ),
  );
  const states = graph.states.filter(({ kind }) => kind === "statistic");
  const programs = partition({
    ...placement(layout),
    inputs: source.inputs,
    steps: [{ item: graph.graph, states, gradients: [] }],
    items: [[slice]],
    weights: "fused",
    schedule: order,
  });
  assertPrograms(programs);
  return {
    programs,
    parameters: graph.parameters,
    statistics: states,
    optimizerStates: [],
    targets: graph.targets,
  };
}

/** Names of all groups of a forward graph, in the order in which they first compute. */
export function groupsOf({ graph }: Pick<ForwardGraph, "graph">): readonly string[] {
  return [...new Set(graph.nodes.map(({ group }) => group))];
}

function forward(
  source: CompileSource,
  item: BatchShape,
  total: BatchShape,
  training: boolean,
): ForwardGraph {
  const { dtype, initializer } = source;
  return buildForward(source, {
    shape: { item, total },
    training,
    dtype,
    ...(initializer && { initializer }),
  });
}

/** Throws a `UserError` with everything that keeps the layout from placing the model. */
function checkPlacement(layout: Layout, { graph }: ForwardGraph): void {
  const own = layoutProblems(layout);
  const model = { groups: groupsOf({ graph }), shapes: [], flows: flowsOf(graph) };
  const problems = own.length > 0 ? own : modelProblems(layout, model);
  if (problems.length > 0) throw new UserError("the layout cannot place the model", problems);
}

function placement(layout: Layout): Pick<PartitionSource, "stageOf" | "deviceOf"> {
  const stages = new Map(
    layout.stages.flatMap(({ groups }, stage) => groups.map((group) => [group, stage] as const)),
  );
  const stageOf = (group: string): number => {
    const stage = stages.get(group);
    invariant(stage !== undefined, `group "${group}" is in no stage`);
    return stage;
  };
  return { stageOf, deviceOf: (stage) => deviceOf(layout, stage) };
}

function deviceOf(layout: Layout, stage: number): number {
  return layout.devices.findIndex(({ name }) => name === layout.stages[stage]?.device);
}

function scheduleOf(layout: Layout, items: readonly (readonly ItemSlice[])[]): Schedule {
  return schedule({
    kind: layout.schedule,
    devices: layout.devices.length,
    stages: layout.stages.length,
    microBatches: items.length,
    chunks: items[0]?.length ?? 1,
    weights: layout.weights,
    placement: layout.stages.map((_, stage) => deviceOf(layout, stage)),
  });
}

/** The items of a mini-batch and the distinct shapes among them. */
function cutItems(
  shape: BatchShape,
  layout: Layout,
): { readonly slices: readonly (readonly ItemSlice[])[]; readonly shapes: readonly BatchShape[] } {
  const shapes: BatchShape[] = [];
  const batches = evenParts(shape.batch, layout.microBatches);
  const times = evenParts(shape.time ?? 1, shape.time === undefined ? 1 : chunksOf(layout, shape.time));
  const slices = batches.map((batch) =>
    times.map((time): ItemSlice => {
      const item: BatchShape = {
        batch: batch[1] - batch[0],
        ...(shape.time !== undefined && { time: time[1] - time[0] }),
      };
      const known = shapes.findIndex((other) => other.batch === item.batch && other.time === item.time);
      return { step: known >= 0 ? known : shapes.push(item) - 1, batch, time };
    }),
  );
  return { slices, shapes };
}

/** [0, size) cut into `parts` ranges whose sizes differ by at most 1, larger ones first; no range is empty. */
export function evenParts(size: number, parts: number): readonly (readonly [number, number])[] {
  const count = Math.min(parts, size);
  return Array.from({ length: count }, (_, i) => {
    const start = (part: number) => Math.floor(size / count) * part + Math.min(part, size % count);
    return [start(i), start(i + 1)] as const;
  });
}
