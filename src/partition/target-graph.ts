/** The kernel of a segment for the buffers its results go to. */

import type { Graph } from "../graph/graph.ts";
import { showType, type TensorType } from "../graph/shape.ts";
import { accumulating } from "./accumulate.ts";

/** One destination of a result: the position of the result in the segment, and whether it is added to what is there. */
export interface Target {
  readonly position: number;
  readonly buffer: number;
  readonly accumulate: boolean;
}

/** Kernels by what they compute, so that items and equal steps share them. */
export class TargetGraphs {
  readonly #graphs = new Map<Graph, Map<string, Graph>>();
  readonly #distinct = new Map<string, Graph>();
  readonly #copies = new Map<string, Graph>();

  /** A kernel that gives its operand. */
  copy(type: TensorType): Graph {
    const key = showType(type);
    const known = this.#copies.get(key) ?? copyOf(type);
    this.#copies.set(key, known);
    return known;
  }

  /** `segment` with one output for each target; totals are further inputs, in the order of the accumulating targets. */
  of(segment: Graph, targets: readonly Target[]): Graph {
    const known = this.#graphs.get(segment) ?? new Map<string, Graph>();
    this.#graphs.set(segment, known);
    const key = targets.map(({ position, accumulate }) => `${position}${accumulate ? "+" : ""}`).join(" ");
    const graph = known.get(key) ?? this.#share(build(segment, targets));
    known.set(key, graph);
    return graph;
  }

  #share(graph: Graph): Graph {
    const signature = signatureOf(graph);
    const known = this.#distinct.get(signature) ?? graph;
    this.#distinct.set(signature, known);
    return known;
  }
}

/** What a graph computes: everything but the names of its inputs. */
function signatureOf({ inputs, nodes, outputs, types }: Graph): string {
  const roles = inputs.map(({ role, group }) => [role, group]);
  return JSON.stringify([roles, nodes, outputs, types], (_key, value: unknown) =>
    typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))
      ? `${1 / value} ${value}`
      : value,
  );
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

function copyOf(type: TensorType): Graph {
  const op = { kind: "reshape", shape: type.shape } as const;
  return {
    inputs: [{ name: "x", role: "data", group: "" }],
    nodes: [{ op, inputs: [0], outputs: [1], group: "", phase: "F" }],
    outputs: [{ name: "copy", value: 1 }],
    types: [type, type],
  };
}
