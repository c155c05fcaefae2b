/**
 * From a graph to an ONNX model in memory.
 *
 *     graph ── one table entry per operation ──► nodes, constants ── names of outputs ──► encode ──► bytes
 *
 * Inputs are called i0, i1, ... and outputs o0, o1, ..., by position. Nodes carry the index and kind of the operation that they
 * come from, so that a message of ONNX Runtime can be traced back (`originOf`).
 */

import { UserError } from "../base/errors.ts";
import { type Graph, type Node, typeOf, type ValueId } from "../graph/graph.ts";
import { showType, sizeOf, type TensorType } from "../graph/shape.ts";
import { Emitter } from "./emitter.ts";
import { encodeModel } from "./encode.ts";
import { loweringOf } from "./lower/table.ts";
import type { OnnxGraph, OnnxValue } from "./model.ts";
import type { Lowered, Site } from "./site.ts";

export interface LoweredGraph {
  readonly model: Uint8Array;
  /** Names of the model's inputs, in the order of the graph's. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

export interface LowerOptions {
  /** Puts an empty sequence of this name before the outputs. */
  readonly sentinel?: string;
}

/** The model of a graph. Throws a `UserError` that lists every tensor without elements, which ONNX Runtime cannot bind. */
export function lowerGraph(graph: Graph, options: LowerOptions = {}): LoweredGraph {
  const lowered = lowerToModel(graph);
  const { sentinel } = options;
  const model = encodeModel(sentinel === undefined ? lowered : withSentinel(lowered, sentinel));
  return {
    model,
    inputs: lowered.inputs.map(({ name }) => name),
    outputs: lowered.outputs.map(({ name }) => name),
  };
}

/** The operation that a name of a node in a message of ONNX Runtime comes from, where the message has one. */
export function originOf(graph: Graph, message: string): Node | undefined {
  const index = /\bop(\d+):[a-z0-9-]+\//.exec(message)?.[1];
  return index === undefined ? undefined : graph.nodes[Number(index)];
}

/** The model of a graph as data. */
export function lowerToModel(graph: Graph): OnnxGraph {
  refuseEmpty(graph);
  const emitter = new Emitter();
  const values: Lowered[] = graph.inputs.map((_, value) => direct(typeOf(graph, value), `i${value}`));
  const read = valuesRead(graph);
  graph.nodes.forEach((node, index) => {
    emitter.origin = `op${index}:${node.op.kind}`;
    for (const value of lowerNode(graph, node, values, emitter, read)) values.push(value);
  });
  emitter.origin = "outputs";
  return withOutputs(graph, values, emitter);
}

function refuseEmpty(graph: Graph): void {
  const problems = graph.types.flatMap((type, value) =>
    sizeOf(type.shape) === 0 ? [`%${value} is ${showType(type)}`] : [],
  );
  if (problems.length > 0) throw new UserError("tensors without elements cannot be computed", problems);
}

/** For each value, whether a node that is itself needed, or an output, reads it. */
function valuesRead(graph: Graph): readonly boolean[] {
  const read = graph.types.map(() => false);
  for (const { value } of graph.outputs) read[value] = true;
  for (const node of graph.nodes.toReversed()) {
    if (node.outputs.some((value) => read[value])) for (const value of node.inputs) read[value] = true;
  }
  return read;
}

function lowerNode(
  graph: Graph,
  node: Node,
  values: readonly Lowered[],
  emitter: Emitter,
  read: readonly boolean[],
): readonly Lowered[] {
  const results = node.outputs.map((value) => typeOf(graph, value));
  const used = node.outputs.map((value) => read[value] === true);
  if (!used.includes(true)) return results.map((type) => direct(type, ""));
  const inputs = node.inputs.map((value) => values[value] as Lowered);
  const site: Site = { emitter, inputs, results, used };
  if (node.op.kind === "constant" || node.op.kind === "broadcast") return [deferred(node, site)];
  const names = loweringOf(node.op.kind)(node.op, site);
  return results.map((type, i) => direct(type, names[i] as string));
}

function direct(type: TensorType, name: string): Lowered {
  return { type, thin: { name, shape: type.shape }, full: () => name };
}

/** A constant or repeated tensor, which most consumers can read in its small form. */
function deferred({ op }: Node, site: Site): Lowered {
  const { emitter } = site;
  const type = site.results[0] as TensorType;
  let made: string | undefined;
  const full = () => {
    made ??= loweringOf(op.kind)(op, site)[0] as string;
    return made;
  };
  if (op.kind === "constant") {
    return { type, thin: { name: emitter.scalar(op.dtype, op.value), shape: [] }, constant: op.value, full };
  }
  const source = site.inputs[0] as Lowered;
  return {
    type,
    thin: source.thin,
    ...(source.constant === undefined ? {} : { constant: source.constant }),
    full,
  };
}

/** Gives every output its name; a value that is not a node's result, or is an output twice, is copied. */
function withOutputs(graph: Graph, values: readonly Lowered[], emitter: Emitter): OnnxGraph {
  const names = graph.outputs.map(({ value }) => (values[value] as Lowered).full());
  const results = emitter.results();
  const renamed = new Map<string, string>();
  names.forEach((name, index) => {
    if (results.has(name) && !renamed.has(name)) renamed.set(name, `o${index}`);
    else emitter.emitAs(`o${index}`, "Identity", [name]);
  });
  const described = (name: string, value: ValueId): OnnxValue => ({ name, ...typeOf(graph, value) });
  return emitter.graph(
    graph.inputs.map((_, value) => described(`i${value}`, value)),
    graph.outputs.map(({ value }, index) => described(`o${index}`, value)),
    renamed,
  );
}

function withSentinel(graph: OnnxGraph, sentinel: string): OnnxGraph {
  const node = {
    name: sentinel,
    opType: "SequenceEmpty",
    domain: "",
    inputs: [],
    outputs: [sentinel],
    attributes: { dtype: 1 },
  };
  return { ...graph, nodes: [...graph.nodes, node], sentinel };
}
