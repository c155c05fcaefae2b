/**
 * What the devices of a pipeline do, as plain data, and which action must wait for which. Everything else in
 * this folder (the schedules, the replay, the verifier) takes its rules from here.
 *
 * An item (micro-batch m, chunk c) goes forward through the stages in time order and back in reverse:
 *
 *     F(s,m,c) needs  F(earlier stages,m,c)  and  F(s,m,c-1)                  carried state, if it carries any
 *     B(s,m,c) needs  F(s,m,c),  B(later stages,m,c)  and  B(s,m,c+1)         and its gradient
 *     W(s,m,c) needs  B(s,m,c)
 *
 * Of a stage on several devices, an action has ended when it has on all of them; for W of a device only its own B counts. They do F and B at
 * the same time where they wait for each other in it (they `meet`), else each when it can; W each when it can, unless they share the
 * sums of gradients.
 */

import type { WeightTiming } from "../layout/layout.ts";

/** Forward, backward for inputs, backward for weights. The update comes once, after all of them. */
export type Phase = "F" | "B" | "W";

/** One unit of work that streams through the stages; both numbers count from 0. */
export interface Item {
  readonly microBatch: number;
  readonly chunk: number;
}

/** One phase of one item on one stage. */
export interface Action extends Item {
  readonly phase: Phase;
  readonly stage: number;
}

/** By stage the devices that hold it: one, or several that share the work of each of its actions. */
export type Placement = readonly (readonly number[])[];

/** By stage, for each of its devices how long it takes for what costs 1: its part of the work over its speed. */
export type Loads = readonly (readonly number[])[];

/** The load of a stage on one of the devices that `placement` gives it. */
export function loadAt(loads: Loads, placement: Placement, stage: number, device: number): number {
  return loads[stage]?.[placement[stage]?.indexOf(device) ?? -1] ?? 1;
}

/** Whether the devices of a stage wait for each other within an action, by its phase; in W only where they do in B, too. */
export type Meets = { readonly [P in Phase]: boolean };

/** For each device the actions it runs, in order; an action of several devices stands with each of them. */
export type Schedule = readonly (readonly Action[])[];

/** Values flow from the first stage of the pair to the second; the first is always the smaller number. */
export type StageEdge = readonly [from: number, to: number];

/**
 * When the gradients of the weights are computed.
 * - `fused`: B and W are one piece; a stage hands its gradient on only after W (backward as in the papers before 2023).
 * - `per-item`: W is a piece of its own and the gradient leaves before it.
 * - `per-micro-batch`: the W of all chunks of a micro-batch run together, as one large product.
 * - `deferred`: all W of a device run together at the end of the step.
 */
export type Weights = WeightTiming;

/** The work of one training step, before anyone decides in which order to do it. */
export interface Work {
  readonly stages: number;
  readonly microBatches: number;
  /** Chunks of time in each micro-batch. */
  readonly chunks: number;
  readonly weights: Weights;
  /** The graph of stages; without it the stages form a chain. */
  readonly edges?: readonly StageEdge[];
  /** By stage whether it carries state from chunk to chunk; without it all do. */
  readonly carries?: readonly boolean[];
  /** By stage in which phases its devices meet; without it in all but W. */
  readonly meets?: readonly Meets[];
}

/** Answers for one piece of work: what an action waits for, and a dense number for every action. */
export interface Rules {
  /** Number of distinct actions: 3 x stages x microBatches x chunks. */
  readonly count: number;
  /** A number from 0 to count - 1 that no other action has. */
  id(action: Action): number;
  /** The actions that must have ended before `action` may start. */
  dependencies(action: Action): readonly Action[];
  /** Whether the devices of its stage start an action at the same time. */
  meets(action: Action): boolean;
}

const phaseNumber: { readonly [P in Phase]: number } = { F: 0, B: 1, W: 2 };

/** The dependency rules of `work`. */
export function rulesOf(work: Work): Rules {
  const { stages, microBatches, chunks } = work;
  const { before, after } = neighbours(work);
  const carries = (stage: number): boolean => work.carries?.[stage] ?? true;
  const backward = work.weights === "fused" ? "W" : "B";
  return {
    count: 3 * stages * microBatches * chunks,
    id({ phase, stage, microBatch, chunk }) {
      return ((phaseNumber[phase] * stages + stage) * microBatches + microBatch) * chunks + chunk;
    },
    dependencies(action) {
      const { phase, stage, microBatch, chunk } = action;
      switch (phase) {
        case "F": {
          const needs = (before[stage] ?? []).map((from): Action => ({ ...action, stage: from }));
          return chunk > 0 && carries(stage)
            ? [...needs, { phase, stage, microBatch, chunk: chunk - 1 }]
            : needs;
        }
        case "B": {
          const needs = (after[stage] ?? []).map((to): Action => ({ ...action, phase: backward, stage: to }));
          needs.push({ ...action, phase: "F" });
          return chunk < chunks - 1 && carries(stage)
            ? [...needs, { phase, stage, microBatch, chunk: chunk + 1 }]
            : needs;
        }
        case "W":
          return [{ ...action, phase: "B" }];
        default:
          return phase satisfies never;
      }
    },
    meets({ phase, stage }) {
      return work.meets?.[stage]?.[phase] ?? phase !== "W";
    },
  };
}

/** The edges of `work`, written out when they are only implied by the chain. */
function edgesOf(work: Pick<Work, "stages" | "edges">): readonly StageEdge[] {
  return work.edges ?? Array.from({ length: Math.max(work.stages - 1, 0) }, (_, s): StageEdge => [s, s + 1]);
}

/** Every action of `work` exactly once, ordered by phase, stage, micro-batch and chunk. */
export function allActions(work: Work): readonly Action[] {
  const actions: Action[] = [];
  for (const phase of ["F", "B", "W"] as const)
    for (let stage = 0; stage < work.stages; stage++)
      for (let microBatch = 0; microBatch < work.microBatches; microBatch++)
        for (let chunk = 0; chunk < work.chunks; chunk++) actions.push({ phase, stage, microBatch, chunk });
  return actions;
}

/**
 * One device's actions cut into the pieces that each run as one computation: all W of a micro-batch, or of a stage,
 * where `weights` joins them; every other action alone.
 */
export function piecesOf(actions: readonly Action[], weights: Weights): readonly (readonly Action[])[] {
  const pieces: Action[][] = [];
  for (const action of actions) {
    const piece = pieces.at(-1);
    const previous = piece?.at(-1);
    if (piece !== undefined && previous !== undefined && joins(previous, action, weights)) piece.push(action);
    else pieces.push([action]);
  }
  return pieces;
}

function joins(previous: Action, action: Action, weights: Weights): boolean {
  if (previous.phase !== "W" || action.phase !== "W" || previous.stage !== action.stage) return false;
  if (weights === "per-micro-batch") return previous.microBatch === action.microBatch;
  return weights === "deferred";
}

function neighbours(work: Work): {
  readonly before: readonly number[][];
  readonly after: readonly number[][];
} {
  const before: number[][] = Array.from({ length: work.stages }, () => []);
  const after: number[][] = Array.from({ length: work.stages }, () => []);
  for (const [from, to] of edgesOf(work)) {
    after[from]?.push(to);
    before[to]?.push(from);
  }
  return { before, after };
}
