/** What of a graph anybody needs. */

import type { Graph, Node } from "./graph.ts";

/** The graph without operations that no output depends on. */
export function withoutDeadNodes(graph: Graph): Graph {
  const live = new Set(graph.outputs.map(({ value }) => value));
  const kept = graph.nodes.toReversed().filter((node) => {
    const isLive = node.outputs.some((value) => live.has(value));
    if (isLive) for (const value of node.inputs) live.add(value);
    return isLive;
  });
  return renumber(graph, kept.reverse());
}

/** A graph of some nodes of `graph`, in the order given, with values numbered afresh; all inputs and outputs stay. */
function renumber(graph: Graph, nodes: readonly Node[]): Graph {
  const ids = new Map(graph.inputs.map((_, value) => [value, value]));
  const types = graph.types.slice(0, graph.inputs.length);
  const renamed = nodes.map((node): Node => {
    const inputs = node.inputs.map((value) => ids.get(value) as number);
    const outputs = node.outputs.map((value) => {
      ids.set(value, types.length);
      return types.push(graph.types[value] as (typeof types)[number]) - 1;
    });
    return { ...node, inputs, outputs };
  });
  return {
    inputs: graph.inputs,
    nodes: renamed,
    outputs: graph.outputs.map(({ name, value }) => ({ name, value: ids.get(value) as number })),
    types,
  };
}
