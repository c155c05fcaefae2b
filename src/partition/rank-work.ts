/**
 * What a device of a mesh does of the work of a stage, and what it exchanges for that: the layers of the stage are split as they will be,
 * and the parts of its rank are added up.
 */

import { statisticNames, type TrainingStep } from "../autodiff/training-step.ts";
import { UserError } from "../base/errors.ts";
import { type ItemMemory, itemMemory, slicedFor } from "../cost/memory.ts";
import { secondsOf, typicalRates, workOf } from "../cost/node-work.ts";
import { type ItemWork, type StageCosts, type StageWork, stageWork } from "../cost/stage-work.ts";
import type { Graph, Node, ValueId } from "../graph/graph.ts";
import { bytesOfType, type TensorType } from "../graph/shape.ts";
import { type LayoutStage, meshAxes, meshSize, tensorShares } from "../layout/layout.ts";
import { lossOutput } from "../model/forward.ts";
import { sentBytes } from "../program/collectives.ts";
import { isExchange, meetingsOf } from "../shard/exchanges.ts";
import { noMesh } from "../shard/mesh.ts";
import { settleParameters } from "../shard/settle.ts";
import { splitGroup } from "../shard/sharded.ts";
import {
  partOf,
  type SplitChoices,
  type SplitGraph,
  type SplitOptions,
  splitOptions,
} from "../shard/split-source.ts";
import { splitItem } from "../shard/step.ts";

export interface RankWork {
  /** Of the rank that has most to do; and of one device that does all. */
  readonly seconds: StageCosts;
  readonly alone: StageCosts;
  /** How often a rank waits for others within a phase, and the bytes that it sends for exchanges. */
  readonly meetings: StageCosts;
  readonly sent: StageCosts;
  /** What the rank with the largest share keeps of an item. */
  readonly memory: ItemMemory;
}

/** The part of a stage that decides about its work. */
export type HeldGroups = Pick<LayoutStage, "groups" | "mesh" | "shares">;

/** The work of `stage` on its mesh, by typical rates. Throws a `UserError` where its layers cannot be split over that. */
export function rankWork(
  step: TrainingStep,
  stage: HeldGroups,
  fused: boolean,
  choices: SplitChoices,
): RankWork {
  const held = new Set(stage.groups);
  const item = slicedFor(step, (group) => (held.has(group) ? "here" : "elsewhere"), fused);
  const options = optionsFor(stage, choices);
  const split = splitItem({ ...step, item }, options);
  const { graph } = split;
  const meeting = meetingsOf(graph, (group) => options.meshOf(group).stage);
  const ranks = Array.from({ length: meshSize(stage) }, nothing);
  const [alone, meetings, sent] = [nothing(), nothing(), nothing()];
  for (const node of item.nodes)
    if (node.phase !== "U" && held.has(node.group))
      alone[node.phase] += secondsOf(workOf(item, node), typicalRates);
  const addNode = (node: Node, phase: keyof StageCosts, doing: readonly number[]): void => {
    const part = doing.length / ranks.length;
    if (meeting.has(node)) meetings[phase] += part;
    if (isExchange(node))
      sent[phase] += part * sentBytes(node.op.kind, wholeBytes(graph, node), doing.length);
    else
      for (const rank of doing) (ranks[rank] as Sums)[phase] += secondsOf(workOf(graph, node), typicalRates);
  };
  for (const node of graph.nodes) {
    const { group, ranks: doing } = splitGroup(node.group);
    if (node.phase !== "U" && held.has(group)) addNode(node, node.phase, doing);
  }
  const most = (phase: keyof StageCosts): number => Math.max(...ranks.map((sums) => sums[phase]));
  const seconds = { F: most("F"), B: most("B"), W: most("W") };
  return { seconds, alone, meetings, sent, memory: largestRankMemory(step, split, stage) };
}

function largestRankMemory(
  { states }: Pick<TrainingStep, "states">,
  split: SplitGraph,
  stage: HeldGroups,
): ItemMemory {
  const shares = tensorShares(stage);
  const largest = shares.indexOf(Math.max(...shares));
  const statistics = statisticNames(states);
  const own = split.graph.nodes.flatMap(({ group: name }) => {
    const { group, ranks } = splitGroup(name);
    return stage.groups.includes(group) && ranks.includes(largest) ? [name] : [];
  });
  const lasting = split.graph.inputs.flatMap(({ name }) =>
    statistics.has(partOf(split, name).of) ? [name] : [],
  );
  return itemMemory(split.graph, new Set(own), new Set(lasting));
}

/** What the stages of a layout do for one item; `rankOf` tells what a rank does of one with a mesh. */
export function layoutWork(
  item: ItemWork,
  stages: readonly HeldGroups[],
  fused: boolean,
  rankOf: (stage: HeldGroups) => RankWork,
): readonly StageWork[] {
  const held = stages.map(({ groups }) => groups);
  return stageWork(item, held, fused).map((work, i) => {
    const stage = stages[i] as HeldGroups;
    return meshSize(stage) === 1 ? work : ofRank(work, rankOf(stage));
  });
}

/** What a rank does of `work`, which may take another time than estimated. */
function ofRank(work: StageWork, { seconds, alone, meetings, sent }: RankWork): StageWork {
  const total = ({ F, B, W }: StageCosts): number => F + B + W;
  const factor = total(alone) === 0 ? 1 : total(work.seconds) / total(alone);
  const { F, B, W } = seconds;
  return { ...work, seconds: { F: F * factor, B: B * factor, W: W * factor }, meetings, sent };
}

/** Whether the layers of `stage` can be split over its mesh. */
export function canSplit({ item }: TrainingStep, stage: HeldGroups, choices: SplitChoices): boolean {
  const nodes = item.nodes.filter(({ phase }) => phase === "F");
  const outputs = item.outputs.filter(({ name }) => name === lossOutput);
  try {
    settleParameters({ ...item, nodes, outputs }, optionsFor(stage, choices));
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/** The stage alone is split. */
function optionsFor(stage: HeldGroups, choices: SplitChoices): SplitOptions {
  const stageOf = (group: string): number => (stage.groups.includes(group) ? 1 : 0);
  return splitOptions({ stageOf, meshes: [noMesh, { axes: meshAxes(stage) }], ...choices });
}

type Sums = { -readonly [P in keyof StageCosts]: number };

function nothing(): Sums {
  return { F: 0, B: 0, W: 0 };
}

/** Bytes of the whole tensor that an exchange reduces or gathers. */
function wholeBytes(graph: Graph, { op, inputs }: Node): number {
  const bytes = inputs.map((value: ValueId) => bytesOfType(graph.types[value] as TensorType));
  return op.kind === "all-gather" ? bytes.reduce((sum, part) => sum + part, 0) : (bytes[0] ?? 0);
}
