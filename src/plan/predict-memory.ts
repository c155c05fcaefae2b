/** What each device holds under a layout: what lasts, and what the schedule keeps of the items alive, action by action. */

import type { ItemWork } from "../cost/stage-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import { type Layout, positionsOf } from "../layout/layout.ts";
import type { HeldGroups } from "../partition/rank-work.ts";
import type { Action, Phase, Schedule, Work } from "../schedule/action.ts";
import { peakItems } from "../schedule/verify.ts";
import type { WorkBook } from "./item-work.ts";
import { orderOf, type PredictSource } from "./predict.ts";

/** Bytes of a device, counted as if all items were as large as the first. */
export interface DeviceMemory {
  /** Parameters, gradients, optimizer state, statistics and data. */
  readonly lasting: number;
  /** The most that it keeps of the items alive, and passes on. */
  readonly activations: number;
}

/** What each device of `layout` holds at most on a mini-batch of `shape`. */
export function predictMemory(
  source: PredictSource,
  layout: Layout,
  shape: BatchShape,
): readonly DeviceMemory[] {
  const { first, spec, order } = orderOf(source, layout, shape);
  const { book } = source;
  const positions = positionsOf(layout);
  const memories = layout.stages.map((stage) => book.memory(first, stage, layout.weights === "fused"));
  const all = spec.microBatches * spec.chunks;
  return layout.devices.map(({ name }, device) => {
    const own = memories.filter((_, stage) => layout.stages[stage]?.devices.includes(name));
    const actions = order[positions.findIndex((devices) => devices.includes(device))] ?? [];
    return {
      lasting: own.reduce((sum, memory) => sum + lastingBytes(memory, all), 0),
      activations: Math.max(0, ...own.map(({ passing }) => passing)) + mostAlive(actions, memories, spec),
    };
  });
}

type StageBytes = ReturnType<WorkBook["memory"]>;

function lastingBytes(memory: StageBytes, items: number): number {
  const { parameters, gradients, optimizer, statistics, data } = memory;
  return parameters + gradients + optimizer + statistics + data * items;
}

/** The most bytes that a device keeps of items at any time of its `actions`; `memories` are by stage, those of one item. */
function mostAlive(actions: readonly Action[], memories: readonly StageBytes[], work: Work): number {
  const done = memories.map(() => ({ F: 0, B: 0, W: 0 }));
  let [kept, most] = [0, 0];
  for (const { stage, phase } of actions) {
    const [counts, memory] = [done[stage] as Counts, memories[stage] as StageBytes];
    const before = aliveBytes(memory, counts, work);
    counts[phase]++;
    const after = aliveBytes(memory, counts, work);
    // While an action runs, what it needs and what it makes are both there.
    const during = { F: after, B: after + memory.untilB, W: before }[phase];
    most = Math.max(most, kept - before + during);
    kept += after - before;
  }
  return most;
}

/** How many items a device is through with, by phase. */
type Counts = { [P in Phase]: number };

/** Bytes of the items of a stage that are between phases, given how many are through with each. */
function aliveBytes(
  { untilB, untilW, fromB }: StageBytes,
  { F, B, W }: Readonly<Counts>,
  work: Work,
): number {
  return untilB * (F - B) + untilW * wholePieces(F - W, work) + fromB * wholePieces(B - W, work);
}

/** W that runs as one product keeps the items of a whole piece from the first of them. */
function wholePieces(items: number, { weights, microBatches, chunks }: Work): number {
  const all = microBatches * chunks;
  const piece = weights === "deferred" ? all : weights === "per-micro-batch" ? chunks : 1;
  return Math.min(all, Math.ceil(items / piece) * piece);
}

/** The most items that a stage keeps at once from F to B, from F to W, and from B to W. */
export interface ItemsAlive {
  readonly untilB: number;
  readonly untilW: number;
  readonly fromB: number;
  /** Items of the mini-batch. */
  readonly all: number;
}

/** Counts along the order of a stage. */
export function itemsAlive(order: Schedule, work: Work, stage: number): ItemsAlive {
  return {
    untilB: peakItems(order, stage, "B"),
    untilW: wholePieces(peakItems(order, stage, "W"), work),
    fromB: wholePieces(peakBetween(order, stage), work),
    all: work.microBatches * work.chunks,
  };
}

/** The most memory of one stage, or of a rank of its mesh, with so many items alive. */
export function stageBytes(
  book: WorkBook,
  item: ItemWork,
  stage: HeldGroups,
  layout: Pick<Layout, "weights">,
  alive: ItemsAlive,
): number {
  const memory = book.memory(item, stage, layout.weights === "fused");
  const { untilB, untilW, fromB, passing } = memory;
  const kept = untilB * alive.untilB + untilW * alive.untilW + fromB * alive.fromB + passing;
  return lastingBytes(memory, alive.all) + kept;
}

/** All bytes of a device. */
export function totalBytes({ lasting, activations }: DeviceMemory): number {
  return lasting + activations;
}

function peakBetween(order: Schedule, stage: number): number {
  let alive = 0;
  let peak = 0;
  for (const action of order.flat()) {
    if (action.stage !== stage || action.phase === "F") continue;
    alive += action.phase === "B" ? 1 : -1;
    peak = Math.max(peak, alive);
  }
  return peak;
}
