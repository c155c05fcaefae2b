/**
 * What flows between the groups of a model: where it may be cut, and how many bytes that costs. The forward values go one way, their
 * gradients come back, and a parameter that several groups use is owned by the first and copied to the others.
 */

import type { TrainingStep } from "../autodiff/training-step.ts";
import type { Graph, Phase, ValueId } from "../graph/graph.ts";
import { bytesOfType, showType, type TensorType } from "../graph/shape.ts";

/** A value that one group makes and another one uses; one entry for each user. */
export interface Flow {
  readonly from: string;
  readonly to: string;
  /** Equal for the same value. */
  readonly value: string;
  readonly bytes: number;
  /** The phase it is made in; U for tied parameters and their gradients. */
  readonly phase: Phase;
  /** The operation that makes it and its type, such as `lstm f32[32,20,400]`. */
  readonly tensor: string;
}

/** Every value of `graph` that flows from one group to another, in the order of its users. */
export function flowsOf(graph: Graph): readonly Flow[] {
  const makers = new Map<ValueId, number>();
  const flows = new Map<string, Flow>();
  graph.nodes.forEach((node, index) => {
    for (const value of node.inputs) {
      const maker = graph.nodes[makers.get(value) ?? -1];
      if (maker === undefined || maker.group === node.group) continue;
      const type = graph.types[value] as TensorType;
      flows.set(`${value} ${node.group}`, {
        from: maker.group,
        to: node.group,
        value: `%${value}`,
        bytes: bytesOfType(type),
        phase: maker.phase,
        tensor: `${maker.op.kind} ${showType(type)}`,
      });
    }
    for (const value of node.outputs) makers.set(value, index);
  });
  return [...flows.values()];
}

/** As `flowsOf` the item graph, and the gradients and new values of tied parameters, which flow once in a step. */
export function stepFlows(step: Pick<TrainingStep, "item" | "gradients" | "parameters">): readonly Flow[] {
  const tied = step.gradients.flatMap(({ input, group, output }): Flow[] => {
    const parameter = step.parameters.find(({ name }) => name === input);
    if (parameter === undefined || parameter.group === group) return [];
    const common = { bytes: bytesOfType(parameter.type), phase: "U" as const };
    const owner = parameter.group;
    return [
      { ...common, from: group, to: owner, value: output, tensor: `gradient of ${input}` },
      { ...common, from: owner, to: group, value: input, tensor: input },
    ];
  });
  return [...flowsOf(step.item), ...tied];
}

/** Bytes that arrive at the groups of one place from all others; a value that several of them use arrives once. */
export function incomingBytes(flows: readonly Flow[], place: ReadonlySet<string>): number {
  const arriving = new Map(
    flows.flatMap(({ value, bytes, from, to }) =>
      place.has(to) && !place.has(from) ? [[value, bytes] as const] : [],
    ),
  );
  return [...arriving.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** Bytes that cross each boundary of `order`, both ways: entry i is between its groups i and i + 1. */
export function boundaryBytes(flows: readonly Flow[], order: readonly string[]): readonly number[] {
  return order.slice(1).map((_, i) => {
    const [before, after] = [new Set(order.slice(0, i + 1)), new Set(order.slice(i + 1))];
    return incomingBytes(flows, before) + incomingBytes(flows, after);
  });
}
