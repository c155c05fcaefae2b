/** Where an operation is being lowered: its operands as ONNX values, its result types, and the emitter. */

import type { OpKind, OpOf } from "../graph/op.ts";
import { broadcastShapes, type Shape, sameShape, type TensorType } from "../graph/shape.ts";
import type { Emitter } from "./emitter.ts";

/**
 * A value of the graph inside the model. Constants and repeated tensors are kept small (`thin`, which broadcasts to the value)
 * and are written out in full only for a consumer that needs it.
 */
export interface Lowered {
  readonly type: TensorType;
  readonly thin: { readonly name: string; readonly shape: Shape };
  /** The number that every element is, where that is known. */
  readonly constant?: number;
  /** Name of the tensor whose square this is, where that is known. */
  readonly squared?: string;
  /** Elements start to stop of dim 0, where that costs nothing: rows of an input are bound as a tensor of their own. */
  readonly rows?: (start: number, stop: number) => string;
  /** Name of the tensor in its full shape. */
  full(): string;
}

export interface Site {
  readonly emitter: Emitter;
  readonly inputs: readonly Lowered[];
  readonly results: readonly TensorType[];
  /** For each result, whether anything reads it. */
  readonly used: readonly boolean[];
  /** Threads that one operator may use. */
  readonly threads: number;
}

/** Lowers one operation; returns the name of each result, empty where it is not used. */
export type Lowering<K extends OpKind> = (op: OpOf<K>, site: Site) => readonly string[];

/** Names of all operands in full shape. */
export function operands(site: Site): readonly string[] {
  return site.inputs.map((input) => input.full());
}

/** Name of one operand in full shape. */
export function operand(site: Site, index: number): string {
  return lowered(site, index).full();
}

/** Name of equal parts of dim 0 of one operand. */
export function operandParts(site: Site, index: number, count: number): readonly string[] {
  const { type, rows, full } = lowered(site, index);
  const size = (type.shape[0] as number) / count;
  const starts = Array.from({ length: count }, (_, part) => part * size);
  if (rows !== undefined) return starts.map((start) => rows(start, start + size));
  const { emitter } = site;
  const inputs = [full(), emitter.ints(starts.map(() => size))];
  return emitter.emitMany(
    "Split",
    inputs,
    { axis: 0 },
    starts.map(() => true),
  );
}

export function operandType(site: Site, index: number): TensorType {
  return lowered(site, index).type;
}

export function resultType(site: Site, index = 0): TensorType {
  const type = site.results[index];
  if (type === undefined) throw new Error(`internal: the operation has no result ${index}`);
  return type;
}

/** Names of operands that an elementwise operation may read in their small shapes; their broadcast is the result's shape. */
export function thinOperands(site: Site): readonly string[] {
  const result = resultType(site).shape;
  const shapes = site.inputs.map(({ thin }) => thin.shape);
  const reached = broadcastShapes(shapes);
  if (reached !== undefined && sameShape(reached, result)) return site.inputs.map(({ thin }) => thin.name);
  const widest = site.inputs.findIndex(({ type }) => sameShape(type.shape, result));
  if (widest < 0) return operands(site);
  return site.inputs.map((input, i) => (i === widest ? input.full() : input.thin.name));
}

function lowered(site: Site, index: number): Lowered {
  const input = site.inputs[index];
  if (input === undefined) throw new Error(`internal: the operation has no operand ${index}`);
  return input;
}
