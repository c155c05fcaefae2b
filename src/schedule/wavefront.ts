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
 *     W                   nobody waits for it: it fills what would be a bubble
 *
 * On S stages with C chunks, stage s holds at most C + 2(S-1-s) items between F and B: C so that the first B can
 * start at all, the rest so that F fills the way to the last stage and back. Between F and W it holds at most
 * C + 2(S-1) items with weights per item, 2C + 2(S-1) per micro-batch, and all of them with deferred weights.
 */
import { invariant } from "../base/errors.ts";
import type { StageCosts } from "../cost/stage-work.ts";
import { type Action, type Rules, rulesOf, type Schedule, type Work } from "./action.ts";

/** Work with its place: `placement[stage]` is the device of a stage. */
export interface PlacedWork extends Work {
  readonly devices: number;
  readonly placement: readonly number[];
  /** Estimated durations per stage in any unit; the best order depends on their ratios. */
  readonly costs: readonly StageCosts[];
}

/** The order found by list scheduling; never deadlocks, because it is the record of a run. */
export function wavefront(work: PlacedWork): Schedule {
  const state = startState(work);
  const total = state.rules.count;
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
    time = Math.min(...state.free.filter((end) => end > time));
  }
  return state.order;
}

/** How far one stage has come. */
interface StageState {
  readonly stage: number;
  forward: number;
  backward: number;
  weights: number;
}

interface State {
  readonly rules: Rules;
  readonly order: Action[][];
  readonly free: number[];
  readonly ends: (number | undefined)[];
  readonly stages: readonly (readonly StageState[])[];
  done: number;
}

function startState(work: PlacedWork): State {
  const stages: StageState[][] = Array.from({ length: work.devices }, () => []);
  for (const [stage, device] of work.placement.entries())
    stages[device]?.push({ stage, forward: 0, backward: 0, weights: 0 });
  return {
    rules: rulesOf(work),
    order: stages.map(() => []),
    free: stages.map(() => 0),
    ends: [],
    stages,
    done: 0,
  };
}

function startNext(state: State, work: PlacedWork, device: number, time: number): boolean {
  const stages = state.stages[device] ?? [];
  const last = state.order[device]?.at(-1)?.phase;
  const forwardFirst = last !== undefined && last !== "F";
  const actions =
    (forwardFirst ? nextForward(state, work, stages, time) : undefined) ??
    nextBackward(state, work, stages, time) ??
    nextForward(state, work, stages, time) ??
    nextWeights(work, stages);
  if (actions === undefined) return false;
  let end = time;
  for (const action of actions) {
    end += work.costs[action.stage]?.[action.phase] ?? 0;
    state.ends[state.rules.id(action)] = end;
    state.order[device]?.push(action);
  }
  state.free[device] = end;
  state.done += actions.length;
  return true;
}

/** The B of the oldest micro-batch, together with its W when they are one piece. */
function nextBackward(state: State, work: Work, stages: readonly StageState[], time: number) {
  let best: { action: Action; stage: StageState } | undefined;
  for (const stage of stages) {
    const action = backwardAction(work, stage.stage, stage.backward);
    if (stage.backward === items(work) || !isReady(state, action, time)) continue;
    if (best === undefined || isBefore(action, best.action)) best = { action, stage };
  }
  if (best === undefined) return undefined;
  best.stage.backward++;
  if (work.weights !== "fused") return [best.action];
  best.stage.weights++;
  return [best.action, { ...best.action, phase: "W" as const }];
}

/** The F of the oldest item whose stage may still hold one more. */
function nextForward(state: State, work: Work, stages: readonly StageState[], time: number) {
  let best: { action: Action; stage: StageState } | undefined;
  for (const stage of stages) {
    const action = forwardAction(work, stage.stage, stage.forward);
    if (stage.forward === items(work) || isFull(work, stage) || !isReady(state, action, time)) continue;
    if (best === undefined || isBefore(action, best.action)) best = { action, stage };
  }
  if (best === undefined) return undefined;
  best.stage.forward++;
  return [best.action];
}

function nextWeights(work: Work, stages: readonly StageState[]): Action[] | undefined {
  if (work.weights === "deferred" && stages.some((stage) => stage.backward < items(work))) return undefined;
  const size =
    work.weights === "per-micro-batch" ? work.chunks : work.weights === "deferred" ? items(work) : 1;
  const stage = stages.find((candidate) => candidate.backward - candidate.weights >= size);
  if (stage === undefined) return undefined;
  const first = stage.weights;
  stage.weights += size;
  return Array.from({ length: size }, (_, i) => ({
    ...backwardAction(work, stage.stage, first + i),
    phase: "W" as const,
  }));
}

function isFull(work: Work, { stage, forward, backward, weights }: StageState): boolean {
  if (forward - backward >= work.chunks + 2 * (work.stages - 1 - stage)) return true;
  const slack = 2 * (work.stages - 1);
  if (work.weights === "per-item") return forward - weights >= work.chunks + slack;
  if (work.weights === "per-micro-batch") return forward - weights >= 2 * work.chunks + slack;
  return false;
}

function isReady(state: State, action: Action, time: number): boolean {
  return state.rules.dependencies(action).every((need) => {
    const end = state.ends[state.rules.id(need)];
    return end !== undefined && end <= time;
  });
}

function isBefore(a: Action, b: Action): boolean {
  return a.microBatch !== b.microBatch ? a.microBatch < b.microBatch : a.stage > b.stage;
}

function forwardAction({ chunks }: Work, stage: number, index: number): Action {
  return { phase: "F", stage, microBatch: Math.floor(index / chunks), chunk: index % chunks };
}

function backwardAction({ chunks }: Work, stage: number, index: number): Action {
  return {
    phase: "B",
    stage,
    microBatch: Math.floor(index / chunks),
    chunk: chunks - 1 - (index % chunks),
  };
}

function items(work: Work): number {
  return work.microBatches * work.chunks;
}
