/**
 * The wavefront over time chunks: layer x time, as LSTM pipelines run it (Sutskever et al. 2014; MXNet). All
 * chunks of a micro-batch go forward in order, come back in reverse, and the next micro-batch fills the gaps.
 *
 *     device 0 | F0.0 F0.1 F1.0 F1.1 B0.1 W0.1 B0.0 W0.0 B1.1 B1.0 W1.1 W1.0 .
 *     device 1 | .    F0.0 F0.1 B0.1 F1.0 B0.0 F1.1 B1.1 B1.0 W0.1 W0.0 W1.1 W1.0
 *
 * No simple rule is best for every number of stages, micro-batches and chunks, so the order is found by list
 * scheduling: time advances by what each stage costs, and each idle device takes the first of
 *
 *     F that is ready     if its last action was B or W: one forward, one backward, so that nobody starves
 *     B that is ready     it frees memory and earlier stages wait for it
 *     F that is ready     unless the stage already holds as many items as it may
 *     W                   nobody waits for it: it fills what would be a bubble; the one that has been ready for longest
 *
 * What another device makes is counted on a little later than estimated (`lateness`): an order in which everything is used the moment it
 * should be there waits whenever something takes longer.
 *
 * Where devices that share a stage meet, F and B start when all of them are free; a device that is free before the
 * others runs what else fits until then. Where they do not meet, each goes its own way. Where a stage carries no state from chunk to chunk, its B come as they get
 * ready, and not only in reverse: a decoder begins with its B while later chunks still go forward.
 *
 * On S stages with C chunks, stage s holds at most C + 2(S-1-s) items between F and B: C so that the first B can
 * start at all, the rest so that F fills the way to the last stage and back. Between F and W it holds at most
 * C + 2(S-1) items with weights per item, 2C + 2(S-1) per micro-batch, and all of them with deferred weights.
 */
import { invariant } from "../base/errors.ts";
import type { StageCosts } from "../cost/stage-work.ts";
import {
  type Action,
  type Item,
  type Loads,
  loadAt,
  type Placement,
  type Rules,
  rulesOf,
  type Schedule,
  type Work,
} from "./action.ts";

/** Work with its place. */
export interface PlacedWork extends Work {
  readonly devices: number;
  readonly placement: Placement;
  /** Estimated durations per stage in any unit; the best order depends on their ratios. */
  readonly costs: readonly StageCosts[];
  readonly loads: Loads;
  /** How much later than estimated results of other devices are expected, as a share of the time that they take. */
  readonly lateness: number;
}

/** The order found by list scheduling; never deadlocks, because it is the record of a run. */
export function wavefront(work: PlacedWork): Schedule {
  const state = startState(work);
  const total = work.placement.reduce((sum, devices) => sum + 3 * items(work) * devices.length, 0);
  let time = 0;
  while (state.done < total) {
    invariant(Number.isFinite(time), "the wavefront came to a stop");
    let started = true;
    while (started) {
      started = false;
      for (let device = 0; device < work.devices; device++) {
        if ((state.free[device] ?? 0) <= time && startNext(state, work, device, time)) started = true;
      }
    }
    state.arrivals = state.arrivals.filter((arrival) => arrival > time);
    time = Math.min(...state.free.filter((end) => end > time), ...state.arrivals);
  }
  return state.order;
}

/** How far one device has come with a stage. */
interface StageState {
  readonly stage: number;
  /** All devices that hold the stage. */
  readonly devices: readonly number[];
  /** Items that are through with F, which comes in their order. */
  forward: number;
  /** Items that are through with B, in the order in which they were: micro-batch by micro-batch. */
  readonly backward: Item[];
  /** How many of `backward` are through with W. */
  weights: number;
}

interface State {
  readonly rules: Rules;
  /** On how many devices an action is done. */
  readonly devicesOf: (action: Action) => number | undefined;
  readonly order: Action[][];
  readonly free: number[];
  /** On how many devices each action has been started, and when it ends on the last of them, by id. */
  readonly begun: number[];
  readonly ends: number[];
  /** When other devices count on the result of each action, by id. */
  readonly awaited: number[];
  /** Those of them that are still to come. */
  arrivals: readonly number[];
  /** By device. */
  readonly stages: readonly (readonly StageState[])[];
  /** Actions that stand in `order`. */
  done: number;
}

function startState(work: PlacedWork): State {
  const stages: StageState[][] = Array.from({ length: work.devices }, () => []);
  for (const [stage, devices] of work.placement.entries())
    for (const device of devices)
      stages[device]?.push({ stage, devices, forward: 0, backward: [], weights: 0 });
  return {
    rules: rulesOf(work),
    devicesOf: ({ stage }) => work.placement[stage]?.length,
    order: stages.map(() => []),
    free: stages.map(() => 0),
    begun: [],
    ends: [],
    awaited: [],
    arrivals: [],
    stages,
    done: 0,
  };
}

/** What a device may do next: actions of one stage that run as one piece, on these devices at once. */
interface Choice {
  readonly devices: readonly number[];
  readonly actions: readonly Action[];
  /** False for a B that comes before its turn, for which earlier stages have no use yet. */
  readonly isAwaited?: boolean;
}

/**
 * Starts the first choice of a device of which all devices are free. While it waits for others, what comes after may run if it ends in
 * time.
 */
function startNext(state: State, work: PlacedWork, device: number, time: number): boolean {
  let deadline = Number.POSITIVE_INFINITY;
  for (const choice of choicesOf(state, work, device, time)) {
    const ready = Math.max(...choice.devices.map((one) => state.free[one] ?? 0));
    if (ready > time) deadline = Math.min(deadline, ready);
    else if (time + durationOf(choice, work) <= deadline) {
      start(state, work, choice, time);
      return true;
    }
  }
  return false;
}

/** Until the last of the devices that start together has ended. */
function durationOf({ actions, devices }: Pick<Choice, "actions" | "devices">, work: PlacedWork): number {
  const { costs, loads, placement } = work;
  return actions.reduce((sum, { stage, phase }) => {
    const own = devices.map((device) => loadAt(loads, placement, stage, device));
    return sum + (costs[stage]?.[phase] ?? 0) * Math.max(...own);
  }, 0);
}

function start(state: State, work: PlacedWork, { devices, actions }: Choice, time: number): void {
  let end = time;
  for (const action of actions) {
    const duration = durationOf({ actions: [action], devices }, work);
    end += duration;
    const id = state.rules.id(action);
    const awaited = Math.max(state.awaited[id] ?? 0, end + work.lateness * duration);
    state.begun[id] = (state.begun[id] ?? 0) + devices.length;
    state.ends[id] = Math.max(state.ends[id] ?? 0, end);
    state.awaited[id] = awaited;
    state.arrivals = [...state.arrivals, awaited];
    for (const device of devices) {
      const stage = stageOn(state, device, action);
      state.order[device]?.push(action);
      if (action.phase === "F") stage.forward++;
      else if (action.phase === "B") stage.backward.push(action);
      else stage.weights++;
    }
  }
  for (const device of devices) state.free[device] = end;
  state.done += actions.length * devices.length;
}

/** How far a device is with the stage of an action. */
function stageOn({ stages }: State, device: number, action: Action): StageState {
  return stages[device]?.find(({ stage }) => stage === action.stage) as StageState;
}

function choicesOf(state: State, work: PlacedWork, device: number, time: number): readonly Choice[] {
  const last = state.order[device]?.at(-1)?.phase;
  const forward = nextForward(state, work, device, time);
  const backward = nextBackward(state, work, device, time);
  const forwardFirst = (last !== undefined && last !== "F") || backward?.isAwaited === false;
  const choices = [
    ...(forwardFirst ? [forward, backward] : [backward, forward]),
    nextWeights(state, work, device),
  ];
  return choices.filter((choice) => choice !== undefined);
}

/** The B of the oldest micro-batch, together with its W when they are one piece. */
function nextBackward(state: State, work: PlacedWork, device: number, time: number): Choice | undefined {
  const ready = (state.stages[device] ?? []).flatMap((stage) => {
    const open = openBackward(work, stage);
    const action = open.find((one) => isReady(state, work, one, device, time));
    return action === undefined ? [] : [{ stage, action, isAwaited: action === open[0] }];
  });
  const [best] = ready.sort(byAge);
  if (best === undefined) return undefined;
  const { action, isAwaited } = best;
  const actions: readonly Action[] =
    work.weights === "fused" ? [action, { ...action, phase: "W" }] : [action];
  return { devices: devicesFor(state, best, device), actions, isAwaited };
}

/** The F of the oldest item whose stage may still hold one more. */
function nextForward(state: State, work: PlacedWork, device: number, time: number): Choice | undefined {
  const ready = (state.stages[device] ?? []).flatMap((stage) => {
    const action = openForward(work, stage);
    if (action === undefined || !isReady(state, work, action, device, time)) return [];
    const starting = devicesFor(state, { stage, action }, device).map((one) => stageOn(state, one, action));
    return starting.some((one) => isFull(work, one)) ? [] : [{ stage, action }];
  });
  const [best] = ready.sort(byAge);
  return best && { devices: devicesFor(state, best, device), actions: [best.action] };
}

interface Ready {
  readonly stage: StageState;
  readonly action: Action;
}

/** The devices that start an action at the same time. */
function devicesFor({ rules }: State, { stage, action }: Ready, device: number): readonly number[] {
  return rules.meets(action) ? stage.devices : [device];
}

/** The W that have been ready for longest, of the items that are one piece, when all devices that start it are through with their B. */
function nextWeights(state: State, work: Work, device: number): Choice | undefined {
  const all = items(work);
  const size = work.weights === "per-micro-batch" ? work.chunks : work.weights === "deferred" ? all : 1;
  const isBusy = (one: number): boolean =>
    work.weights === "deferred" && (state.stages[one] ?? []).some(({ backward }) => backward.length < all);
  const readySince = ({ stage, backward, weights }: StageState): number => {
    const item = backward[weights];
    return item === undefined ? 0 : (state.ends[state.rules.id({ ...item, stage, phase: "B" })] as number);
  };
  const oldest = (state.stages[device] ?? []).toSorted((a, b) => readySince(a) - readySince(b));
  for (const stage of oldest) {
    const actions = stage.backward
      .slice(stage.weights, stage.weights + size)
      .map((item): Action => ({ ...item, stage: stage.stage, phase: "W" }));
    const [action] = actions;
    if (action === undefined || actions.length < size) continue;
    const devices = devicesFor(state, { stage, action }, device);
    if (!devices.some(isBusy)) return { devices, actions };
  }
  return undefined;
}

function isFull(work: Work, { stage, forward, backward, weights }: StageState): boolean {
  if (forward - backward.length >= work.chunks + 2 * (work.stages - 1 - stage)) return true;
  const slack = 2 * (work.stages - 1);
  const held = forward - weights;
  if (work.weights === "per-item") return held >= work.chunks + slack;
  if (work.weights === "per-micro-batch") return held >= 2 * work.chunks + slack;
  return false;
}

/** Whether all that an action needs is there for `device`. */
function isReady(state: State, work: PlacedWork, action: Action, device: number, time: number): boolean {
  return state.rules.dependencies(action).every((need) => {
    const id = state.rules.id(need);
    const isHere = work.placement[need.stage]?.includes(device) === true;
    const ready = (isHere ? state.ends : state.awaited)[id] as number;
    return state.begun[id] === state.devicesOf(need) && ready <= time;
  });
}

/** The oldest micro-batch first, of one micro-batch the last stage. */
function byAge(a: Ready, b: Ready): number {
  return a.action.microBatch - b.action.microBatch || b.action.stage - a.action.stage;
}

/** The next F of a stage: items go forward in their order. */
function openForward(work: Work, { stage, forward }: StageState): Action | undefined {
  const { chunks } = work;
  if (forward === items(work)) return undefined;
  return { phase: "F", stage, microBatch: Math.floor(forward / chunks), chunk: forward % chunks };
}

/** The B of a stage that may come next: the last chunk of a micro-batch, or any, where nothing flows back from chunk to chunk. */
function openBackward(work: Work, { stage, backward }: StageState): readonly Action[] {
  const { chunks } = work;
  const done = backward.length % chunks;
  const microBatch = (backward.length - done) / chunks;
  if (microBatch === work.microBatches) return [];
  const actionOf = (chunk: number): Action => ({ phase: "B", stage, microBatch, chunk });
  if (work.carries?.[stage] ?? true) return [actionOf(chunks - 1 - done)];
  const finished = new Set(backward.slice(backward.length - done).map(({ chunk }) => chunk));
  return Array.from({ length: chunks }, (_, i) => chunks - 1 - i)
    .filter((chunk) => !finished.has(chunk))
    .map(actionOf);
}

function items(work: Work): number {
  return work.microBatches * work.chunks;
}
