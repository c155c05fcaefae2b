/**
 * The schedules of the papers, written as the rules that the papers give. Each rule speaks about micro-batches;
 * with several time chunks, a block F runs its chunks in time order and a block B in reverse.
 *
 * The pictures are drawn for F = B = 1 with W left out where it directly follows its B; the tests print them.
 */
import type { Action, Phase, Schedule, Weights } from "./action.ts";

/** The numbers that a rule needs; `local[device]` are the stages of a device, first stage first. */
export interface Grid {
  readonly local: readonly (readonly number[])[];
  readonly microBatches: number;
  readonly chunks: number;
  readonly weights: Weights;
}

/**
 * One micro-batch at a time goes through all stages and back: no two devices of a chain ever work at once. This
 * is workload partitioning (Ekanayake), the baseline that the others are measured against.
 *
 *     device 0 | F0 .  .  .  .  B0 F1 .  .  .  .  B1
 *     device 1 | .  F0 .  .  B0 .  .  F1 .  .  B1 .
 *     device 2 | .  .  F0 B0 .  .  .  .  F1 B1 .  .
 */
export function naive(grid: Grid): Schedule {
  return grid.local.map((stages) => {
    const blocks = range(grid.microBatches).flatMap((m) => [
      ...stages.map((stage) => block("F", stage, m)),
      ...stages.toReversed().map((stage) => block("B", stage, m)),
    ]);
    return expand(blocks, grid);
  });
}

/**
 * All forwards, then all backwards (Huang et al. 2019, figure 2). Several stages on a device are taken breadth first.
 *
 *     device 0 | F0 F1 F2 F3 .  .  .  .  B0 B1 B2 B3
 *     device 1 | .  F0 F1 F2 F3 .  .  B0 B1 B2 B3 .
 *     device 2 | .  .  F0 F1 F2 F3 B0 B1 B2 B3 .  .
 */
export function gpipe(grid: Grid): Schedule {
  const microBatches = range(grid.microBatches);
  return grid.local.map((stages) => {
    const forward = stages.flatMap((stage) => microBatches.map((m) => block("F", stage, m)));
    const backward = stages.toReversed().flatMap((stage) => microBatches.map((m) => block("B", stage, m)));
    return expand([...forward, ...backward], grid);
  });
}

/**
 * One forward, one backward (PipeDream-flush; Narayanan et al. 2021, section 2.2.1). Stage `s` first runs
 * `stages - s - 1` forwards, so that at most `stages - s` micro-batches are alive on it.
 *
 *     device 0 | F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
 *     device 1 | .  F0 F1 .  B0 F2 B1 F3 B2 .  B3 .
 *     device 2 | .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .
 */
export function oneForwardOneBackward(grid: Grid): Schedule {
  return grid.local.map((_, stage) => {
    const blocks = alternate(
      range(grid.microBatches).map((m) => block("F", stage, m)),
      range(grid.microBatches).map((m) => block("B", stage, m)),
      grid.local.length - stage - 1,
    );
    return expand(blocks, grid);
  });
}

/**
 * 1F1B over v stages per device: micro-batches go in groups of `devices` through the first local stage, then the
 * second, and so on; the bubble is v times smaller (Narayanan et al. 2021, section 2.2.2).
 *
 *     device 0 | 0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 .   2B2 .   2B3 0B2 0B3
 *     device 1 | .   1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3 .
 *
 * A number of micro-batches that the devices do not divide is rounded up and the surplus left out: what remains
 * is still in a legal order, since a micro-batch never waits for another one.
 */
export function interleaved(grid: Grid): Schedule {
  const devices = grid.local.length;
  const groups = Math.ceil(grid.microBatches / devices);
  return grid.local.map((stages, device) => {
    const forward = inGroups("F", stages, groups, devices);
    const backward = inGroups("B", stages.toReversed(), groups, devices);
    const warmUp = 2 * (devices - device - 1) + (stages.length - 1) * devices;
    const blocks = alternate(forward, backward, warmUp);
    return expand(
      blocks.filter(({ microBatch }) => microBatch < grid.microBatches),
      grid,
    );
  });
}

/**
 * 1F1B with W cut off from B and delayed: stage `s` lags `s` micro-batches behind with its W, which then fill the
 * drain (Qi et al. 2023, schedule ZB-H1). No stage holds more than `stages` micro-batches from F to W, which is
 * what the first stage of 1F1B holds.
 *
 *     device 0 | F0 F1 F2 .  .  B0 W0 F3 B1 W1 B2 W2 B3 W3
 *     device 1 | .  F0 F1 .  B0 F2 B1 W0 F3 B2 W1 B3 W2 W3
 *     device 2 | .  .  F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3
 */
export function zeroBubble(grid: Grid): Schedule {
  return grid.local.map((_, stage) => {
    const actions: Action[] = [];
    const microBatches = range(grid.microBatches);
    const order = alternate(
      microBatches.map((m) => block("F", stage, m)),
      microBatches.map((m) => block("B", stage, m)),
      grid.local.length - stage - 1,
    );
    for (const entry of order) {
      actions.push(...items(entry, grid.chunks));
      if (entry.phase === "B" && entry.microBatch >= stage)
        actions.push(...items(block("W", stage, entry.microBatch - stage), grid.chunks));
    }
    for (const m of microBatches.slice(Math.max(0, grid.microBatches - stage)))
      actions.push(...items(block("W", stage, m), grid.chunks));
    return actions;
  });
}

/** One phase of all chunks of a micro-batch. */
interface Block {
  readonly phase: Phase;
  readonly stage: number;
  readonly microBatch: number;
}

function block(phase: Phase, stage: number, microBatch: number): Block {
  return { phase, stage, microBatch };
}

/** `warmUp` forwards, then forward and backward in turn, then the remaining backwards. */
function alternate(forward: readonly Block[], backward: readonly Block[], warmUp: number): Block[] {
  const first = Math.min(warmUp, forward.length);
  const blocks = forward.slice(0, first);
  for (const [i, entry] of backward.entries()) blocks.push(...forward.slice(first + i, first + i + 1), entry);
  return blocks;
}

function inGroups(phase: Phase, stages: readonly number[], groups: number, size: number): Block[] {
  return range(groups).flatMap((group) =>
    stages.flatMap((stage) => range(size).map((i) => block(phase, stage, group * size + i))),
  );
}

/** Blocks to actions, with each W where `weights` wants it. */
function expand(blocks: readonly Block[], { chunks, weights }: Grid): Action[] {
  const actions: Action[] = [];
  const deferred: Action[] = [];
  for (const entry of blocks) {
    const run = items(entry, chunks);
    if (entry.phase === "F") actions.push(...run);
    else if (weights === "deferred") {
      actions.push(...run);
      deferred.push(...run.map(toWeights));
    } else if (weights === "per-micro-batch") actions.push(...run, ...run.map(toWeights));
    else actions.push(...run.flatMap((action) => [action, toWeights(action)]));
  }
  return [...actions, ...deferred];
}

function items({ phase, stage, microBatch }: Block, chunks: number): Action[] {
  const order = phase === "F" ? range(chunks) : range(chunks).toReversed();
  return order.map((chunk) => ({ phase, stage, microBatch, chunk }));
}

function toWeights(action: Action): Action {
  return { ...action, phase: "W" };
}

function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
