/**
 * Builds a graph from operations on symbolic tensors. Equal operations on equal operands in the same group and phase are made
 * once (hash-consing), so derivative rules may ask for the same constant or slice as often as they like.
 */

import { UserError } from "../base/errors.ts";
import type { Graph, GraphInput, GraphOutput, InputRole, Node, Phase, ValueId } from "./graph.ts";
import { inferTypes } from "./infer.ts";
import type { Op } from "./op.ts";
import { ShapeError } from "./op-rules.ts";
import { sameType, showType, type TensorType } from "./shape.ts";
import type { Scope, Tensor } from "./tensor.ts";

export class GraphBuilder implements Scope {
  readonly #inputs: { readonly input: GraphInput; readonly tensor: Tensor }[] = [];
  readonly #nodes: {
    readonly op: Op;
    readonly inputs: readonly Tensor[];
    readonly outputs: readonly Tensor[];
    readonly group: string;
    readonly phase: Phase;
  }[] = [];
  readonly #outputs: { readonly name: string; readonly tensor: Tensor }[] = [];
  readonly #made = new Map<string, readonly Tensor[]>();
  #tensors = 0;
  #group = "model";
  #phase: Phase = "F";

  /** The group that new operations belong to. */
  get group(): string {
    return this.#group;
  }

  /** Where new operations go, in the words of a message. */
  protected get place(): string {
    return `group "${this.#group}"`;
  }

  /** Runs `build` with new operations placed in `group` and `phase`. */
  within<T>(place: { readonly group?: string; readonly phase?: Phase }, build: () => T): T {
    const before = [this.#group, this.#phase] as const;
    this.#group = place.group ?? this.#group;
    this.#phase = place.phase ?? this.#phase;
    try {
      return build();
    } finally {
      [this.#group, this.#phase] = before;
    }
  }

  /** Declares an input, or returns the one already declared under this name; its type must then be the same. */
  input(name: string, role: InputRole, type: TensorType): Tensor {
    const known = this.#inputs.find(({ input }) => input.name === name);
    if (known === undefined) {
      const tensor = this.#tensor(type);
      this.#inputs.push({ input: { name, role, group: this.#group }, tensor });
      return tensor;
    }
    if (!sameType(known.tensor, type) || known.input.role !== role) {
      throw new UserError(
        `input "${name}" is used as ${role} ${showType(type)} in group "${this.#group}", but was declared as ${known.input.role} ${showType(known.tensor)} in group "${known.input.group}"`,
      );
    }
    return known.tensor;
  }

  /** The group of the operation that made `tensor`; undefined for inputs. */
  groupOf(tensor: Tensor): string | undefined {
    return this.#nodes.findLast((node) => node.outputs.includes(tensor))?.group;
  }

  output(name: string, tensor: Tensor): void {
    this.#outputs.push({ name, tensor });
  }

  apply(op: Op, inputs: readonly Tensor[]): readonly Tensor[] {
    if (inputs.some(({ scope }) => scope !== this)) {
      throw new UserError(
        `${op.kind} in ${this.place}: an operand belongs to another graph; use only tensors of the model that is being built`,
      );
    }
    const key = `${this.#group}\n${this.#phase}\n${JSON.stringify(op, exactNumbers)}\n${inputs.map((input) => input.id)}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const outputs = this.#infer(op, inputs).map((type) => this.#tensor(type));
    this.#nodes.push({ op, inputs, outputs, group: this.#group, phase: this.#phase });
    this.#made.set(key, outputs);
    return outputs;
  }

  /** The graph built so far; `outputs` are those declared, in order. */
  build(): Graph {
    const ids = new Map<ValueId, ValueId>();
    const types: TensorType[] = [];
    const number = (tensor: Tensor): ValueId => {
      ids.set(tensor.id, types.length);
      return types.push({ dtype: tensor.dtype, shape: tensor.shape }) - 1;
    };
    const idOf = (tensor: Tensor): ValueId => ids.get(tensor.id) as ValueId;
    for (const { tensor } of this.#inputs) number(tensor);
    const nodes = this.#nodes.map(
      ({ op, inputs, outputs, group, phase }): Node => ({
        op,
        inputs: inputs.map(idOf),
        outputs: outputs.map(number),
        group,
        phase,
      }),
    );
    const outputs = this.#outputs.map(({ name, tensor }): GraphOutput => ({ name, value: idOf(tensor) }));
    return { inputs: this.#inputs.map(({ input }) => input), nodes, outputs, types };
  }

  #tensor(type: TensorType): Tensor {
    return { scope: this, id: this.#tensors++, dtype: type.dtype, shape: type.shape };
  }

  #infer(op: Op, inputs: readonly Tensor[]): readonly TensorType[] {
    try {
      return inferTypes(op, inputs);
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      throw new UserError(`${op.kind} in ${this.place}: ${error.message}`);
    }
  }
}

/** Keeps -0, NaN and the infinities apart, which JSON does not. */
function exactNumbers(_key: string, value: unknown): unknown {
  const isExact = typeof value !== "number" || (Number.isFinite(value) && !Object.is(value, -0));
  return isExact ? value : Object.is(value, -0) ? "-0" : `${value}`;
}

/**
 * The values of an existing graph as tensors of `builder`: its inputs and nodes are replayed there. `operandOf` may give a node another
 * tensor than that of the value it had, made in the group and phase of the node; `tensors` are those so far.
 */
export function replay(
  builder: GraphBuilder,
  graph: Graph,
  operandOf: (value: ValueId, node: Node, tensors: readonly Tensor[]) => Tensor = (value, _, tensors) =>
    tensors[value] as Tensor,
): readonly Tensor[] {
  const tensors: Tensor[] = [];
  graph.inputs.forEach(({ name, role, group }, value) => {
    tensors.push(
      builder.within({ group }, () => builder.input(name, role, graph.types[value] as TensorType)),
    );
  });
  for (const node of graph.nodes) {
    const results = builder.within(node, () => {
      const operands = node.inputs.map((value) => operandOf(value, node, tensors));
      return builder.apply(node.op, operands);
    });
    tensors.push(...results);
  }
  return tensors;
}
