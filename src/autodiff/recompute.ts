/**
 * Recomputation (activation checkpointing; Chen et al. 2016, arXiv 1604.06174): instead of saving a group's intermediate values from
 * forward to backward, the derivative computes them again from the values that entered the group.
 */

import { GraphBuilder, replay } from "../graph/builder.ts";
import type { Graph, Node, ValueId } from "../graph/graph.ts";
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
  const repeated = new Map<ValueId, Tensor>();

  const repeat = (value: ValueId, group: string, tensors: readonly Tensor[]): Tensor => {
    const maker = makers.get(value);
    const known = repeated.get(value);
    if (known !== undefined) return known;
    if (maker === undefined || maker.phase !== "F" || maker.group !== group) return tensors[value] as Tensor;
    const operands = maker.inputs.map((operand) => repeat(operand, group, tensors));
    const results = builder.within({ group, phase: "B" }, () => builder.apply(maker.op, operands));
    maker.outputs.forEach((output, i) => {
      repeated.set(output, results[i] as Tensor);
    });
    return repeated.get(value) as Tensor;
  };

  const tensors = replay(builder, graph, (value, { phase, group }, made) =>
    phase !== "F" && groups.has(group) ? repeat(value, group, made) : (made[value] as Tensor),
  );
  for (const { name, value } of graph.outputs) builder.output(name, tensors[value] as Tensor);
  return builder.build();
}
