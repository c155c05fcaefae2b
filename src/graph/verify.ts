/** Checks that a graph means something: definition before use, types as the operations give them, phases in order, unique names. */

import { dtypes } from "./dtype.ts";
import type { Graph, Node, Phase, ValueId } from "./graph.ts";
import { inferTypes, isSize } from "./infer.ts";
import { opTable } from "./op-table.ts";
import { sameType, showType, type TensorType } from "./shape.ts";

/** All faults found, one sentence each; none for a valid graph. */
export function verifyGraph(graph: Graph): string[] {
  const problems = [
    ...duplicates("input", graph.inputs),
    ...duplicates("output", graph.outputs),
    ...graph.inputs.flatMap(({ name }, value) => inputFaults(name, graph.types[value])),
  ];
  let defined = graph.inputs.length;
  const phases = graph.inputs.map((): Phase => "F");
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
    problems.push(
      ...tooLate(node, phases).map(
        (value) => `${where} is in phase ${node.phase}, but uses %${value} of phase ${phases[value]}`,
      ),
    );
    phases.push(...node.outputs.map(() => node.phase));
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

function inputFaults(name: string, type: TensorType | undefined): string[] {
  if (type === undefined) return [`input "${name}" has no type`];
  const isValid = dtypes.includes(type.dtype) && type.shape.every(isSize);
  return isValid ? [] : [`input "${name}" has the type ${showType(type)}, which is not valid`];
}

function undefinedOperands(node: Node, defined: number): ValueId[] {
  return node.inputs.filter((value) => !(value >= 0 && value < defined));
}

/** Operands of a later phase: F comes before B, B before W, W before U. */
function tooLate(node: Node, phases: readonly Phase[]): ValueId[] {
  const order = "FBWU";
  return node.inputs.filter((value) => order.indexOf(phases[value] ?? "F") > order.indexOf(node.phase));
}

function typeFaults(graph: Graph, node: Node): string[] {
  if (!Object.hasOwn(opTable, node.op.kind)) return [`there is no operation "${node.op.kind}"`];
  const operands = node.inputs.map((value) => graph.types[value]);
  if (operands.some((type) => type === undefined)) return [];
  try {
    const expected = inferTypes(node.op, operands as TensorType[]);
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
