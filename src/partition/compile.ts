/** From a model and a layout to the programs of a mini-batch of one shape, for training and for evaluation. */

import { type TrainingStep, trainingStep } from "../autodiff/training-step.ts";
import { invariant, UserError } from "../base/errors.ts";
import { flowsOf } from "../cost/flow.ts";
import { slicedFor } from "../cost/memory.ts";
import { typicalRates } from "../cost/node-work.ts";
import { estimatedWork } from "../cost/stage-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import type { DType } from "../graph/dtype.ts";
import { layoutProblems, modelProblems } from "../layout/check.ts";
import {
  chunksOf,
  deviceAt,
  type Layout,
  meshAxes,
  positionsOf,
  positionsOfStages,
  ranksAt,
  replicaCount,
} from "../layout/layout.ts";
import { buildForward, type ForwardGraph, type ModelSource } from "../model/forward.ts";
import type { Initializer } from "../model/initializer.ts";
import type { ParameterSpec, StateSpec } from "../model/model-builder.ts";
import type { Optimizer } from "../model/optimizer.ts";
import type { Program } from "../program/program.ts";
import { assertPrograms } from "../program/verify.ts";
import { allActions, type Meets, type Schedule } from "../schedule/action.ts";
import { type StageFacts, scheduleSpec, stageFacts } from "../schedule/layout-spec.ts";
import { schedule } from "../schedule/schedule.ts";
import { meetingsOf } from "../shard/exchanges.ts";
import type { Mesh } from "../shard/mesh.ts";
import { settleParameters } from "../shard/settle.ts";
import { splitGroup } from "../shard/sharded.ts";
import { type SplitGraph, splitOptions } from "../shard/split-source.ts";
import { splitItem } from "../shard/step.ts";
import { groupNumbers } from "./group-numbers.ts";
import { partition } from "./partition.ts";
import { layoutWork, rankWork } from "./rank-work.ts";
import type { ItemSlice, PartitionStep, Replica } from "./source.ts";

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
  /** The model split over the meshes, for one item: how its parameters lie. */
  readonly split: SplitGraph;
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
  const shared = sharedSource(source, layout, first);
  const facts = factsOf(layout, steps, shared);
  const programs = partition({
    ...shared,
    weights: layout.weights,
    replicas: items.slices.map((slices, replica) => ({
      ...ownSteps(steps, slices),
      schedule: scheduleOf(layout, replica, slices, facts),
      deviceOf: (stage, rank) => deviceAt(layout, stage, replica, rank),
    })),
  });
  assertPrograms(programs);
  const targets = items.slices
    .flat(2)
    .reduce((sum, { step: index }) => sum + (forwards[index]?.targets ?? 0), 0);
  return {
    programs,
    parameters: step.parameters,
    statistics: step.states.filter(({ kind }) => kind === "statistic"),
    optimizerStates: step.optimizerStates,
    split: shared.settled,
    targets,
  };
}

/** Programs that compute the loss of a mini-batch of `shape` without learning: one item for each replica, through all stages of a layout that trains. */
export function compileEvaluation(source: CompileSource, layout: Layout, shape: BatchShape): CompiledStep {
  const items = cutItems(shape, { ...layout, microBatches: 1, chunks: 1 });
  const graphs = items.shapes.map((item) => forward(source, item, shape, false));
  const [graph] = graphs;
  invariant(graph !== undefined, "a mini-batch has at least one item");
  const states = graph.states.filter(({ kind }) => kind === "statistic");
  const steps = graphs.map((one): PartitionStep => ({ item: one.graph, states, gradients: [] }));
  const forwardOnly = allActions({
    stages: layout.stages.length,
    microBatches: 1,
    chunks: 1,
    weights: "fused",
  }).filter(({ phase }) => phase === "F");
  const shared = sharedSource(source, layout, forward(source, items.shapes[0] ?? shape, shape, true));
  const programs = partition({
    ...shared,
    weights: "fused",
    replicas: items.slices.map((slices, replica) => ({
      ...ownSteps(steps, slices),
      schedule: layout.devices.map((_, device) =>
        forwardOnly.filter(({ stage }) => ranksAt(layout, stage, replica).includes(device)),
      ),
      deviceOf: (stage, rank) => deviceAt(layout, stage, replica, rank),
    })),
  });
  assertPrograms(programs);
  return {
    programs,
    parameters: graph.parameters,
    statistics: states,
    optimizerStates: [],
    split: shared.settled,
    targets: items.slices.flat(2).reduce((sum, { step }) => sum + (graphs[step]?.targets ?? 0), 0),
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
function checkPlacement(layout: Layout, { graph, states }: ForwardGraph): void {
  const own = layoutProblems(layout);
  const model = { groups: groupsOf({ graph }), shapes: [], flows: flowsOf(graph) };
  const problems =
    own.length > 0 ? own : [...modelProblems(layout, model), ...replicaProblems(layout, states)];
  if (problems.length > 0) throw new UserError("the layout cannot place the model", problems);
}

/** Running statistics of different samples would drift apart. */
function replicaProblems(layout: Layout, states: readonly StateSpec[]): readonly string[] {
  if (replicaCount(layout) === 1) return [];
  return states.flatMap(({ name, group, kind }) =>
    kind === "statistic"
      ? [
          `stages: group "${group}" keeps the statistic "${name}" of its samples, and replicas see different samples: use one replica, or a normalisation without statistics`,
        ]
      : [],
  );
}

/** What a layout says for all replicas and items; how parameters lie follows from an item's model in training. */
function sharedSource(source: CompileSource, layout: Layout, training: ForwardGraph) {
  const shared = {
    inputs: source.inputs,
    devices: layout.devices.length,
    stageOf: stageFinder(layout),
    meshes: layout.stages.map((stage): Mesh => ({ axes: meshAxes(stage) })),
    shardings: layout.shardings ?? {},
    numberOf: groupNumbers(layout),
    zero: replicaCount(layout) > 1 ? (layout.zero ?? 0) : 0,
  };
  const settled = settleParameters(training.graph, splitOptions(shared));
  return { ...shared, settled };
}

type SharedSource = ReturnType<typeof sharedSource>;

function stageFinder(layout: Layout): (group: string) => number {
  const stages = new Map(
    layout.stages.flatMap(({ groups }, stage) => groups.map((group) => [group, stage] as const)),
  );
  return (group) => {
    const stage = stages.get(group);
    invariant(stage !== undefined, `group "${group}" is in no stage`);
    return stage;
  };
}

/** What the schedule of `layout` may ask of its stages, given the steps of all shapes of items; only the wavefront asks. */
function factsOf(layout: Layout, steps: readonly TrainingStep[], shared: SharedSource): StageFacts {
  const [step] = steps;
  if (layout.schedule !== "wavefront" || step === undefined) return {};
  const isFused = layout.weights === "fused";
  const work = layoutWork(estimatedWork(step, typicalRates), layout.stages, isFused, (stage) =>
    rankWork(step, stage, isFused, shared),
  );
  return stageFacts(layout, work, step.states, meetsOf(layout, steps, shared));
}

/**
 * In which phases the devices of each stage meet, by the split model itself: where the schedule takes it that they do not, programs must
 * not wait. It matters only where the devices of a stage hold others, too.
 */
function meetsOf(layout: Layout, steps: readonly TrainingStep[], shared: SharedSource): readonly Meets[] {
  if (positionsOfStages(layout).every((positions) => positions.length === 1))
    return layout.stages.map(() => ({ F: true, B: true, W: false }));
  // Shared gradients are added up over all ranks as soon as there are some.
  if (shared.zero === 2) return layout.stages.map(() => ({ F: true, B: true, W: true }));
  const { stageOf, settled } = shared;
  const meetings = steps.flatMap((step) => {
    const item = slicedFor(step, (group) => `${stageOf(group)}`, layout.weights === "fused");
    const { graph } = splitItem({ ...step, item }, splitOptions(shared), settled);
    return [...meetingsOf(graph, stageOf)];
  });
  const phases = new Set(meetings.map(({ group, phase }) => `${phase} ${stageOf(splitGroup(group).group)}`));
  return layout.stages.map((_, stage) => ({
    F: phases.has(`F ${stage}`),
    B: phases.has(`B ${stage}`),
    W: phases.has(`W ${stage}`),
  }));
}

/** The actions of every device for the items of one replica; none on the devices of the others. */
function scheduleOf(
  layout: Layout,
  replica: number,
  items: readonly (readonly ItemSlice[])[],
  facts: StageFacts,
): Schedule {
  const spec = scheduleSpec(layout, items.length, items[0]?.length ?? 1, facts);
  const order = schedule(spec);
  const positions = positionsOf(layout);
  const positionOf = new Map(
    layout.stages.flatMap((_, stage) =>
      ranksAt(layout, stage, replica).map((device, rank) => {
        const original = deviceAt(layout, stage, 0, rank);
        return [device, positions.findIndex((devices) => devices.includes(original))] as const;
      }),
    ),
  );
  return layout.devices.map((_, device) => order[positionOf.get(device) ?? -1] ?? []);
}

/** The steps that a replica's items use, numbered afresh: joined weight gradients need items of one shape. */
function ownSteps(
  steps: readonly PartitionStep[],
  slices: readonly (readonly ItemSlice[])[],
): Pick<Replica, "steps" | "items"> {
  const used = [...new Set(slices.flat().map(({ step }) => step))];
  return {
    steps: used.map((step) => steps[step] as PartitionStep),
    items: slices.map((row) => row.map((slice) => ({ ...slice, step: used.indexOf(slice.step) }))),
  };
}

/** The items of a mini-batch by replica, micro-batch and chunk, and the distinct shapes among them. */
function cutItems(
  shape: BatchShape,
  layout: Layout,
): {
  readonly slices: readonly (readonly (readonly ItemSlice[])[])[];
  readonly shapes: readonly BatchShape[];
} {
  const shapes: BatchShape[] = [];
  const times = evenParts(shape.time ?? 1, shape.time === undefined ? 1 : chunksOf(layout, shape.time));
  const slices = evenParts(shape.batch, replicaCount(layout)).map(([first, end]) =>
    evenParts(end - first, layout.microBatches).map(([from, to]) =>
      times.map((time): ItemSlice => {
        const item: BatchShape = {
          batch: to - from,
          ...(shape.time !== undefined && { time: time[1] - time[0] }),
        };
        const known = shapes.findIndex((other) => other.batch === item.batch && other.time === item.time);
        const step = known >= 0 ? known : shapes.push(item) - 1;
        return { step, batch: [first + from, first + to], time };
      }),
    ),
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
