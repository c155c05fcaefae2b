/** What each group of a model costs in one training step: arithmetic, memory, and what it saves for its derivative. */

import type { TrainingStep } from "../autodiff/training-step.ts";
import type { Graph, Phase } from "../graph/graph.ts";
import { placeMemory, slicedFor } from "./memory.ts";
import { type Rates, secondsOf, workOf } from "./node-work.ts";

/** One number for each phase. */
export type PerPhase = { readonly [P in Phase]: number };

/** The cost of one group; all bytes and operations are those of an item of the step's shape, U of the whole step. */
export interface GroupCost {
  readonly group: string;
  readonly flops: PerPhase;
  /** Lower bound of the time on a device of the given rates, in seconds. */
  readonly seconds: PerPhase;
  readonly parameterBytes: number;
  readonly gradientBytes: number;
  readonly optimizerBytes: number;
  /** Values that one item keeps from its F to its B or W, or from its B to its W. */
  readonly savedBytes: number;
}

/** The cost of every group of `step` as a place of its own, in the order in which they first compute. */
export function groupCosts(step: TrainingStep, rates: Rates): readonly GroupCost[] {
  const graph = slicedFor(step, (group) => group, false);
  const sums = new Map<string, { flops: MutablePhases; seconds: MutablePhases }>();
  for (const part of [graph, step.update]) addWork(part, rates, sums);
  return [...sums].map(([group, { flops, seconds }]) => {
    const memory = placeMemory(step, new Set([group]), false);
    return {
      group,
      flops,
      seconds,
      parameterBytes: memory.parameters,
      gradientBytes: memory.gradients,
      optimizerBytes: memory.optimizer,
      savedBytes: memory.untilB + memory.untilW + memory.fromB,
    };
  });
}

type MutablePhases = { [P in Phase]: number };

function addWork(
  graph: Graph,
  rates: Rates,
  sums: Map<string, { flops: MutablePhases; seconds: MutablePhases }>,
): void {
  for (const node of graph.nodes) {
    const sum = sums.get(node.group) ?? { flops: noWork(), seconds: noWork() };
    const work = workOf(graph, node);
    sum.flops[node.phase] += work.flops;
    sum.seconds[node.phase] += secondsOf(work, rates);
    sums.set(node.group, sum);
  }
}

function noWork(): MutablePhases {
  return { F: 0, B: 0, W: 0, U: 0 };
}
