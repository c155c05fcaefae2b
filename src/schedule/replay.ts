/**
 * Runs a schedule on paper: every device performs its actions strictly in order and blocks until what the next
 * one needs has ended elsewhere. The outcome is exact for given durations, so that a schedule can be compared
 * with the closed forms of the papers, and a deadlock is found before anything runs.
 */
import { type Action, type Rules, rulesOf, type Schedule, type Work } from "./action.ts";

/** Durations in any one unit of time; `transfer` passes between the end of an action and its use on another device. */
export interface ReplayCosts {
  readonly durations: (action: Action) => number;
  readonly transfer: number;
}

/** An action with its place in time. */
export interface TimedAction {
  readonly action: Action;
  readonly start: number;
  readonly end: number;
}

/** A device that can never go on: its next action waits for actions that do not end. */
export interface StuckDevice {
  readonly device: number;
  readonly position: number;
  readonly action: Action;
  readonly waitsFor: readonly Action[];
}

/** The course of a replayed schedule. */
export interface Replay {
  /** Per device, in order; shorter than the schedule on a device that is stuck. */
  readonly devices: readonly (readonly TimedAction[])[];
  /** Time from 0 to the end of the last action. */
  readonly makespan: number;
  /** Per device: idle time within the makespan over the makespan, from 0 to 1. */
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
  const run = startRun(schedule, rules);
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
    bubbles: run.timed.map((actions) => (makespan === 0 ? 0 : 1 - busyTime(actions) / makespan)),
    stuck: stuckDevices(run, schedule, rules),
  };
}

interface Run {
  readonly timed: TimedAction[][];
  /** When each action ended, by id. */
  readonly ends: (number | undefined)[];
  /** The device each action runs on, by id. */
  readonly places: (number | undefined)[];
}

function startRun(schedule: Schedule, rules: Rules): Run {
  const places: (number | undefined)[] = [];
  for (const [device, actions] of schedule.entries())
    for (const action of actions) places[rules.id(action)] = device;
  return { timed: schedule.map(() => []), ends: [], places };
}

function advance(run: Run, schedule: Schedule, device: number, rules: Rules, costs: ReplayCosts): boolean {
  const timed = run.timed[device] ?? [];
  const action = schedule[device]?.[timed.length];
  if (action === undefined) return false;
  let start = timed.at(-1)?.end ?? 0;
  for (const need of rules.dependencies(action)) {
    const id = rules.id(need);
    const end = run.ends[id];
    if (end === undefined) return false;
    start = Math.max(start, run.places[id] === device ? end : end + costs.transfer);
  }
  const end = start + costs.durations(action);
  timed.push({ action, start, end });
  run.ends[rules.id(action)] ??= end;
  return true;
}

function stuckDevices(run: Run, schedule: Schedule, rules: Rules): StuckDevice[] {
  return schedule.flatMap((actions, device) => {
    const position = run.timed[device]?.length ?? 0;
    const action = actions[position];
    if (action === undefined) return [];
    const waitsFor = rules.dependencies(action).filter((need) => run.ends[rules.id(need)] === undefined);
    return [{ device, position, action, waitsFor }];
  });
}

function busyTime(actions: readonly TimedAction[]): number {
  return actions.reduce((sum, { start, end }) => sum + end - start, 0);
}
