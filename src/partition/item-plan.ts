/** The item graph of one shape, split over the meshes and cut for a placement: who runs which segments in each phase, and who uses which value. */

import { slicedFor } from "../cost/memory.ts";
import type { Graph, GraphInput, Node, Phase, ValueId } from "../graph/graph.ts";
import { sizeOf, type TensorType } from "../graph/shape.ts";
import type { Collective } from "../program/program.ts";
import { isExchange } from "../shard/exchanges.ts";
import { noMesh, rankCount } from "../shard/mesh.ts";
import { splitGroup } from "../shard/sharded.ts";
import { type SplitGraph, splitOptions } from "../shard/split-source.ts";
import { splitItem } from "../shard/step.ts";
import { cutSegments, type Segment } from "./segments.ts";
import type { PartitionStep, ReplicaSource } from "./source.ts";

export interface ItemPlan {
  readonly split: SplitGraph;
  readonly graph: Graph;
  readonly segments: ReadonlyMap<string, readonly Segment[]>;
  /** The device that makes each value; graph inputs have none. */
  readonly makerOf: ReadonlyMap<ValueId, number>;
  /** The devices that use each value. */
  readonly usersOf: ReadonlyMap<ValueId, ReadonlySet<number>>;
  /** Names of a value that is an output of the graph. */
  readonly namesOf: ReadonlyMap<ValueId, readonly string[]>;
  readonly valueOf: ReadonlyMap<string, ValueId>;
  /** The value in whose buffer a sum over ranks lies: the operand, where nothing else needs it. */
  readonly placeOf: ReadonlyMap<ValueId, ValueId>;
}

/** The plan of one item graph; with `fused` weights, all of the derivative is phase B and nothing is left for W. */
export function planItem(step: PartitionStep, source: ReplicaSource): ItemPlan {
  const { stageOf } = source;
  const item = slicedFor(step, (group) => `${stageOf(group)}`, source.weights === "fused");
  const split = splitItem({ ...step, item }, splitOptions(source), source.settled);
  const { graph } = split;
  const segments = new Map<string, Segment[]>();
  for (const segment of cutSegments(graph, (node) => placeOfNode(node, source))) {
    const key = segmentKey(stageOfGroup(segment.group, source), segment.phase);
    segments.set(key, [...(segments.get(key) ?? []), segment]);
  }
  const namesOf = new Map<ValueId, string[]>();
  for (const { name, value } of graph.outputs) namesOf.set(value, [...(namesOf.get(value) ?? []), name]);
  return {
    split,
    graph,
    segments,
    ...usesOf(graph, source),
    namesOf,
    valueOf: new Map(graph.outputs.map(({ name, value }) => [name, value])),
    placeOf: sumsInPlace(graph, () => false),
  };
}

/** The segments of a stage and phase, of all devices of the stage. */
export function segmentsOf(plan: ItemPlan, stage: number, phase: Phase): readonly Segment[] {
  return plan.segments.get(segmentKey(stage, phase)) ?? [];
}

/** The devices that a group of the split graph stands for. */
export function devicesOfGroup(
  name: string,
  source: Pick<ReplicaSource, "stageOf" | "deviceOf">,
): readonly number[] {
  const { group, ranks } = splitGroup(name);
  return ranks.map((rank) => source.deviceOf(source.stageOf(group), rank));
}

/** The instruction by which one device takes part in an exchange; a sum lies in `into` already. */
export function exchangeInstruction(
  { op, inputs, outputs }: NonNullable<Segment["exchange"]>,
  { types }: Graph,
  { buffer, into }: { readonly buffer: number; readonly into: number },
  meeting: Pick<Collective, "group" | "ranks" | "phase" | "item">,
): Collective {
  if (op.kind === "all-reduce") return { kind: "all-reduce", reduce: op.reduce, buffer: into, ...meeting };
  const parts = op.kind === "all-gather" ? inputs : outputs;
  const sizes = parts.map((value) => sizeOf((types[value] as TensorType).shape));
  return { kind: op.kind, buffer, into, sizes, ...meeting };
}

/** The devices that hold a stage together, by rank. */
export function devicesOfStage(
  stage: number,
  { deviceOf, meshes }: Pick<ReplicaSource, "deviceOf" | "meshes">,
): readonly number[] {
  return Array.from({ length: rankCount(meshes[stage] ?? noMesh) }, (_, rank) => deviceOf(stage, rank));
}

/** What a run of a group of the split graph on a device says of its place: the rank only where the stage has several. */
export function runPlace(
  name: string,
  device: number,
  source: Pick<ReplicaSource, "stageOf" | "deviceOf" | "meshes">,
): { readonly stage: number; readonly rank?: number; readonly group: string } {
  const { group } = splitGroup(name);
  const stage = source.stageOf(group);
  const devices = devicesOfStage(stage, source);
  const rank = devices.indexOf(device);
  return { stage, ...(devices.length > 1 && rank >= 0 && { rank }), group };
}

function stageOfGroup(name: string, { stageOf }: Pick<ReplicaSource, "stageOf">): number {
  return stageOf(splitGroup(name).group);
}

/** What is run as a whole: the work of one group in one phase on one device, or one exchange. */
export function placeOfNode(node: Node, source: Pick<ReplicaSource, "stageOf">): string {
  const own = `${stageOfGroup(node.group, source)} ${node.group} ${node.phase}`;
  return isExchange(node) ? `${own} ${node.outputs[0]}` : own;
}

function usesOf(graph: Graph, source: ReplicaSource): Pick<ItemPlan, "makerOf" | "usersOf"> {
  const makerOf = new Map<ValueId, number>();
  const usersOf = new Map<ValueId, Set<number>>();
  for (const node of graph.nodes) {
    const devices = devicesOfGroup(node.group, source);
    const deviceAt = (i: number) => (isExchange(node) ? devices[i] : devices[0]) as number;
    node.outputs.forEach((value, i) => {
      makerOf.set(value, deviceAt(i));
    });
    node.inputs.forEach((value, i) => {
      usersOf.set(value, (usersOf.get(value) ?? new Set<number>()).add(deviceAt(i)));
    });
  }
  return { makerOf, usersOf };
}

/** Sums over ranks whose operand is made for them alone, or is an input that `mayReplace`, replace it. */
export function sumsInPlace(
  graph: Graph,
  mayReplace: (input: GraphInput) => boolean,
): ReadonlyMap<ValueId, ValueId> {
  const uses = new Map<ValueId, number>();
  const count = (value: ValueId) => uses.set(value, (uses.get(value) ?? 0) + 1);
  for (const node of graph.nodes) for (const value of node.inputs) count(value);
  for (const { value } of graph.outputs) count(value);
  const places = new Map<ValueId, ValueId>();
  for (const node of graph.nodes) {
    if (node.op.kind !== "all-reduce") continue;
    node.inputs.forEach((value, i) => {
      const input = graph.inputs[value];
      if (uses.get(value) === 1 && (input === undefined || mayReplace(input)))
        places.set(node.outputs[i] as ValueId, value);
    });
  }
  return places;
}

function segmentKey(stage: number, phase: Node["phase"]): string {
  return `${stage} ${phase}`;
}
