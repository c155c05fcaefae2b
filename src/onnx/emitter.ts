/** Collects the nodes and constants of one ONNX graph; names are unique, equal constants are stored once. */

import { encodeFloat16 } from "../base/float16.ts";
import type { DType } from "../graph/dtype.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import type { OnnxAttributes, OnnxConstant, OnnxDType, OnnxGraph, OnnxNode, OnnxValue } from "./model.ts";

export class Emitter {
  readonly #nodes: OnnxNode[] = [];
  readonly #constants: OnnxConstant[] = [];
  readonly #known = new Map<number, OnnxConstant[]>();
  readonly #prefix: string;
  #origin = "";
  #names = 0;

  /** `prefix` keeps the names of a body apart from those of the graph around it. */
  constructor(prefix = "") {
    this.#prefix = prefix;
  }

  /** What the nodes that follow are named after: ONNX Runtime's messages quote it. */
  set origin(name: string) {
    this.#origin = name;
  }

  /** Adds a node with one result and returns the result's name. */
  emit(opType: string, inputs: readonly string[], attributes: OnnxAttributes = {}): string {
    return this.#add(opType, "", inputs, attributes, [this.name()])[0] as string;
  }

  /** Adds one of ONNX Runtime's contributed operators with one result. */
  emitContrib(opType: string, inputs: readonly string[], attributes: OnnxAttributes = {}): string {
    return this.#add(opType, "com.microsoft", inputs, attributes, [this.name()])[0] as string;
  }

  /** Adds a node with several results; a result that is not `used` gets an empty name and is not computed. */
  emitMany(
    opType: string,
    inputs: readonly string[],
    attributes: OnnxAttributes,
    used: readonly boolean[],
  ): readonly string[] {
    const outputs = used.map((wanted) => (wanted ? this.name() : ""));
    return this.#add(opType, "", inputs, attributes, outputs);
  }

  /** Adds a node whose result is called `output`. */
  emitAs(output: string, opType: string, inputs: readonly string[], attributes: OnnxAttributes = {}): void {
    this.#add(opType, "", inputs, attributes, [output]);
  }

  /** A name not used before. */
  name(): string {
    return `${this.#prefix}${this.#names++}`;
  }

  constant(dtype: OnnxDType, shape: Shape, values: ArrayLike<number>): string {
    const bytes = bytesOf(dtype, values);
    const hash = hashBytes(bytes);
    const same = this.#known.get(hash) ?? [];
    const known = same.find(
      (other) =>
        other.dtype === dtype && other.shape.join() === shape.join() && equalBytes(other.bytes, bytes),
    );
    if (known !== undefined) return known.name;
    const made = { name: this.name(), dtype, shape, bytes };
    this.#constants.push(made);
    this.#known.set(hash, [...same, made]);
    return made.name;
  }

  scalar(dtype: OnnxDType, value: number): string {
    return this.constant(dtype, [], [value]);
  }

  /** An i64 vector, as shapes, axes and split sizes are given. */
  ints(values: readonly number[]): string {
    return this.constant("i64", [values.length], values);
  }

  /** A tensor whose every element is `value`, made at run time so that it takes no room in the model. */
  filled(dtype: DType, shape: Shape, value: number): string {
    if (sizeOf(shape) <= 1024) {
      return this.constant(dtype, shape, new Array<number>(sizeOf(shape)).fill(value));
    }
    return this.emit("Expand", [this.scalar(dtype, value), this.ints(shape)]);
  }

  /** `name` with another shape. */
  reshape(name: string, shape: Shape): string {
    return this.emit("Reshape", [name, this.ints(shape)]);
  }

  /** The graph so far; `renamed` maps names of results to the names they shall have outside. */
  graph(
    inputs: readonly OnnxValue[],
    outputs: readonly OnnxValue[],
    renamed: ReadonlyMap<string, string> = new Map(),
  ): OnnxGraph {
    const rename = (name: string) => renamed.get(name) ?? name;
    const nodes = this.#nodes.map((node) => ({
      ...node,
      inputs: node.inputs.map(rename),
      outputs: node.outputs.map(rename),
    }));
    return { nodes, constants: this.#constants, inputs, outputs };
  }

  /** Names that a node has as result. */
  results(): ReadonlySet<string> {
    return new Set(this.#nodes.flatMap(({ outputs }) => outputs));
  }

  #add(
    opType: string,
    domain: string,
    inputs: readonly string[],
    attributes: OnnxAttributes,
    outputs: readonly string[],
  ): readonly string[] {
    const name = `${this.#origin}/${this.#nodes.length}`;
    this.#nodes.push({ name, opType, domain, inputs, outputs, attributes });
    return outputs;
  }
}

function bytesOf(dtype: OnnxDType, values: ArrayLike<number>): Uint8Array {
  return new Uint8Array(typed(dtype, values).buffer);
}

function typed(dtype: OnnxDType, values: ArrayLike<number>): ArrayBufferView {
  switch (dtype) {
    case "f32":
      return Float32Array.from(values);
    case "f64":
      return Float64Array.from(values);
    case "f16":
      return Uint16Array.from(values, encodeFloat16);
    case "i32":
      return Int32Array.from(values);
    case "u32":
      return Uint32Array.from(values);
    case "i64":
      return BigInt64Array.from(Array.from(values, (value) => BigInt(Math.trunc(value))));
    case "bool":
      return Uint8Array.from(values);
    default:
      return dtype satisfies never;
  }
}

/** FNV-1a. */
function hashBytes(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash;
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
