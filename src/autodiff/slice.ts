/**
 * Slices the derivative into B and W (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2): B is what another place or
 * another item waits for, W is what only parameter gradients need and may therefore be delayed.
 */

import type { Graph, Node } from "../graph/graph.ts";

/**
 * The graph with every derivative operation in phase B or W. An operation is B when a gradient that leaves its place depends on it:
 * one that an operation at another place uses, or an output in `urgent` (gradients of carried state).
 *
 * `placeOf` says which groups are computed together; by default every group is a place of its own.
 */
export function sliceWeightGradients(
  graph: Graph,
  urgent: ReadonlySet<string>,
  placeOf: (group: string) => string = (group) => group,
): Graph {
  const isDerivative = (node: Node) => node.phase === "B" || node.phase === "W";
  const needed = new Map<number, Set<string>>();
  const need = (value: number, place: string) =>
    needed.set(value, (needed.get(value) ?? new Set()).add(place));
  for (const { name, value } of graph.outputs) if (urgent.has(name)) need(value, "");
  const nodes = graph.nodes.toReversed().map((node): Node => {
    if (!isDerivative(node)) return node;
    const place = placeOf(node.group);
    const waiting = node.outputs.flatMap((value) => [...(needed.get(value) ?? [])]);
    const isUrgent = waiting.some((waiter) => waiter !== `W ${place}`);
    const mark = isUrgent ? "" : `W ${place}`;
    for (const value of node.inputs) need(value, mark);
    return { ...node, phase: isUrgent ? "B" : "W" };
  });
  return { ...graph, nodes: nodes.reverse() };
}
