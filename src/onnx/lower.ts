/**
 * From a graph to an ONNX model in memory.
 *
 *     graph ── one table entry per operation ──► nodes, constants ── names of outputs ──► encode ──► bytes
 *
 * Inputs are called i0, i1, ... and outputs o0, o1, ..., by position; an input may also be fed by rows (i3_0_400). Nodes carry the index and kind of the operation that they
 * come from, so that a message of ONNX Runtime can be traced back (`originOf`).
 */

import { UserError } from "../base/errors.ts";
import { type Graph, type Node, typeOf, type ValueId } from "../graph/graph.ts";
import type { Op, OpKind } from "../graph/op.ts";
import { showType, sizeOf, type TensorType } from "../graph/shape.ts";
import { Emitter } from "./emitter.ts";
import { dataTypeOf, encodeModel } from "./encode.ts";
import { type HostMask, scalarNodes } from "./host-mask.ts";
import { loweringOf } from "./lower/table.ts";
import type { OnnxGraph, OnnxValue } from "./model.ts";
import type { Lowered, Site } from "./site.ts";

/** Where an input of the model comes from: an input of the graph, or a range of its dim 0. */
export interface Feed {
  readonly name: string;
  readonly input: number;
  readonly rows?: readonly [start: number, stop: number];
}

export interface LoweredGraph {
  readonly model: Uint8Array;
  readonly feeds: readonly Feed[];
  /** Inputs of the model that the engine fills itself before each run. */
  readonly masks: readonly HostMask[];
  /** Names of the model's outputs, in the order of the graph's. */
  readonly outputs: readonly string[];
}

export interface LowerOptions {
  /** Threads that one operator may use; default 1. */
  readonly threads?: number;
  /** Puts an empty sequence of this name before the outputs. */
  readonly sentinel?: string;
}

/** The model of a graph. Throws a `UserError` that lists every tensor without elements, which ONNX Runtime cannot bind. */
export function lowerGraph(graph: Graph, options: LowerOptions = {}): LoweredGraph {
  refuseEmpty(graph);
  const { sentinel, threads = 1 } = options;
  const read = valuesRead(graph);
  const context: Context = { graph, emitter: new Emitter(), feeds: [], masks: [], read, threads };
  const { emitter, feeds, masks } = context;
  const values: Lowered[] = graph.inputs.map((_, input) => fed(context, input));
  graph.nodes.forEach((node, index) => {
    emitter.origin = `op${index}:${node.op.kind}`;
    for (const value of lowerNode(context, node, values)) values.push(value);
  });
  emitter.origin = "outputs";
  const renamed = nameOutputs(graph, values, emitter);
  const inputs = [...feeds.map((feed) => describedFeed(graph, feed)), ...masks.map(describedMask)];
  const outputs = graph.outputs.map(
    ({ value }, i): OnnxValue => ({ name: `o${i}`, ...typeOf(graph, value) }),
  );
  const whole = emitter.graph(inputs, outputs, renamed);
  const model = encodeModel(sentinel === undefined ? whole : withSentinel(whole, sentinel));
  return { model, feeds, masks, outputs: outputs.map(({ name }) => name) };
}

/** The operation that a name of a node in a message of ONNX Runtime comes from, where the message has one. */
export function originOf(graph: Graph, message: string): Node | undefined {
  const index = /\bop(\d+):[a-z0-9-]+\//.exec(message)?.[1];
  return index === undefined ? undefined : graph.nodes[Number(index)];
}

interface Context {
  readonly graph: Graph;
  readonly emitter: Emitter;
  readonly feeds: Feed[];
  readonly masks: HostMask[];
  /** For each value, whether anything that is needed reads it. */
  readonly read: readonly boolean[];
  readonly threads: number;
}

function refuseEmpty(graph: Graph): void {
  const problems = graph.types.flatMap((type, value) =>
    sizeOf(type.shape) === 0 ? [`%${value} is ${showType(type)}`] : [],
  );
  if (problems.length > 0) throw new UserError("tensors without elements cannot be computed", problems);
}

function valuesRead(graph: Graph): readonly boolean[] {
  const read = graph.types.map(() => false);
  for (const { value } of graph.outputs) read[value] = true;
  for (const node of graph.nodes.toReversed()) {
    if (node.outputs.some((value) => read[value])) for (const value of node.inputs) read[value] = true;
  }
  return read;
}

/** An input of the graph, as a whole or by rows; each way is an input of the model once it is asked for. */
function fed({ graph, feeds }: Context, input: number): Lowered {
  const type = typeOf(graph, input);
  const feed = (made: Feed): string => {
    if (!feeds.some(({ name }) => name === made.name)) feeds.push(made);
    return made.name;
  };
  const name = `i${input}`;
  const full = () => feed({ name, input });
  return {
    type,
    thin: {
      get name() {
        return full();
      },
      shape: type.shape,
    },
    full,
    rows: (start, stop) => feed({ name: `${name}_${start}_${stop}`, input, rows: [start, stop] }),
  };
}

function describedFeed(graph: Graph, { name, input, rows }: Feed): OnnxValue {
  const { dtype, shape } = typeOf(graph, input);
  return { name, dtype, shape: rows === undefined ? shape : shape.with(0, rows[1] - rows[0]) };
}

function describedMask({ name, type }: HostMask): OnnxValue {
  return { name, ...type };
}

function lowerNode(context: Context, node: Node, values: readonly Lowered[]): readonly Lowered[] {
  const { graph, emitter, read, threads } = context;
  const results = node.outputs.map((value) => typeOf(graph, value));
  const used = node.outputs.map((value) => read[value] === true);
  if (!used.includes(true)) return results.map((type) => direct(type, ""));
  const inputs = node.inputs.map((value) => values[value] as Lowered);
  const site: Site = { emitter, inputs, results, used, threads };
  const special = hostMask(context, node) ?? deferred(node, site);
  if (special !== undefined) return [special];
  const names = isHalf(node.op, site) ? inSingle(node.op, site) : loweringOf(node.op.kind)(node.op, site);
  return results.map((type, i) => direct(type, names[i] as string));
}

/** Operations that only move or convert elements, which ONNX Runtime can do in f16. */
const moving: ReadonlySet<OpKind> = new Set<OpKind>([
  "cast",
  "constant",
  "iota",
  "broadcast",
  "reshape",
  "transpose",
  "slice",
  "concat",
  "split",
  "pad",
  "gather",
]);

function isHalf({ kind }: Op, { inputs, results }: Site): boolean {
  const types = [...inputs.map(({ type }) => type), ...results];
  return !moving.has(kind) && types.some(({ dtype }) => dtype === "f16");
}

/** On the CPU half precision is a way to store numbers: they are computed with in f32. */
function inSingle(op: Op, site: Site): readonly string[] {
  const { emitter } = site;
  const single = (type: TensorType): TensorType => (type.dtype === "f16" ? { ...type, dtype: "f32" } : type);
  const inputs = site.inputs.map((input) =>
    input.type.dtype === "f16"
      ? direct(single(input.type), emitter.emit("Cast", [input.full()], { to: dataTypeOf("f32") }))
      : input,
  );
  const names = loweringOf(op.kind)(op, { ...site, inputs, results: site.results.map(single) });
  return names.map((name, i) =>
    name !== "" && site.results[i]?.dtype === "f16"
      ? emitter.emit("Cast", [name], { to: dataTypeOf("f16") })
      : name,
  );
}

function direct(type: TensorType, name: string): Lowered {
  return { type, thin: { name, shape: type.shape }, full: () => name };
}

/** A dropout mask whose key and base the engine can compute. */
function hostMask({ graph, masks }: Context, { op, inputs, outputs }: Node): Lowered | undefined {
  if (op.kind !== "dropout-mask") return undefined;
  const nodes = scalarNodes(graph, inputs);
  if (nodes === undefined) return undefined;
  const [key, base] = inputs as [ValueId, ValueId];
  const type = typeOf(graph, outputs[0] as ValueId);
  const mask = { name: `mask${masks.length}`, type, op, key, base, nodes };
  masks.push(mask);
  return direct(type, mask.name);
}

/** Constants, repeated tensors and squares, which many consumers can read in a smaller form; written out when one cannot. */
function deferred({ op }: Node, site: Site): Lowered | undefined {
  const { emitter } = site;
  const type = site.results[0] as TensorType;
  let made: string | undefined;
  const full = () => {
    made ??= (isHalf(op, site) ? inSingle(op, site) : loweringOf(op.kind)(op, site))[0] as string;
    return made;
  };
  const [source] = site.inputs;
  switch (op.kind) {
    case "constant":
      return {
        type,
        thin: { name: emitter.scalar(op.dtype, op.value), shape: [] },
        constant: op.value,
        full,
      };
    case "broadcast":
      return source && { type, thin: source.thin, full, ...constantOf(source) };
    case "square":
      if (source === undefined || type.dtype === "f16") return undefined;
      return {
        type,
        thin: {
          get name() {
            return full();
          },
          shape: type.shape,
        },
        squared: source.full(),
        full,
      };
    default:
      return undefined;
  }
}

function constantOf({ constant }: Lowered): { readonly constant?: number } {
  return constant === undefined ? {} : { constant };
}

/** Gives every output its name; a value that is not a node's result, or is an output twice, is copied. */
function nameOutputs(
  graph: Graph,
  values: readonly Lowered[],
  emitter: Emitter,
): ReadonlyMap<string, string> {
  const names = graph.outputs.map(({ value }) => (values[value] as Lowered).full());
  const results = emitter.results();
  const renamed = new Map<string, string>();
  names.forEach((name, index) => {
    if (results.has(name) && !renamed.has(name)) renamed.set(name, `o${index}`);
    else emitter.emitAs(`o${index}`, "Identity", [name]);
  });
  return renamed;
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
