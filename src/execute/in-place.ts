/**
 * May an output be written over an input? Only when nothing reads the input afterwards:
 *
 *     p ──► p - rate·g ──► over p        yes: each element is read before the same element is written
 *     p ──► other use                     only if the result needs that other use first
 *
 * Everything else is computed into memory of its own and copied when the run is over.
 */

import type { Graph, Node, ValueId } from "../graph/graph.ts";
import type { OpKind } from "../graph/op.ts";
import { sameType, type TensorType } from "../graph/shape.ts";

/** True when the result of output `output` may be written over the memory of input `input` while the segment runs. */
export function mayOverwrite(segment: Graph, output: number, input: ValueId): boolean {
  const value = segment.outputs[output]?.value as ValueId;
  const writer = segment.nodes.find(({ outputs }) => outputs.includes(value));
  if (writer === undefined || segment.outputs.some((other) => other.value === input)) return false;
  if (segment.outputs.filter((other) => other.value === value).length > 1) return false;
  const [from, to] = [segment.types[input], segment.types[value]] as [TensorType, TensorType];
  const readers = segment.nodes.filter(({ inputs }) => inputs.includes(input));
  const direct = readers.includes(writer);
  if (direct && !(elementwise.has(writer.op.kind) && sameType(from, to))) return false;
  const before = ancestors(segment, writer);
  return readers.every((reader) => reader === writer || before.has(reader));
}

/** Operations whose lowering ends in one operator that reads an element of each operand, then writes that element. */
const elementwise: ReadonlySet<OpKind> = new Set<OpKind>([
  "neg",
  "abs",
  "exp",
  "sqrt",
  "add",
  "sub",
  "mul",
  "div",
  "max",
  "min",
]);

/** Every node that must run before `node`. */
function ancestors(segment: Graph, node: Node): ReadonlySet<Node> {
  const makers = new Map<ValueId, Node>();
  for (const maker of segment.nodes) for (const value of maker.outputs) makers.set(value, maker);
  const found = new Set<Node>();
  const visit = (value: ValueId): void => {
    const maker = makers.get(value);
    if (maker === undefined || found.has(maker)) return;
    found.add(maker);
    maker.inputs.forEach(visit);
  };
  node.inputs.forEach(visit);
  return found;
}
