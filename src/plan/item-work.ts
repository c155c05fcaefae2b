/** Time and memory of the items of a mini-batch, for any cut into items and any placement of groups; steps are built once per shape. */

import { trainingStep } from "../autodiff/training-step.ts";
import { type Flow, stepFlows } from "../cost/flow.ts";
import { type PlaceMemory, placeMemory, slicedFor } from "../cost/memory.ts";
import { type Rates, secondsOf, typicalRates, workOf } from "../cost/node-work.ts";
import {
  estimatedWork,
  type ItemWork,
  type StageCosts,
  type StageWork,
  stageWork,
} from "../cost/stage-work.ts";
import { type BatchShape, shapeKey } from "../data/dataset.ts";
import type { Graph } from "../graph/graph.ts";
import { type Layout, type LayoutStage, meshSize, tensorShares } from "../layout/layout.ts";
import { buildForward } from "../model/forward.ts";
import { type CompileSource, groupsOf } from "../partition/compile.ts";
import { canSplit, type HeldGroups, layoutWork, type RankWork, rankWork } from "../partition/rank-work.ts";
import { type StageFacts, stageFacts } from "../schedule/layout-spec.ts";

/** Measured seconds of one group for the mini-batch `shape` as one item on a device of speed 1, sliced as a place of its own. */
export type MeasuredCosts = ReadonlyMap<string, StageCosts>;

export interface WorkOptions {
  readonly source: CompileSource;
  readonly recompute: Layout["recompute"];
  readonly rates: Rates;
  /** Instead of estimates; other shapes and cuts scale with the estimates. */
  readonly measured?: { readonly shape: BatchShape; readonly costs: MeasuredCosts };
}

/** The work of items; everything is computed once and remembered. */
export interface WorkBook {
  item(item: BatchShape, total: BatchShape): ItemWork;
  /** `layoutWork` for the stages of a layout. */
  stages(item: ItemWork, stages: readonly LayoutStage[], fused: boolean): readonly StageWork[];
  /** `stageFacts` for the items of a layout. */
  facts(item: ItemWork, layout: Layout): StageFacts;
  /** Whether the layers of a stage can be split over its mesh. */
  canSplit(item: ItemWork, stage: HeldGroups): boolean;
  /** The memory of a stage; on a mesh that of a rank. */
  memory(item: ItemWork, stage: HeldGroups, fused: boolean): PlaceMemory;
  flows(item: ItemWork): readonly Flow[];
  /** Seconds of U by group. */
  update(total: BatchShape): ReadonlyMap<string, number>;
}

export function workBook(options: WorkOptions): WorkBook {
  const estimates = new Memory<ItemWork>();
  const estimate = (item: BatchShape, total: BatchShape): ItemWork =>
    estimates.get("", `${shapeKey(item)} of ${shapeKey(total)}`, () => estimateItem(options, item, total));
  const { measured } = options;
  const factors = measured && measuredFactors(estimate(measured.shape, measured.shape), measured.costs);
  const scaled = new Memory<ItemWork>();
  const stages = new Memory<readonly StageWork[]>();
  const typical = new Memory<ItemWork>();
  const memories = new Memory<PlaceMemory>();
  const flows = new Memory<readonly Flow[]>();
  const updates = new Memory<ReadonlyMap<string, number>>();
  const ranks = new Memory<RankWork>();
  const choices = { inputs: options.source.inputs, shardings: {} };
  const rankOf = ({ step }: ItemWork, stage: HeldGroups, fused: boolean) =>
    ranks.get(step, JSON.stringify([fused, heldBy(stage)]), () => rankWork(step, stage, fused, choices));
  const stagesOf: WorkBook["stages"] = (item, placed, fused) => {
    const held = placed.map(heldBy);
    const key = JSON.stringify([fused, held]);
    return stages.get(item, key, () => layoutWork(item, held, fused, (stage) => rankOf(item, stage, fused)));
  };
  const isTypical = measured === undefined && options.rates === typicalRates;
  const typicalOf = (item: ItemWork): ItemWork =>
    isTypical ? item : typical.get(item.step, "", () => estimatedWork(item.step, typicalRates));
  return {
    item: (item, total) => {
      const work = estimate(item, total);
      return factors === undefined ? work : scaled.get(work, "", () => scale(work, factors));
    },
    stages: stagesOf,
    facts: (item, layout) => {
      const work = stagesOf(typicalOf(item), layout.stages, layout.weights === "fused");
      const meets = work.map(({ meetings: { F, B, W } }) => ({ F: F > 0, B: B > 0, W: W > 0 }));
      return stageFacts(layout, work, item.step.states, meets);
    },
    canSplit: (item, stage) => canSplit(item.step, stage, choices),
    memory: (item, stage, fused) => {
      const { groups } = stage;
      const whole = memories.get(item, JSON.stringify([fused, groups]), () =>
        placeMemory(item.step, new Set(groups), fused),
      );
      if (meshSize(stage) === 1) return whole;
      const { parameters, gradients, optimizer } = whole;
      const part = Math.max(...tensorShares(stage));
      return {
        ...whole,
        parameters: parameters * part,
        gradients: gradients * part,
        optimizer: optimizer * part,
        ...rankOf(item, stage, fused).memory,
      };
    },
    flows: (item) => flows.get(item, "", () => stepFlows(item.step)),
    update: (total) => {
      const work = estimate(total, total);
      return updates.get(work, "", () => updateSeconds(work, options.rates));
    },
  };
}

/** What decides about the work of a stage, equal for equal work. */
function heldBy({ groups, mesh = {}, shares }: HeldGroups): HeldGroups {
  return { groups, mesh, shares };
}

/** Results by the object and the key they were made for. */
class Memory<Result> {
  readonly #known = new Map<unknown, Map<string, Result>>();

  get(of: unknown, key: string, make: () => Result): Result {
    const results = this.#known.get(of) ?? new Map<string, Result>();
    this.#known.set(of, results);
    const result = results.get(key) ?? make();
    results.set(key, result);
    return result;
  }
}

/** Seconds of F, B and W of each group of a whole mini-batch as one item, on a device of speed 1. */
export function groupSeconds(work: ItemWork): ReadonlyMap<string, StageCosts> {
  const groups = groupsOf({ graph: work.step.item });
  const stages = stageWork(
    work,
    groups.map((group) => [group]),
    false,
  );
  return new Map(groups.map((group, i) => [group, stages[i]?.seconds ?? { F: 0, B: 0, W: 0 }]));
}

function updateSeconds({ step }: ItemWork, rates: Rates): ReadonlyMap<string, number> {
  const seconds = new Map<string, number>();
  for (const node of step.update.nodes) {
    const before = seconds.get(node.group) ?? 0;
    seconds.set(node.group, before + secondsOf(workOf(step.update, node), rates));
  }
  return seconds;
}

function estimateItem(options: WorkOptions, item: BatchShape, total: BatchShape): ItemWork {
  const { source, recompute, rates } = options;
  const { dtype } = source;
  const forward = buildForward(source, { shape: { item, total }, training: true, dtype });
  const groups = recompute === "full" ? groupsOf(forward) : recompute === "none" ? [] : recompute;
  const step = trainingStep(forward, {
    optimizer: source.optimizer,
    ...(groups.length > 0 && { recompute: new Set(groups) }),
  });
  return estimatedWork(step, rates);
}

/** Groups with a recurrent layer. */
export function recurrentGroups(graph: Graph): ReadonlySet<string> {
  return new Set(
    graph.nodes.flatMap(({ op, group }) => (op.kind === "lstm" || op.kind === "gru" ? [group] : [])),
  );
}

type Factors = (group: string, phase: keyof StageCosts) => number;

function measuredFactors(whole: ItemWork, measured: MeasuredCosts): Factors {
  const estimated = groupSeconds(whole);
  return (group, phase) => {
    const [seconds, estimate] = [measured.get(group)?.[phase], estimated.get(group)?.[phase] ?? 0];
    return seconds === undefined || estimate === 0 ? 1 : seconds / estimate;
  };
}

function scale(work: ItemWork, factors: Factors): ItemWork {
  const { nodes } = slicedFor(work.step, (group) => group, false);
  const seconds = nodes.map(
    ({ group, phase }, i) => (work.seconds[i] ?? 0) * (phase === "U" ? 1 : factors(group, phase)),
  );
  return { ...work, seconds };
}
