/** The placements that the planner tries: chains of stages, devices in turn, branches side by side, a last unit that all devices split. */

import { incomingBytes } from "../cost/flow.ts";
import type { ItemWork } from "../cost/stage-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import type { LayoutStage } from "../layout/layout.ts";
import { type GroupEdge, hasBranches, runsOf, stagesOf, unitsInOrder } from "../layout/order.ts";
import { groupsOf } from "../partition/compile.ts";
import type { HeldGroups } from "../partition/rank-work.ts";
import { schedule, specProblems } from "../schedule/schedule.ts";
import { type Balance, type BalanceUnit, balance, type PlanDevice, prefixSums, speedOf } from "./balance.ts";
import { branchAssignments } from "./branches.ts";
import { groupSeconds, type WorkBook } from "./item-work.ts";
import { type ItemsAlive, itemsAlive, stageBytes } from "./predict-memory.ts";
import { sharedOut } from "./shares.ts";
import type { Streaming } from "./streaming.ts";

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

/** The work of one mini-batch on one device, by units that stay together, in the order in which values flow. */
interface UnitWork extends PlacementSource {
  readonly work: ItemWork;
  readonly units: readonly BalanceUnit[];
  readonly edges: readonly GroupEdge[];
}

/** Chooses the placements of one mini-batch's work. */
export function placements(source: PlacementSource): Placements {
  const unitWork = unitWorkOf(source);
  const { devices, sharesTail } = source;
  const branches = branchPlacements(unitWork);
  const hasChain = branches.length === 0;
  const tail = sharesTail && hasChain ? sharedTail(unitWork) : undefined;
  const whole = balancer(unitWork);
  const beforeTail = tail && balancer(unitWork, tail);
  return {
    units: unitWork.units.map(({ groups }) => groups),
    place: (way) => {
      const chain = whole(way);
      const shared = way.schedule === "wavefront" ? beforeTail?.(way) : undefined;
      const inTurn = takesTurns(way) && hasChain;
      const placed = [
        ...(chain.fits ? chainPlacements(unitWork, chain, inTurn) : []),
        ...branches,
        // Where a device is left out, the tail would be of another mesh.
        ...(shared?.fits && shared.stages.length === devices.length
          ? chainPlacements(unitWork, shared, inTurn, tail)
          : []),
      ];
      return chain.fits || placed.length > 0 ? placed : chain;
    },
  };
}

function unitWorkOf(source: PlacementSource): UnitWork {
  const { book, shape } = source;
  const work = book.item(shape, shape);
  const edges = book.flows(work).filter(({ phase }) => phase === "F");
  const units = timedUnits(book, work, shape, unitsInOrder(groupsOf({ graph: work.step.item }), edges));
  return { ...source, work, edges, units };
}

/** Balances the units, but for those of `tail`, under the limits that a way to stream sets to them. */
function balancer(unitWork: UnitWork, tail?: LayoutStage): (way: Streaming) => Balance {
  const { book, work, units, devices } = unitWork;
  const flows = book.flows(work);
  const problem = {
    units: withoutTail(units, tail),
    devices,
    incoming: (from: number, to: number) => incomingBytes(flows, new Set(groupsIn(units, from, to))),
  };
  const isLimited = devices.some(({ memory }) => memory !== undefined);
  const free = isLimited ? undefined : balance(problem);
  return (way) => free ?? balance({ ...problem, memory: rangeMemory(unitWork, way, tail) });
}

function withoutTail<T>(units: readonly T[], tail: LayoutStage | undefined): readonly T[] {
  return tail === undefined ? units : units.slice(0, -1);
}

function groupsIn(units: readonly BalanceUnit[], from: number, to: number): readonly string[] {
  return units.slice(from, to).flatMap(({ groups }) => groups);
}

/** The stages when each unit is on a device, with `tail` as the last one. */
function placeUnits(
  { units, edges, devices }: UnitWork,
  deviceOf: (unit: number) => PlanDevice | undefined,
  tail?: LayoutStage,
): Placement {
  const own = withoutTail(units, tail).map(({ groups }) => groups);
  const names = new Map(own.flatMap((groups, i) => groups.map((group) => [group, deviceOf(i)?.name])));
  const runs = runsOf(own, edges, (group) => names.get(group) ?? "");
  const stages = [...stagesOf(runs), ...(tail === undefined ? [] : [tail])];
  return { stages, devices: usedDevices(stages, devices) };
}

/** Parallel branches on devices of their own; none where there are no branches. */
function branchPlacements(unitWork: UnitWork): readonly Placement[] {
  const { units, edges, devices } = unitWork;
  const named = units.map(({ groups }) => groups);
  if (!hasBranches(named, edges)) return [];
  return branchAssignments({ units, edges, devices }).map((chosen) =>
    placeUnits(unitWork, (unit) => devices[chosen[unit] ?? 0]),
  );
}

/** A balanced chain of stages, and the same devices in turn. */
function chainPlacements(
  unitWork: UnitWork,
  { stages }: Extract<Balance, { readonly fits: true }>,
  inTurn: boolean,
  tail?: LayoutStage,
): readonly Placement[] {
  const holder = (unit: number) => stages.find(({ from, to }) => from <= unit && unit < to);
  const first = placeUnits(unitWork, (unit) => holder(unit)?.device, tail);
  if (!inTurn) return [first];
  const own = withoutTail(unitWork.units, tail);
  const used = stages.map(({ device }) => device);
  const others = turns.flatMap((count) => {
    const deviceOf = cutInTurns(own, used, Math.round(count * used.length));
    return deviceOf === undefined ? [] : [placeUnits(unitWork, (unit) => deviceOf[unit], tail)];
  });
  return [first, ...others];
}

/**
 * The last unit as a stage of all devices, its weights split among them: where the output layer is large, as over a vocabulary, the
 * devices would wait at the turn from forward to backward for the one that has it (Yeung et al. 2024, "Balancing Pipeline Parallelism with
 * Vocabulary Parallelism"). Undefined where it cannot be split.
 */
function sharedTail({ book, devices, work, units }: UnitWork): LayoutStage | undefined {
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
  { book, shape, microBatches, units }: UnitWork,
  way: Streaming,
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
      bytesOf({ groups: groupsIn(units, from, to) }, stage) +
        (tail === undefined ? 0 : bytesOf(tail, stages));
    known.set(key, bytes);
    return bytes;
  };
}
