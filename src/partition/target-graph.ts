/** The kernel of a segment for the buffers its results go to. */

import type { Graph } from "../graph/graph.ts";
import { accumulating } from "./accumulate.ts";

/** One destination of a result: the position of the result in the segment, and whether it is added to what is there. */
export interface Target {
  readonly position: number;
  readonly buffer: number;
  readonly accumulate: boolean;
}

/** Kernels by segment and destinations, so that items share them. */
export class TargetGraphs {
  readonly #graphs = new Map<Graph, Map<string, Graph>>();

  /** `segment` with one output for each target; totals are further inputs, in the order of the accumulating targets. */
  of(segment: Graph, targets: readonly Target[]): Graph {
    const known = this.#graphs.get(segment) ?? new Map<string, Graph>();
    this.#graphs.set(segment, known);
    const key = targets.map(({ position, accumulate }) => `${position}${accumulate ? "+" : ""}`).join(" ");
    const graph = known.get(key) ?? build(segment, targets);
    known.set(key, graph);
    return graph;
  }
}

function build(segment: Graph, targets: readonly Target[]): Graph {
  const outputs = targets.map(({ position }, i) => ({
    ...(segment.outputs[position] as Graph["outputs"][number]),
    name: `result${i}`,
  }));
  const adding = targets.flatMap(({ accumulate }, i) => (accumulate ? [i] : []));
  const graph = { ...segment, outputs };
  return adding.length === 0 ? graph : accumulating(graph, adding);
}
