/**
 * Runs a schedule on paper: every device performs its actions strictly in order and blocks until what the next
 * one needs has ended elsewhere, and until all devices that meet for it have come to it. The outcome is exact for given
 * durations, so that a schedule can be compared with the closed forms of the papers, and a deadlock is found before
 * anything runs.
 */
import { type Action, type Rules, rulesOf, type Schedule, type Work } from "./action.ts";

/** Durations in any one unit of time; `transfer` passes between the end of an action and its use on another device. */
export interface ReplayCosts {
  /** `before` is what the device did last. */
  readonly durations: (action: Action, device: number, before?: Action) => number;
  readonly transfer: number;
  /**
   * What a device updates of a stage at the end of a step, and does in the next one: while it waits, or before its first action of the
   * stage. Default: nothing.
   */
  readonly updates?: (stage: number, device: number) => number;
}

/** An action with its place in time. */
export interface TimedAction {
  readonly action: Action;
  readonly start: number;
  readonly end: number;
}

/** A device that can never go on: its next action waits for actions that do not end, or for devices that do not come to it. */
export interface StuckDevice {
  readonly device: number;
  readonly position: number;
  readonly action: Action;
  readonly waitsFor: readonly Action[];
  readonly absent: readonly number[];
}

/** The course of a replayed schedule. */
export interface Replay {
  /** Per device, in order; shorter than the schedule on a device that is stuck. */
  readonly devices: readonly (readonly TimedAction[])[];
  /** Time from 0 to the end of the last action. */
  readonly makespan: number;
  /** Per device: idle time within the makespan over the makespan, from 0 to 1; updates are work. */
  readonly bubbles: readonly number[];
  /** Empty unless the schedule deadlocks. */
  readonly stuck: readonly StuckDevice[];
}

/** The same duration per phase on every stage; transfers take no time. */
export function uniformCosts(F: number, B: number, W: number): ReplayCosts {
  const durations = { F, B, W };
  return { durations: (action) => durations[action.phase], transfer: 0 };
}

/** Replays `schedule`; never throws, also not for a schedule that `verifySchedule` would refuse. */
export function replay(schedule: Schedule, work: Work, costs: ReplayCosts): Replay {
  const rules = rulesOf(work);
  const run = startRun(schedule, rules, costs);
  const updating = run.owed.map((updates) => [...updates.values()].reduce((sum, time) => sum + time, 0));
  let progress = true;
  while (progress) {
    progress = false;
    for (let device = 0; device < schedule.length; device++) {
      while (advance(run, schedule, device, rules, costs)) progress = true;
    }
  }
  const makespan = Math.max(0, ...run.timed.map((actions) => actions.at(-1)?.end ?? 0));
  return {
    devices: run.timed,
    makespan,
    bubbles: run.timed.map((actions, device) =>
      makespan === 0 ? 0 : 1 - (busyTime(actions) + (updating[device] ?? 0)) / makespan,
    ),
    stuck: stuckDevices(run, schedule, rules),
  };
}

interface Run {
  readonly timed: TimedAction[][];
  /** The devices that each action runs on, by id. */
  readonly places: (readonly number[] | undefined)[];
  /** When it has ended on each of those on which it has, by id and device. */
  readonly ends: number[][];
  /** By device, the updates of stages that are not done yet. */
  readonly owed: readonly Map<number, number>[];
}

function startRun(schedule: Schedule, rules: Rules, { updates }: ReplayCosts): Run {
  const places: (readonly number[] | undefined)[] = [];
  for (const [device, actions] of schedule.entries())
    for (const action of actions) {
      const known = places[rules.id(action)] ?? [];
      if (!known.includes(device)) places[rules.id(action)] = [...known, device];
    }
  const owed = schedule.map((actions, device) => {
    const stages = [...new Set(actions.map(({ stage }) => stage))].sort((a, b) => a - b);
    return new Map(stages.map((stage) => [stage, updates?.(stage, device) ?? 0]));
  });
  return { timed: schedule.map(() => []), places, ends: [], owed };
}

/** When a device that is free at `free` starts its next action, of `stage`, which is ready at `ready`. */
function startOf(owed: Map<number, number>, stage: number, free: number, ready: number): number {
  let time = free;
  for (const [other, update] of owed) {
    if (time >= ready) break;
    time += update;
    owed.delete(other);
  }
  const own = owed.get(stage) ?? 0;
  owed.delete(stage);
  return Math.max(time, ready) + own;
}

/** Performs the next action of a device, if it can start: with all devices of its stage if these meet for it, else alone. */
function advance(run: Run, schedule: Schedule, device: number, rules: Rules, costs: ReplayCosts): boolean {
  const action = nextOf(run, schedule, device);
  if (action === undefined || absentees(run, schedule, action, rules).length > 0) return false;
  const id = rules.id(action);
  const devices = rules.meets(action) ? (run.places[id] ?? []) : [device];
  let ready = 0;
  for (const need of rules.dependencies(action)) {
    const needed = rules.id(need);
    const end = action.phase === "W" ? run.ends[needed]?.[device] : endOf(run, needed);
    if (end === undefined) return false;
    const isHere = devices.every((one) => run.places[needed]?.includes(one));
    ready = Math.max(ready, isHere ? end : end + costs.transfer);
  }
  const start = Math.max(
    ...devices.map((one) => {
      const free = run.timed[one]?.at(-1)?.end ?? 0;
      return startOf(run.owed[one] as Map<number, number>, action.stage, free, ready);
    }),
  );
  const durationOn = (one: number) => costs.durations(action, one, run.timed[one]?.at(-1)?.action);
  const end = start + Math.max(...devices.map(durationOn));
  const ends = run.ends[id] ?? [];
  run.ends[id] = ends;
  for (const one of devices) {
    run.timed[one]?.push({ action, start, end });
    ends[one] = end;
  }
  return true;
}

function nextOf(run: Run, schedule: Schedule, device: number): Action | undefined {
  return schedule[device]?.[run.timed[device]?.length ?? 0];
}

/** When an action has ended on all of its devices; undefined as long as it has not. */
function endOf(run: Run, id: number): number | undefined {
  const ends = run.places[id]?.map((device) => run.ends[id]?.[device] ?? Number.POSITIVE_INFINITY);
  const latest = ends === undefined ? Number.POSITIVE_INFINITY : Math.max(...ends);
  return Number.isFinite(latest) ? latest : undefined;
}

/** The devices that `action` waits for, because their next action is another one. */
function absentees(run: Run, schedule: Schedule, action: Action, rules: Rules): readonly number[] {
  const id = rules.id(action);
  const devices = rules.meets(action) ? (run.places[id] ?? []) : [];
  return devices.filter((device) => {
    const next = nextOf(run, schedule, device);
    return next === undefined || rules.id(next) !== id;
  });
}

function stuckDevices(run: Run, schedule: Schedule, rules: Rules): StuckDevice[] {
  return schedule.flatMap((_, device) => {
    const action = nextOf(run, schedule, device);
    if (action === undefined) return [];
    const waitsFor = rules.dependencies(action).filter((need) => endOf(run, rules.id(need)) === undefined);
    const position = run.timed[device]?.length ?? 0;
    return [{ device, position, action, waitsFor, absent: absentees(run, schedule, action, rules) }];
  });
}

function busyTime(actions: readonly TimedAction[]): number {
  return actions.reduce((sum, { start, end }) => sum + end - start, 0);
}
