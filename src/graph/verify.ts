/** Checks that a graph means something: definition before use, types as the operations give them, unique names. */

import type { Graph, Node, ValueId } from "./graph.ts";
import { rulesOf } from "./op-table.ts";
import { sameType, showType, type TensorType } from "./shape.ts";

/** All faults found, one sentence each; none for a valid graph. */
export function verifyGraph(graph: Graph): string[] {
  const problems = [...duplicates("input", graph.inputs), ...duplicates("output", graph.outputs)];
  let defined = graph.inputs.length;
  graph.nodes.forEach((node, index) => {
    const where = `node ${index} (${node.op.kind} in group "${node.group}")`;
    problems.push(
      ...undefinedOperands(node, defined).map((value) => `${where} uses %${value} before it is defined`),
    );
    node.outputs.forEach((value, at) => {
      if (value !== defined + at) problems.push(`${where} defines %${value}, expected %${defined + at}`);
    });
    defined += node.outputs.length;
    problems.push(...typeFaults(graph, node).map((fault) => `${where}: ${fault}`));
  });
  if (graph.types.length !== defined) problems.push(`${graph.types.length} types for ${defined} values`);
  for (const { name, value } of graph.outputs) {
    if (!(value >= 0 && value < defined))
      problems.push(`output "${name}" is %${value}, which is not defined`);
  }
  return problems;
}

function duplicates(what: string, named: readonly { readonly name: string }[]): string[] {
  const seen = new Set<string>();
  return named.flatMap(({ name }) =>
    seen.size === seen.add(name).size ? [`${what} "${name}" is declared twice`] : [],
  );
}

function undefinedOperands(node: Node, defined: number): ValueId[] {
  return node.inputs.filter((value) => !(value >= 0 && value < defined));
}

function typeFaults(graph: Graph, node: Node): string[] {
  const operands = node.inputs.map((value) => graph.types[value]);
  if (operands.some((type) => type === undefined)) return [];
  try {
    const expected = rulesOf(node.op.kind).infer(node.op, operands as TensorType[]);
    if (expected.length !== node.outputs.length)
      return [`has ${node.outputs.length} results, expected ${expected.length}`];
    return expected.flatMap((type, i) => {
      const found = graph.types[node.outputs[i] as ValueId];
      return found && sameType(found, type)
        ? []
        : [`result ${i} is ${found ? showType(found) : "missing"}, expected ${showType(type)}`];
    });
  } catch (error) {
    return [(error as Error).message];
  }
}
