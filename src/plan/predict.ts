/**
 * How long a step takes under a layout: the schedule is replayed on paper with the estimated or measured
 * cost of every item. What a transfer costs beyond its latency and bandwidth, and what devices take from each other, is left out.
 */

import { incomingBytes } from "../cost/flow.ts";
import { type Rates, warmSeconds } from "../cost/node-work.ts";
import { type ItemWork, type StageWork, stageWork } from "../cost/stage-work.ts";
import { type BatchShape, shapeKey } from "../data/dataset.ts";
import {
  chunksOf,
  type Layout,
  type LayoutDevice,
  positionsOf,
  positionsOfStages,
  tensorShares,
} from "../layout/layout.ts";
import { evenParts, groupsOf } from "../partition/compile.ts";
import { loadAt, type Schedule, type StageEdge } from "../schedule/action.ts";
import { loadsOf, scheduleSpec } from "../schedule/layout-spec.ts";
import { type ReplayCosts, replay } from "../schedule/replay.ts";
import { type ScheduleSpec, schedule } from "../schedule/schedule.ts";
import { type PlanDevice, speedOf } from "./balance.ts";
import type { WorkBook } from "./item-work.ts";

/** Costs that every item pays whatever it computes. */
export interface Overheads {
  /** Seconds to start one segment (the work of one group in one phase). */
  readonly segment: number;
  /** Seconds from the end of a value to its use on another device, and bytes per second beyond that. */
  readonly latency: number;
  readonly bytesPerSecond: number;
}

/** Threads with shared memory on one machine. */
export const threadOverheads: Overheads = { segment: 30e-6, latency: 20e-6, bytesPerSecond: 5e9 };

export interface PredictSource {
  readonly book: WorkBook;
  readonly rates: Rates;
  readonly overheads: Overheads;
  /** As in the layout, with speeds. */
  readonly devices: readonly PlanDevice[];
}

/** The predicted step of a mini-batch of one shape. */
export interface Prediction {
  readonly seconds: number;
  /** Per device: idle time over the step, from 0 to 1. */
  readonly idle: readonly number[];
}

/**
 * The prediction for `layout`, which must be sound (`checkLayout`) and has one replica, on a mini-batch of `shape`. Throws a
 * `UserError` where the layers of a stage cannot be split over its mesh.
 */
export function predict(source: PredictSource, layout: Layout, shape: BatchShape): Prediction {
  const { items, first, spec, order } = orderOf(source, layout, shape);
  const stages = layout.stages.map(({ groups }) => new Set(groups));
  const stageOf = (group: string): number => stages.findIndex((groups) => groups.has(group));
  const flows = source.book.flows(first);
  const speedAt = (device: number): number => {
    const own = layout.devices[device] as LayoutDevice;
    return speedOf(source.devices.find(({ name }) => name === own.name) ?? own);
  };
  const loads = loadsOf(layout, speedAt);
  const places = positionsOfStages(layout);
  const loadOf: LoadOf = (stage, position) => loadAt(loads, places, stage, position);
  const perItem = flows.filter(({ phase }) => phase !== "U");
  const largest = Math.max(0, ...stages.map((groups) => incomingBytes(perItem, groups)));
  const run = replay(
    order,
    { ...spec, edges: stageEdges(flows, stageOf) },
    {
      durations: durationsOf(source, layout, items, loadOf),
      transfer: source.overheads.latency + largest / source.overheads.bytesPerSecond,
      updates: updatesOf(source.book, layout, shape, loadOf),
    },
  );
  const positions = positionsOf(layout);
  const bubbleOf = (device: number): number =>
    run.bubbles[positions.findIndex((devices) => devices.includes(device))] ?? 0;
  return { seconds: run.makespan, idle: layout.devices.map((_, device) => bubbleOf(device)) };
}

interface ItemOrder {
  readonly items: Items;
  readonly first: ItemWork;
  readonly spec: ScheduleSpec;
  readonly order: Schedule;
}

/** The items of a mini-batch, and the order in which the devices work on them. */
export function orderOf({ book }: PredictSource, layout: Layout, shape: BatchShape): ItemOrder {
  const items = itemsOf(book, layout, shape);
  const [[first]] = items.grid as readonly [readonly [ItemWork]];
  const chunks = items.grid[0]?.length ?? 1;
  const spec = scheduleSpec(layout, items.grid.length, chunks, book.facts(first, layout));
  return { items, first, spec, order: schedule(spec) };
}

/** Seconds of the whole mini-batch as one item on one device of the given speed. */
export function oneDeviceSeconds(book: WorkBook, shape: BatchShape, speed: number): number {
  const item = book.item(shape, shape);
  const [stage] = stageWork(item, [groupsOf({ graph: item.step.item })], true);
  const { F, B, W } = stage?.seconds ?? { F: 0, B: 0, W: 0 };
  const update = [...book.update(shape).values()].reduce((sum, seconds) => sum + seconds, 0);
  return (F + B + W + update) / speed;
}

/** Pairs of stages between which values flow forward. */
function stageEdges(
  flows: readonly { readonly from: string; readonly to: string; readonly phase: string }[],
  stageOf: (group: string) => number,
): readonly StageEdge[] {
  const edges = new Map<string, StageEdge>();
  for (const flow of flows) {
    const [from, to] = [stageOf(flow.from), stageOf(flow.to)];
    if (flow.phase === "F" && from < to) edges.set(`${from} ${to}`, [from, to]);
  }
  return [...edges.values()];
}

interface Items {
  /** By micro-batch and chunk; items of one shape are the same object. */
  readonly grid: readonly (readonly ItemWork[])[];
  /** Items whose W is one product. */
  readonly joined: number;
}

function itemsOf(book: WorkBook, layout: Layout, shape: BatchShape): Items {
  const { microBatches, weights } = layout;
  const { time } = shape;
  const sizes = (size: number, parts: number) => evenParts(size, parts).map(([start, end]) => end - start);
  const times = time === undefined ? [undefined] : sizes(time, chunksOf(layout, time));
  const shapes = new Set<string>();
  const grid = sizes(shape.batch, microBatches).map((batch) =>
    times.map((steps) => {
      const item: BatchShape = steps === undefined ? { batch } : { batch, time: steps };
      shapes.add(shapeKey(item));
      return book.item(item, shape);
    }),
  );
  const all = grid.length * times.length;
  const piece = weights === "deferred" ? all : weights === "per-micro-batch" ? times.length : 1;
  return { grid, joined: shapes.size === 1 ? piece : 1 };
}

/** How long the devices of a position take for what the largest rank of a stage does in time 1 at speed 1. */
type LoadOf = (stage: number, position: number) => number;

function durationsOf(
  { book, rates, overheads }: PredictSource,
  layout: Layout,
  { grid, joined }: Items,
  loadOf: LoadOf,
): ReplayCosts["durations"] {
  const fused = layout.weights === "fused";
  const known = new Map<ItemWork, readonly StageWork[]>();
  for (const item of grid.flat())
    if (!known.has(item)) known.set(item, book.stages(item, layout.stages, fused));
  const items = grid.flat().length;
  const [[first]] = grid as readonly [readonly [ItemWork]];
  /** Every item but the first adds its gradients to those before: two reads and a write. */
  const adding = layout.stages.map((stage) => {
    const { gradients } = book.memory(first, stage, fused);
    return joined > 1 ? 0 : (3 * gradients * (items - 1)) / items / rates.bytesPerSecond;
  });
  return ({ phase, stage, microBatch, chunk }, position, before) => {
    const item = grid[microBatch]?.[chunk] as ItemWork;
    const stages = known.get(item) as readonly StageWork[];
    const { seconds, packed, groups, meetings, sent } = stages[stage] as StageWork;
    const isWarm = before?.phase === phase && before.stage === stage;
    const starting =
      (groups[phase] + meetings[phase]) * overheads.segment +
      meetings[phase] * overheads.latency +
      sent[phase] / overheads.bytesPerSecond;
    const load = loadOf(stage, position);
    if (phase !== "W")
      return (seconds[phase] - (isWarm ? warmSeconds(packed[phase], rates) : 0)) * load + starting;
    return (seconds.W + (adding[stage] ?? 0)) * load + starting / joined;
  };
}

/** Seconds of U by stage and position. */
function updatesOf(
  book: WorkBook,
  layout: Layout,
  shape: BatchShape,
  loadOf: LoadOf,
): (stage: number, position: number) => number {
  const update = book.update(shape);
  const whole = layout.stages.map((held) => {
    const seconds = held.groups.reduce((sum, group) => sum + (update.get(group) ?? 0), 0);
    return seconds * Math.max(...tensorShares(held));
  });
  return (stage, position) => (whole[stage] ?? 0) * loadOf(stage, position);
}
