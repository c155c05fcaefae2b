/**
 * The typed intermediate representation: a list of operations on tensors with static shapes, in an order in which every
 * value is defined before it is used. Immutable; `print` and `parse` are inverse (text.ts), `verify` checks it (verify.ts).
 */

import type { Op } from "./op.ts";
import type { TensorType } from "./shape.ts";

/** Index into `Graph.types`. */
export type ValueId = number;

/**
 * What a graph input is: `data` comes with the batch; `parameter` is trained; `state` is carried from one item to the next
 * (recurrent layers, running statistics, optimizer moments); `gradient` is the gradient of an output, given from outside;
 * `scalar` is set by the runtime (loss scale, learning rate, dropout key).
 */
export type InputRole = "data" | "parameter" | "state" | "gradient" | "scalar";

export interface GraphInput {
  readonly name: string;
  readonly role: InputRole;
  readonly group: string;
}

/** F forward, B gradients of inputs and carried state, W gradients of parameters only, U update. */
export type Phase = "F" | "B" | "W" | "U";

export interface Node {
  readonly op: Op;
  readonly inputs: readonly ValueId[];
  readonly outputs: readonly ValueId[];
  /** The named part of the model that this node is placed with. */
  readonly group: string;
  readonly phase: Phase;
}

export interface GraphOutput {
  readonly name: string;
  readonly value: ValueId;
}

/** Values are numbered: first the inputs (value i is input i), then the results of the nodes in order. */
export interface Graph {
  readonly inputs: readonly GraphInput[];
  readonly nodes: readonly Node[];
  readonly outputs: readonly GraphOutput[];
  readonly types: readonly TensorType[];
}

export function typeOf(graph: Graph, value: ValueId): TensorType {
  const type = graph.types[value];
  if (type === undefined) throw new Error(`internal: the graph has no value %${value}`);
  return type;
}
