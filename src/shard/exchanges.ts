/** The operations by which the devices of a mesh exchange values, and the phases they belong in. */

import type { Graph, Node, ValueId } from "../graph/graph.ts";
import type { OpOf } from "../graph/op.ts";

export type CollectiveOp = OpOf<"all-reduce" | "all-gather" | "reduce-scatter">;

/** Whether a node is an exchange between devices. */
export function isExchange(node: Node): node is Node & { readonly op: CollectiveOp } {
  return node.op.kind === "all-reduce" || node.op.kind === "all-gather" || node.op.kind === "reduce-scatter";
}

/**
 * `graph` with every exchange of phase W, and what it needs of that phase, in phase B. Nobody waits for a W, so each device of a mesh does
 * its own when it has nothing more urgent to do; it must not wait in it for the others.
 */
export function exchangeEarly(graph: Graph): Graph {
  const needed = new Set<ValueId>();
  const nodes = graph.nodes.toReversed().map((node): Node => {
    if (node.phase !== "W") return node;
    if (!isExchange(node) && !node.outputs.some((value) => needed.has(value))) return node;
    for (const value of node.inputs) needed.add(value);
    return { ...node, phase: "B" };
  });
  return { ...graph, nodes: nodes.reverse() };
}
