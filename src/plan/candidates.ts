/** The ways to stream a mini-batch that the planner tries, and the placements it tries them on. */

import { UserError } from "../base/errors.ts";
import { flowsOf, incomingBytes } from "../cost/flow.ts";
import type { ItemWork } from "../cost/stage-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import type { LayoutStage, ScheduleName, WeightTiming } from "../layout/layout.ts";
import { hasBranches, runsOf, stagesOf, unitsInOrder } from "../layout/order.ts";
import { groupsOf } from "../partition/compile.ts";
import { schedule, specProblems } from "../schedule/schedule.ts";
import { type Balance, type BalanceUnit, balance, type PlanDevice, prefixSums, speedOf } from "./balance.ts";
import { branchAssignments } from "./branches.ts";
import { groupSeconds, recurrentGroups, type WorkBook } from "./item-work.ts";
import { type ItemsAlive, itemsAlive, stageMemory, totalBytes } from "./predict.ts";

/** How the items of a mini-batch stream through the stages. */
export interface Streaming {
  readonly chunks: number;
  /** Set where the planner chose the number of chunks. */
  readonly shortestChunk?: number;
  readonly schedule: ScheduleName;
  readonly weights: WeightTiming;
}

/** The plainest first: of equally fast ways the first is taken. */
const orders: readonly (readonly [ScheduleName, readonly WeightTiming[]])[] = [
  ["naive", ["fused"]],
  ["1f1b", ["fused", "per-micro-batch", "per-item", "deferred"]],
  ["gpipe", ["fused", "per-micro-batch", "per-item", "deferred"]],
  ["zero-bubble-h1", ["per-micro-batch", "per-item"]],
  ["wavefront", ["fused", "per-micro-batch", "per-item", "deferred"]],
  ["interleaved-1f1b", ["fused", "per-micro-batch", "per-item", "deferred"]],
];

const chunkCounts: readonly number[] = [1, 2, 4, 8];
/** Shorter chunks are not tried, and short sequences are cut into fewer chunks than the longest. */
const fewestSteps = 7;

/** Every way to stream, with what is `fixed` taken as given. */
export function streamings(chunkChoices: readonly number[], fixed: Partial<Streaming>): readonly Streaming[] {
  return chunkChoices.flatMap((chunks) =>
    orders.flatMap(([name, timings]) =>
      (fixed.weights === undefined ? timings : [fixed.weights])
        .filter(() => fixed.schedule === undefined || fixed.schedule === name)
        .map((weights) => ({ chunks, schedule: name, weights, ...shortest(chunks, fixed) })),
    ),
  );
}

function shortest(chunks: number, fixed: Partial<Streaming>): Pick<Streaming, "shortestChunk"> {
  return chunks > 1 && fixed.chunks === undefined ? { shortestChunk: fewestSteps } : {};
}

/** Numbers of chunks worth a trial: more than 1 only where a recurrent layer carries its state from chunk to chunk. */
export function chunkChoices(book: WorkBook, shapes: readonly BatchShape[]): readonly number[] {
  const times = shapes.map(({ time }) => time ?? 1);
  const longest = Math.max(...times);
  const [shape] = shapes;
  if (shape === undefined || recurrentGroups(book.item(shape, shape).step.item).size === 0) return [1];
  const counts = chunkCounts.filter((chunks) => chunks === 1 || longest / chunks >= fewestSteps);
  return counts.length > 1 && canBeChunked(book, shape) ? counts : [1];
}

/** Whether the model can be built for a part of its time steps; attention, for example, needs all of them. */
function canBeChunked(book: WorkBook, shape: BatchShape): boolean {
  try {
    book.item({ ...shape, time: 1 }, shape);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

export interface PlacementSource {
  readonly book: WorkBook;
  readonly devices: readonly PlanDevice[];
  readonly microBatches: number;
  /** The mini-batch that is balanced for, usually the largest. */
  readonly shape: BatchShape;
}

/** Stages with their devices in the order of first use. */
export interface Placement {
  readonly devices: readonly PlanDevice[];
  readonly stages: readonly LayoutStage[];
}

/** Placements by balance, under memory limits that depend on the way to stream; or why none fits. */
export type Placer = (way: Streaming) => readonly Placement[] | Extract<Balance, { readonly fits: false }>;

/** The placements of one mini-batch's work, and the units that they place, in the order in which values flow. */
export interface Placements {
  readonly units: readonly (readonly string[])[];
  readonly place: Placer;
}

/** Chooses the placements of one mini-batch's work. */
export function placements(source: PlacementSource): Placements {
  const { book, devices, shape } = source;
  const work = book.item(shape, shape);
  const flows = book.flows(work);
  const edges = flowsOf(work.step.item).filter(({ phase }) => phase === "F");
  const units = timedUnits(book, work, shape, unitsInOrder(groupsOf({ graph: work.step.item }), edges));
  const groupsIn = (from: number, to: number) => units.slice(from, to).flatMap(({ groups }) => groups);
  const problem = {
    units,
    devices,
    incoming: (from: number, to: number) => incomingBytes(flows, new Set(groupsIn(from, to))),
  };
  const named = units.map(({ groups }) => groups);
  const place = (deviceOf: (unit: number) => string | undefined): Placement => {
    const names = new Map(named.flatMap((groups, i) => groups.map((group) => [group, deviceOf(i)])));
    const stages = stagesOf(runsOf(named, edges, (group) => names.get(group) ?? ""));
    return { stages, devices: usedDevices(stages, devices) };
  };
  const branches = hasBranches(named, edges)
    ? branchAssignments({ units, edges, devices }).map((chosen) =>
        place((unit) => devices[chosen[unit] ?? 0]?.name),
      )
    : [];
  const isLimited = devices.some(({ memory }) => memory !== undefined);
  const free = isLimited ? undefined : balance(problem);
  const inTurns = (chosen: readonly PlanDevice[]): readonly Placement[] =>
    branches.length > 0
      ? []
      : turns.flatMap((count) => {
          const deviceOf = cutInTurns(units, chosen, Math.round(count * chosen.length));
          return deviceOf === undefined ? [] : [place((unit) => deviceOf[unit]?.name)];
        });
  return {
    units: named,
    place: (way) => {
      const found = free ?? balance({ ...problem, memory: rangeMemory(source, way, groupsIn) });
      if (!found.fits) return branches.length > 0 ? branches : found;
      const holder = (unit: number) => found.stages.find(({ from, to }) => from <= unit && unit < to);
      return [
        place((unit) => holder(unit)?.device.name),
        ...branches,
        ...(takesTurns(way) ? inTurns(found.stages.map(({ device }) => device)) : []),
      ];
    },
  };
}

/** How often devices come in turn, where they hold several stages; with a half, the first ones come once more. */
const turns: readonly number[] = [1.5, 2, 2.5, 3];

/** Whether devices may hold several stages: the pipeline fills sooner, and more is sent. */
function takesTurns({ schedule: name }: Streaming): boolean {
  return name === "interleaved-1f1b" || name === "wavefront";
}

/**
 * The device of every unit when devices come in turn, with work by their speeds: a unit goes where its middle falls. Undefined where a
 * stage would stay empty.
 */
function cutInTurns(
  units: readonly BalanceUnit[],
  devices: readonly PlanDevice[],
  count: number,
): readonly PlanDevice[] | undefined {
  const stages = Array.from({ length: count }, (_, i) => devices[i % devices.length] as PlanDevice);
  const ends = prefixSums(stages.map(speedOf)).slice(1);
  const work = prefixSums(units.map(({ seconds }) => seconds));
  const scale = (ends.at(-1) ?? 0) / (work.at(-1) ?? 0);
  const stageOf = units.map(({ seconds }, i) => {
    const middle = ((work[i] ?? 0) + seconds / 2) * scale;
    return ends.findIndex((end) => middle < end);
  });
  const isFull = stages.length > devices.length && new Set(stageOf).size === stages.length;
  return isFull ? stageOf.map((stage) => stages[stage] as PlanDevice) : undefined;
}

/** Devices in the order in which `stages` use them first. */
export function usedDevices(
  stages: readonly LayoutStage[],
  devices: readonly PlanDevice[],
): readonly PlanDevice[] {
  const names = [...new Set(stages.flatMap((stage) => stage.devices))];
  return names.flatMap((name) => devices.find((device) => device.name === name) ?? []);
}

function timedUnits(
  book: WorkBook,
  work: ItemWork,
  shape: BatchShape,
  units: readonly (readonly string[])[],
): readonly BalanceUnit[] {
  const seconds = groupSeconds(work);
  const update = book.update(shape);
  const timeOf = (group: string): number => {
    const { F, B, W } = seconds.get(group) ?? { F: 0, B: 0, W: 0 };
    return F + B + W + (update.get(group) ?? 0);
  };
  return units.map((groups) => ({ groups, seconds: groups.reduce((sum, group) => sum + timeOf(group), 0) }));
}

/** Bytes of a range of units as a stage of a chain, with as many items alive as the schedule keeps. */
function rangeMemory(
  { book, shape, microBatches }: PlacementSource,
  way: Streaming,
  groupsIn: (from: number, to: number) => readonly string[],
): (from: number, to: number, stage: number, stages: number) => number {
  const time = shape.time === undefined ? {} : { time: Math.ceil(shape.time / way.chunks) };
  const item = book.item({ batch: Math.ceil(shape.batch / microBatches), ...time }, shape);
  const orders = new Map<number, (stage: number) => ItemsAlive>();
  const known = new Map<string, number>();
  const aliveIn = (stages: number) => {
    const spec = { ...way, kind: way.schedule, stages, devices: stages, microBatches };
    // What is illegal is refused later, with its reason.
    if (specProblems(spec).length > 0) return () => ({ untilB: 0, untilW: 0, fromB: 0, all: 0 });
    const order = schedule(spec);
    return (stage: number) => itemsAlive(order, spec, stage);
  };
  return (from, to, stage, stages) => {
    const key = `${from} ${to} ${stage} ${stages}`;
    const alive = orders.get(stages) ?? aliveIn(stages);
    orders.set(stages, alive);
    const bytes =
      known.get(key) ?? totalBytes(stageMemory(book, item, groupsIn(from, to), way, alive(stage)));
    known.set(key, bytes);
    return bytes;
  };
}
