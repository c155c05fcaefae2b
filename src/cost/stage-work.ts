/** What the stages of a pipeline have to do for one item. */

import type { TrainingStep } from "../autodiff/training-step.ts";
import { slicedFor } from "./memory.ts";
import { type Rates, secondsOf, workOf } from "./node-work.ts";

/** One number for each phase of one item on one stage. */
export interface StageCosts {
  readonly F: number;
  readonly B: number;
  readonly W: number;
}

/** One item shape in a mini-batch. */
export interface ItemWork {
  readonly step: TrainingStep;
  /** Seconds of each operation of the item graph, on a device of speed 1. */
  readonly seconds: readonly number[];
  /** Bytes that each puts in order out of memory. */
  readonly packed: readonly number[];
}

/** What one stage does for one item, by phase; on a mesh, what each rank does. */
export interface StageWork {
  /** On a device of speed 1. */
  readonly seconds: StageCosts;
  /** Bytes that are put in order out of memory, of all ranks together. */
  readonly packed: StageCosts;
  /** Groups that run. */
  readonly groups: StageCosts;
  /** How often a rank waits for others within the phase, and the bytes that it sends for exchanges. */
  readonly meetings: StageCosts;
  readonly sent: StageCosts;
}

/** The work of an item of `step` as devices of such rates are expected to do it. */
export function estimatedWork(step: TrainingStep, rates: Rates): ItemWork {
  const work = step.item.nodes.map((node) => workOf(step.item, node));
  return {
    step,
    seconds: work.map((one) => secondsOf(one, rates)),
    packed: work.map(({ packed }) => packed),
  };
}

/** The work of the stages of a placement, given the groups of each. */
export function stageWork(
  { step, seconds, packed }: ItemWork,
  stages: readonly (readonly string[])[],
  fused: boolean,
): readonly StageWork[] {
  const indices = new Map(stages.flatMap((groups, stage) => groups.map((group) => [group, stage] as const)));
  const stageOf = (group: string): number => indices.get(group) ?? -1;
  const graph = slicedFor(step, (group) => `${stageOf(group)}`, fused);
  const sums = stages.map(() => ({
    seconds: { F: 0, B: 0, W: 0 },
    packed: { F: 0, B: 0, W: 0 },
    groups: { F: new Set<string>(), B: new Set<string>(), W: new Set<string>() },
  }));
  graph.nodes.forEach(({ group, phase }, i) => {
    const sum = sums[stageOf(group)];
    if (sum === undefined || phase === "U") return;
    sum.seconds[phase] += seconds[i] ?? 0;
    sum.packed[phase] += packed[i] ?? 0;
    sum.groups[phase].add(group);
  });
  const none = { F: 0, B: 0, W: 0 };
  return sums.map(({ groups, ...sum }) => ({
    ...sum,
    groups: { F: groups.F.size, B: groups.B.size, W: groups.W.size },
    meetings: none,
    sent: none,
  }));
}
