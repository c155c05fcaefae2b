/**
 * Dropout masks made outside the model. ONNX Runtime has the integer operators for it, but each is a pass over memory: 6.7 ms for
 * a million elements, a plain loop 1.8 ms. So where the key and the base come from scalar inputs, the mask becomes an input of the
 * model that the engine fills before each run; elsewhere it is lowered to operators (lower/loss.ts).
 */

import { encodeFloat16 } from "../base/float16.ts";
import { hashIndex } from "../base/random.ts";
import type { DType, TypedArray } from "../graph/dtype.ts";
import { type Graph, type Node, typeOf, type ValueId } from "../graph/graph.ts";
import type { OpKind, OpOf } from "../graph/op.ts";
import type { Dense } from "../graph/op-rules.ts";
import { rulesOf } from "../graph/op-table.ts";
import { type Shape, stridesOf, type TensorType } from "../graph/shape.ts";

/** A model input that the engine fills: the mask of `op` for the scalars `key` and `base`, computed by `nodes` from inputs. */
export interface HostMask {
  readonly name: string;
  readonly type: TensorType;
  readonly op: OpOf<"dropout-mask">;
  readonly key: ValueId;
  readonly base: ValueId;
  /** Scalar operations to evaluate first, in order. */
  readonly nodes: readonly Node[];
}

const scalarKinds: ReadonlySet<OpKind> = new Set<OpKind>(["constant", "add", "sub", "mul", "reshape"]);

/** The scalar operations that `values` need, in order; `undefined` where they need anything else but scalar inputs. */
export function scalarNodes(graph: Graph, values: readonly ValueId[]): readonly Node[] | undefined {
  const needed = new Set(values);
  const nodes: Node[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((value) => needed.has(value))) continue;
    if (!scalarKinds.has(node.op.kind)) return undefined;
    for (const value of node.inputs) needed.add(value);
    nodes.push(node);
  }
  const scalars = [...needed].every((value) => {
    const { dtype, shape } = typeOf(graph, value);
    return dtype === "i32" && shape.every((size) => size === 1);
  });
  return scalars ? nodes.toReversed() : undefined;
}

/** Writes the mask for the present contents of the graph's inputs; `input` gives the number in a scalar input. */
export function fillHostMask(
  graph: Graph,
  mask: HostMask,
  input: (value: ValueId) => number,
  into: TypedArray,
): void {
  const known = new Map<ValueId, Dense>();
  const scalarAt = (value: ValueId): Dense =>
    known.get(value) ?? { shape: typeOf(graph, value).shape, data: Float64Array.of(input(value)) };
  for (const { op, inputs, outputs } of mask.nodes) {
    const types = outputs.map((value) => typeOf(graph, value));
    const results = rulesOf(op.kind).evaluate(op, inputs.map(scalarAt), types);
    outputs.forEach((value, i) => {
      known.set(value, results[i] as Dense);
    });
  }
  const [key, base] = [mask.key, mask.base].map((value) => scalarAt(value).data[0] as number) as [
    number,
    number,
  ];
  fillMask(into as Float32Array, mask.op, key | 0, base | 0);
}

/** The mask of `op`, bit for bit that of its reference evaluation rounded to the dtype. */
function fillMask(into: Float32Array, op: OpOf<"dropout-mask">, key: number, base: number): void {
  const { shape, strides } = merged(op.shape, op.strides);
  const kept = stored(op.dtype, 1 / op.keep);
  const threshold = Math.ceil(op.keep * 2 ** 24);
  const width = shape.at(-1) ?? 1;
  const step = (strides.at(-1) ?? 0) | 0;
  const outer = stridesOf(shape.slice(0, -1));
  for (let row = 0; row * width < into.length; row++) {
    let index = (base + key) | 0;
    for (let dim = 0; dim < outer.length; dim++) {
      const at = Math.floor(row / (outer[dim] as number)) % (shape[dim] as number);
      index = (index + at * (strides[dim] as number)) | 0;
    }
    fillRow(into, row * width, width, index, step, threshold, kept);
  }
}

function fillRow(
  into: Float32Array,
  start: number,
  count: number,
  first: number,
  step: number,
  threshold: number,
  kept: number,
): void {
  for (let i = 0, index = first; i < count; i++, index = (index + step) | 0) {
    into[start + i] = (((hashIndex(0, index) >>> 8) - threshold) >>> 31) * kept;
  }
}

/** The number as elements of the dtype hold it. */
function stored(dtype: DType, value: number): number {
  return dtype === "f16" ? encodeFloat16(value) : value;
}

/** Joins neighbouring dims that one stride walks through. */
function merged(shape: Shape, strides: readonly number[]): { shape: number[]; strides: number[] } {
  const result = { shape: [] as number[], strides: [] as number[] };
  shape.forEach((size, dim) => {
    const stride = strides[dim] as number;
    const last = result.shape.length - 1;
    if (last >= 0 && result.strides[last] === stride * size) {
      result.shape[last] = (result.shape[last] as number) * size;
      result.strides[last] = stride;
    } else {
      result.shape.push(size);
      result.strides.push(stride);
    }
  });
  return result;
}
