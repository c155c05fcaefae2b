/** Parts of graphs: what makes some values, and graphs of some nodes only. */

import type { Graph, GraphOutput, Node, ValueId } from "./graph.ts";
import type { TensorType } from "./shape.ts";

/** The nodes that some values depend on, in their order. */
export function nodesFor(graph: Graph, values: Iterable<ValueId>): readonly Node[] {
  const needed = new Set(values);
  const nodes = graph.nodes.toReversed().filter((node) => {
    const isNeeded = node.outputs.some((value) => needed.has(value));
    if (isNeeded) for (const value of node.inputs) needed.add(value);
    return isNeeded;
  });
  return nodes.reverse();
}

/** The graph without operations that no output depends on. */
export function withoutDeadNodes(graph: Graph): Graph {
  const { inputs, outputs } = graph;
  const nodes = nodesFor(
    graph,
    outputs.map(({ value }) => value),
  );
  return subgraph(graph, nodes, [...inputs.keys()], outputs);
}

/**
 * A graph of some nodes of `graph`, in the order given, with values numbered afresh: `inputs` are the values that come in, those that
 * nodes make as data called `%value`; `outputs` name values of `graph`.
 */
export function subgraph(
  graph: Graph,
  nodes: readonly Node[],
  inputs: readonly ValueId[],
  outputs: readonly GraphOutput[],
): Graph {
  const ids = new Map(inputs.map((value, i) => [value, i]));
  const types = inputs.map((value) => graph.types[value] as TensorType);
  const renumbered = nodes.map((node): Node => {
    const operands = node.inputs.map((value) => ids.get(value) as number);
    const results = node.outputs.map((value) => {
      ids.set(value, types.length);
      return types.push(graph.types[value] as TensorType) - 1;
    });
    return { ...node, inputs: operands, outputs: results };
  });
  return {
    inputs: inputs.map(
      (value) => graph.inputs[value] ?? { name: `%${value}`, role: "data", group: nodes[0]?.group ?? "" },
    ),
    nodes: renumbered,
    outputs: outputs.map(({ name, value }) => ({ name, value: ids.get(value) as number })),
    types,
  };
}
