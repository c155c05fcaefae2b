/** The ways to stream a mini-batch that the planner tries, and the placements it tries them on. */

import { UserError } from "../base/errors.ts";
import { flowsOf, incomingBytes } from "../cost/flow.ts";
import type { ItemWork } from "../cost/stage-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import type { LayoutStage, ScheduleName, WeightTiming } from "../layout/layout.ts";
import { hasBranches, runsOf, stagesOf, unitsInOrder } from "../layout/order.ts";
import { groupsOf } from "../partition/compile.ts";
import type { HeldGroups } from "../partition/rank-work.ts";
import { schedule, specProblems } from "../schedule/schedule.ts";
import { type Balance, type BalanceUnit, balance, type PlanDevice, prefixSums, speedOf } from "./balance.ts";
import { branchAssignments } from "./branches.ts";
import { groupSeconds, recurrentGroups, type WorkBook } from "./item-work.ts";
import { type ItemsAlive, itemsAlive, stageBytes } from "./predict-memory.ts";
import { sharedOut } from "./shares.ts";

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
  /** Whether devices may split the last unit between them. */
  readonly sharesTail: boolean;
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
  const place = (deviceOf: (unit: number) => string | undefined, tail: readonly LayoutStage[]): Placement => {
    const own = named.slice(0, named.length - tail.length);
    const names = new Map(own.flatMap((groups, i) => groups.map((group) => [group, deviceOf(i)])));
    const runs = runsOf(own, edges, (group) => names.get(group) ?? "");
    const stages = [...stagesOf(runs), ...tail];
    return { stages, devices: usedDevices(stages, devices) };
  };
  const branches = hasBranches(named, edges)
    ? branchAssignments({ units, edges, devices }).map((chosen) =>
        place((unit) => devices[chosen[unit] ?? 0]?.name, []),
      )
    : [];
  const isLimited = devices.some(({ memory }) => memory !== undefined);
  const free = isLimited ? undefined : balance(problem);
  const chains = ({ stages }: BalancedChain, way: Streaming, tail: readonly LayoutStage[]) => {
    const holder = (unit: number) => stages.find(({ from, to }) => from <= unit && unit < to);
    const first = place((unit) => holder(unit)?.device.name, tail);
    if (!takesTurns(way) || branches.length > 0) return [first];
    const own = units.slice(0, units.length - tail.length);
    const used = stages.map(({ device }) => device);
    const inTurns = turns.flatMap((count) => {
      const deviceOf = cutInTurns(own, used, Math.round(count * used.length));
      return deviceOf === undefined ? [] : [place((unit) => deviceOf[unit]?.name, tail)];
    });
    return [first, ...inTurns];
  };
  const mayShare = source.sharesTail && branches.length === 0;
  const tail = mayShare ? sharedTail(source, work, units) : undefined;
  const withTail = (way: Streaming): readonly Placement[] => {
    if (tail === undefined || way.schedule !== "wavefront") return [];
    const memory = isLimited ? rangeMemory(source, way, groupsIn, tail) : undefined;
    const found = balance({ ...problem, units: units.slice(0, -1), ...(memory && { memory }) });
    // Where a device is left out, the tail would be of another mesh.
    return found.fits && found.stages.length === devices.length ? chains(found, way, [tail]) : [];
  };
  return {
    units: named,
    place: (way) => {
      const found = free ?? balance({ ...problem, memory: rangeMemory(source, way, groupsIn) });
      if (found.fits) return [...chains(found, way, []), ...branches, ...withTail(way)];
      const others = [...branches, ...withTail(way)];
      return others.length > 0 ? others : found;
    },
  };
}

type BalancedChain = Extract<Balance, { readonly fits: true }>;

/**
 * The last unit as a stage of all devices, its weights split among them: where the output layer is large, as over a vocabulary, the
 * devices would wait at the turn from forward to backward for the one that has it (Yeung et al. 2024, "Balancing Pipeline Parallelism with
 * Vocabulary Parallelism"). Undefined where it cannot be split.
 */
function sharedTail(
  { book, devices }: PlacementSource,
  work: ItemWork,
  units: readonly BalanceUnit[],
): LayoutStage | undefined {
  const [last] = units.slice(-1);
  if (devices.length === 1 || units.length <= devices.length || last === undefined) return undefined;
  const { groups } = last;
  const names = devices.map(({ name }) => name);
  const stage = sharedOut({ devices: names, mesh: { tensor: devices.length }, groups }, devices.map(speedOf));
  return book.canSplit(work, stage) ? stage : undefined;
}

/** How often devices come in turn, where they hold several stages; with a half, the first ones come once more. */
const turns: readonly number[] = [1.5, 2, 2.5, 3, 4];

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

/** Bytes of a range of units as a stage of a chain before `tail`, with as many items alive as the schedule keeps; and those of `tail`. */
function rangeMemory(
  { book, shape, microBatches }: PlacementSource,
  way: Streaming,
  groupsIn: (from: number, to: number) => readonly string[],
  tail?: LayoutStage,
): (from: number, to: number, stage: number, stages: number) => number {
  const time = shape.time === undefined ? {} : { time: Math.ceil(shape.time / way.chunks) };
  const item = book.item({ batch: Math.ceil(shape.batch / microBatches), ...time }, shape);
  const orders = new Map<number, (stage: number) => ItemsAlive>();
  const known = new Map<string, number>();
  const aliveIn = (before: number) => {
    const all = Array.from({ length: before }, (_, device) => device);
    const placement = [...all.map((device) => [device]), ...(tail === undefined ? [] : [all])];
    const stages = placement.length;
    const spec = { ...way, kind: way.schedule, stages, devices: before, placement, microBatches };
    // What is illegal is refused later, with its reason.
    if (specProblems(spec).length > 0) return () => ({ untilB: 0, untilW: 0, fromB: 0, all: 0 });
    const order = schedule(spec);
    return (stage: number) => itemsAlive(order, spec, stage);
  };
  return (from, to, stage, stages) => {
    const key = `${from} ${to} ${stage} ${stages}`;
    const alive = orders.get(stages) ?? aliveIn(stages);
    orders.set(stages, alive);
    const bytesOf = (held: HeldGroups, at: number): number => stageBytes(book, item, held, way, alive(at));
    const bytes =
      known.get(key) ??
      bytesOf({ groups: groupsIn(from, to) }, stage) + (tail === undefined ? 0 : bytesOf(tail, stages));
    known.set(key, bytes);
    return bytes;
  };
}
