/** Evaluates a graph in float64, one operation after another: the oracle that engines are compared with. */

import { UserError } from "../base/errors.ts";
import type { Graph } from "./graph.ts";
import type { Dense } from "./op-rules.ts";
import { rulesOf } from "./op-table.ts";
import { showType, sizeOf, type TensorType } from "./shape.ts";

/** Values of all outputs by name. `inputs` are by name, one for every graph input, in its shape. */
export function evaluateGraph(graph: Graph, inputs: ReadonlyMap<string, Dense>): Map<string, Dense> {
  const values = evaluateAll(graph, inputs);
  return new Map(graph.outputs.map(({ name, value }) => [name, values[value] as Dense]));
}

/** Values of every value of the graph, by id. */
export function evaluateAll(graph: Graph, inputs: ReadonlyMap<string, Dense>): readonly Dense[] {
  const values = graph.inputs.map(({ name }, value) => {
    const type = graph.types[value] as TensorType;
    const given = inputs.get(name);
    if (given === undefined) throw new UserError(`input "${name}" (${showType(type)}) was not given`);
    if (given.data.length !== sizeOf(type.shape)) {
      throw new UserError(`input "${name}" is ${showType(type)}, but [${given.shape}] was given`);
    }
    return given;
  });
  for (const node of graph.nodes) {
    const operands = node.inputs.map((value) => values[value] as Dense);
    const types = node.outputs.map((value) => graph.types[value] as TensorType);
    values.push(...rulesOf(node.op.kind).evaluate(node.op, operands, types));
  }
  return values;
}
