/**
 * How long compiled programs take, whatever they are split along: they are carried out on paper, every run in the estimated time of its
 * operations. What devices take from each other (memory bandwidth, caches) is left out.
 */

import { type Rates, secondsOf, typicalRates, workOf } from "../cost/node-work.ts";
import type { Graph } from "../graph/graph.ts";
import { sentBytes } from "../program/collectives.ts";
import type { Program } from "../program/program.ts";
import { replayPrograms } from "../program/replay.ts";
import { type Overheads, threadOverheads } from "./predict.ts";

export interface StepPrediction {
  readonly seconds: number;
  /** By device: the share of the step in which it computes, from 0 to 1. */
  readonly busy: readonly number[];
}

export interface StepRequest {
  /** By device of the programs, relative to `rates`. */
  readonly speeds: readonly number[];
  readonly rates?: Rates;
  readonly overheads?: Overheads;
}

/** The step of `programs`, which must be sound. */
export function predictStep(
  programs: readonly Program[],
  { speeds, rates = typicalRates, overheads = threadOverheads }: StepRequest,
): StepPrediction {
  const known = new Map<Graph, number>();
  const secondsAt = (kernel: Graph): number => {
    const seconds = known.get(kernel) ?? secondsOfGraph(kernel, rates);
    known.set(kernel, seconds);
    return seconds;
  };
  const moving = (bytes: number): number => overheads.latency + bytes / overheads.bytesPerSecond;
  const busy = programs.map(() => 0);
  const { makespan } = replayPrograms(programs, {
    duration: ({ kernel }, { device, kernels }) => {
      const seconds = secondsAt(kernels[kernel] as Graph) / (speeds[device] ?? 1) + overheads.segment;
      busy[device] = (busy[device] ?? 0) + seconds;
      return seconds;
    },
    transfer: moving,
    collective: (bytes, { kind, ranks }) => moving(sentBytes(kind, bytes, ranks.length)),
  });
  return { seconds: makespan, busy: busy.map((seconds) => seconds / makespan) };
}

function secondsOfGraph(graph: Graph, rates: Rates): number {
  return graph.nodes.reduce((sum, node) => sum + secondsOf(workOf(graph, node), rates), 0);
}
