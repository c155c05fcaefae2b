/**
 * Recomputation (activation checkpointing; Chen et al. 2016, arXiv 1604.06174): instead of saving a group's intermediate values from
 * forward to backward, the derivative computes them again from the values that entered the group.
 */

import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Node, ValueId } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";

/**
 * A graph that computes the same, in which the derivative of every group in `groups` uses no forward value of that group: the
 * operations it needs are repeated in phase B.
 */
export function recompute(graph: Graph, groups: ReadonlySet<string>): Graph {
  const builder = new GraphBuilder();
  const makers = new Map<ValueId, Node>(
    graph.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)),
  );
  const tensors = new Map<ValueId, Tensor>();
  const repeated = new Map<ValueId, Tensor>();
  const tensorOf = (value: ValueId): Tensor => tensors.get(value) as Tensor;

  const repeat = (value: ValueId, group: string): Tensor => {
    const maker = makers.get(value);
    const known = repeated.get(value);
    if (known !== undefined) return known;
    if (maker === undefined || maker.phase !== "F" || maker.group !== group) return tensorOf(value);
    const operands = maker.inputs.map((operand) => repeat(operand, group));
    const results = builder.within({ group, phase: "B" }, () => builder.apply(maker.op, operands));
    maker.outputs.forEach((output, i) => {
      repeated.set(output, results[i] as Tensor);
    });
    return repeated.get(value) as Tensor;
  };

  graph.inputs.forEach(({ name, role, group }, value) => {
    tensors.set(
      value,
      builder.within({ group }, () => builder.input(name, role, graph.types[value] as TensorType)),
    );
  });
  for (const node of graph.nodes) {
    const again = node.phase !== "F" && groups.has(node.group);
    const operands = node.inputs.map((value) => (again ? repeat(value, node.group) : tensorOf(value)));
    const results = builder.within(node, () => builder.apply(node.op, operands));
    node.outputs.forEach((value, i) => {
      tensors.set(value, results[i] as Tensor);
    });
  }
  for (const { name, value } of graph.outputs) builder.output(name, tensorOf(value));
  return builder.build();
}
