/**
 * Reverse-mode differentiation on the graph: the derivative of every operation, from the outputs back, as further operations of
 * the same graph. A derivative operation belongs to the group of the operation it derives from, in phase B; `slice.ts` finds
 * out which of them only parameters need (phase W).
 */

import { invariant, UserError } from "../base/errors.ts";
import { GraphBuilder, replay } from "../graph/builder.ts";
import { isFloat } from "../graph/dtype.ts";
import { add, constant } from "../graph/functions.ts";
import type { Graph, Node, ValueId } from "../graph/graph.ts";
import { rulesOf } from "../graph/op-table.ts";
import type { Tensor } from "../graph/tensor.ts";

/** Where a derivative starts: at an output, with gradient 1 or with a gradient given from outside as the input `gradient`. */
export interface Seed {
  readonly output: string;
  readonly gradient: "one" | { readonly input: string };
}

/** One gradient that the graph computes: of input `input`, as far as it arises in `group`, at output `output`. */
export interface GradientOutput {
  readonly input: string;
  readonly group: string;
  readonly output: string;
}

export interface Derivative {
  /** The given graph followed by its derivative. */
  readonly graph: Graph;
  /** In the order of `wanted`; an input used by several groups has one entry for each, an unused one has none. */
  readonly gradients: readonly GradientOutput[];
}

/**
 * Adds to `graph` the gradients of all `seeds` (summed) with respect to the inputs `wanted`. Gradients are not summed over groups, so
 * that a tied parameter's parts stay on the devices where they arise.
 */
export function differentiate(graph: Graph, seeds: readonly Seed[], wanted: readonly string[]): Derivative {
  const unknown = wanted.filter((input) => graph.inputs.every(({ name }) => name !== input));
  if (unknown.length > 0) throw new UserError(`there is no input "${unknown.join('", "')}" to differentiate`);
  const builder = new GraphBuilder();
  const tensors = replay(builder, graph);
  for (const { name, value } of graph.outputs) builder.output(name, tensors[value] as Tensor);
  const sums = new GradientSums(builder, groupsOfValues(graph));
  for (const seed of seeds) plantSeed(builder, graph, tensors, seed, sums);
  const dependent = dependentValues(graph, wanted);
  for (const node of graph.nodes.toReversed()) deriveNode(builder, node, tensors, dependent, sums);
  const gradients = wanted.flatMap((input) => {
    const parts = sums.parts(graph.inputs.findIndex(({ name }) => name === input));
    return parts.map(({ group, gradient }) => {
      const output = parts.length === 1 ? `grad:${input}` : `grad:${input}@${group}`;
      builder.output(output, gradient);
      return { input, group, output };
    });
  });
  return { graph: builder.build(), gradients };
}

/** Gradients that have arrived at each value so far. Those of graph inputs are kept apart by the group they come from. */
class GradientSums {
  readonly #builder: GraphBuilder;
  readonly #groups: readonly (string | undefined)[];
  readonly #sums = new Map<ValueId, Map<string, Tensor>>();

  constructor(builder: GraphBuilder, groups: readonly (string | undefined)[]) {
    this.#builder = builder;
    this.#groups = groups;
  }

  add(value: ValueId, gradient: Tensor, from: string): void {
    const group = this.#groups[value] ?? from;
    const sums = this.#sums.get(value) ?? new Map<string, Tensor>();
    const before = sums.get(group);
    const total =
      before === undefined
        ? gradient
        : this.#builder.within({ group, phase: "B" }, () => add(before, gradient));
    this.#sums.set(value, sums.set(group, total));
  }

  /** The gradient of a value that an operation made. */
  of(value: ValueId): Tensor | undefined {
    return [...(this.#sums.get(value)?.values() ?? [])][0];
  }

  /** The gradient of a graph input, by the group where it arises. */
  parts(value: ValueId): readonly { readonly group: string; readonly gradient: Tensor }[] {
    return [...(this.#sums.get(value) ?? [])].map(([group, gradient]) => ({ group, gradient }));
  }
}

/** The group of the node that makes each value; undefined for graph inputs. */
function groupsOfValues(graph: Graph): (string | undefined)[] {
  return [
    ...graph.inputs.map(() => undefined),
    ...graph.nodes.flatMap((node) => node.outputs.map(() => node.group)),
  ];
}

function plantSeed(
  builder: GraphBuilder,
  graph: Graph,
  tensors: readonly Tensor[],
  seed: Seed,
  sums: GradientSums,
): void {
  const output = graph.outputs.find(({ name }) => name === seed.output);
  if (output === undefined) throw new UserError(`there is no output "${seed.output}" to differentiate`);
  const tensor = tensors[output.value] as Tensor;
  const group = graph.nodes.find((node) => node.outputs.includes(output.value))?.group ?? builder.group;
  const gradient = builder.within({ group, phase: "B" }, () =>
    seed.gradient === "one"
      ? constant(builder, tensor.dtype, tensor.shape, 1)
      : builder.input(seed.gradient.input, "gradient", tensor),
  );
  sums.add(output.value, gradient, group);
}

/** Which values depend on a wanted input through differentiable operands. */
function dependentValues(graph: Graph, wanted: readonly string[]): readonly boolean[] {
  const dependent = graph.inputs.map(({ name }) => wanted.includes(name));
  for (const node of graph.nodes) {
    const any = node.inputs.some((value) => dependent[value]);
    for (const value of node.outputs) dependent.push(any && isFloat(graph.types[value]?.dtype ?? "bool"));
  }
  return dependent;
}

function deriveNode(
  builder: GraphBuilder,
  node: Node,
  tensors: readonly Tensor[],
  dependent: readonly boolean[],
  sums: GradientSums,
): void {
  const gradients = node.outputs.map((value) => sums.of(value));
  const wanted = node.inputs.map((value) => dependent[value] === true);
  if (!wanted.includes(true) || gradients.every((gradient) => gradient === undefined)) return;
  const { derive } = rulesOf(node.op.kind);
  if (derive === null)
    throw new UserError(`${node.op.kind} in group "${node.group}" cannot be differentiated`);
  const operands = (values: readonly ValueId[]) => values.map((value) => tensors[value] as Tensor);
  const results = builder.within({ group: node.group, phase: "B" }, () =>
    derive(node.op, { inputs: operands(node.inputs), outputs: operands(node.outputs), gradients, wanted }),
  );
  invariant(
    results.length === node.inputs.length,
    `${node.op.kind}: a gradient for each operand, got ${results.length}`,
  );
  results.forEach((gradient, i) => {
    if (gradient !== undefined && wanted[i]) sums.add(node.inputs[i] as ValueId, gradient, node.group);
  });
}
