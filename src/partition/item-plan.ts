/** The item graph of one shape, cut for a placement: which segments each stage runs in each phase, and who uses which value. */

import { sliceWeightGradients } from "../autodiff/slice.ts";
import { stateNames, type TrainingStep } from "../autodiff/training-step.ts";
import type { Graph, Node, Phase, ValueId } from "../graph/graph.ts";
import { cutSegments, type Segment } from "./segments.ts";

export interface ItemPlan {
  readonly graph: Graph;
  readonly segments: ReadonlyMap<string, readonly Segment[]>;
  /** The stage that makes each value; graph inputs have none. */
  readonly makerOf: ReadonlyMap<ValueId, number>;
  /** The stages that use each value. */
  readonly usersOf: ReadonlyMap<ValueId, ReadonlySet<number>>;
  /** Names of a value that is an output of the graph. */
  readonly namesOf: ReadonlyMap<ValueId, readonly string[]>;
  readonly valueOf: ReadonlyMap<string, ValueId>;
}

/** The plan of one item graph; with `fused` weights, all of the derivative is phase B and nothing is left for W. */
export function planItem(
  step: Pick<TrainingStep, "item" | "states">,
  stageOf: (group: string) => number,
  fused: boolean,
): ItemPlan {
  const urgent = new Set(
    step.states.filter(({ kind }) => kind === "carried").map(({ name }) => stateNames(name).leaving),
  );
  const graph = fused ? step.item : sliceWeightGradients(step.item, urgent, (group) => `${stageOf(group)}`);
  const segments = new Map<string, Segment[]>();
  for (const segment of cutSegments(graph, ({ group, phase }) => `${stageOf(group)} ${group} ${phase}`)) {
    const key = segmentKey(stageOf(segment.group), segment.phase);
    segments.set(key, [...(segments.get(key) ?? []), segment]);
  }
  const makerOf = new Map<ValueId, number>();
  const usersOf = new Map<ValueId, Set<number>>();
  for (const node of graph.nodes) {
    const stage = stageOf(node.group);
    for (const value of node.outputs) makerOf.set(value, stage);
    for (const value of node.inputs) usersOf.set(value, (usersOf.get(value) ?? new Set<number>()).add(stage));
  }
  const namesOf = new Map<ValueId, string[]>();
  for (const { name, value } of graph.outputs) namesOf.set(value, [...(namesOf.get(value) ?? []), name]);
  return {
    graph,
    segments,
    makerOf,
    usersOf,
    namesOf,
    valueOf: new Map(graph.outputs.map(({ name, value }) => [name, value])),
  };
}

export function segmentsOf(plan: ItemPlan, stage: number, phase: Phase): readonly Segment[] {
  return plan.segments.get(segmentKey(stage, phase)) ?? [];
}

function segmentKey(stage: number, phase: Node["phase"]): string {
  return `${stage} ${phase}`;
}
