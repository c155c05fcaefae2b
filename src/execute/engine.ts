/**
 * What computes: the contract of ONNX Runtime, the reference interpreter and the null engine. All pass
 * `test/execute/engine-conformance.ts`.
 *
 *     segment ── prepare (slow, cached by structure) ──► kernel ── bind (buffers, once) ──► bound kernel ── run, run, ...
 *
 * A segment is a graph; parameters are inputs like any other, so layers of equal shape share one compiled form. Buffers are
 * owned by the caller, fixed when bound, and may change their contents between runs.
 */

import { UserError } from "../base/errors.ts";
import { elementBytes, type TypedArray } from "../graph/dtype.ts";
import type { Graph } from "../graph/graph.ts";
import { showType, sizeOf, type TensorType } from "../graph/shape.ts";

/** Memory of one tensor in C order; `data` has the array type of `allocate` and may be a view into a larger ArrayBuffer. */
export interface TensorBuffer {
  readonly type: TensorType;
  readonly data: TypedArray;
}

/** The same memory as bytes. */
export function bytesOf({ data }: TensorBuffer): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Copies all elements; both arrays are of one type and length. */
export function copy(from: TypedArray, to: TypedArray): void {
  (to as Float32Array).set(from as Float32Array);
}

/** A kernel with its buffers. */
export interface BoundKernel {
  /**
   * Reads the input buffers and writes every output buffer; allocates nothing that outlives the run. An error of the numbers
   * (an index outside its table) throws and names the segment; the outputs are then undefined.
   */
  run(): void | Promise<void>;
}

export interface Kernel {
  /**
   * Fixes the buffers: one for every input and output of the segment, in order. An output may share memory with inputs
   * (update in place); two outputs may not. Throws a `UserError` with every buffer that does not fit.
   */
  bind(inputs: readonly TensorBuffer[], outputs: readonly TensorBuffer[]): BoundKernel;
}

/** The kernels of one engine run one at a time. Disposing the engine frees all that it compiled; its kernels must not run afterwards. */
export interface Engine extends AsyncDisposable {
  readonly name: string;
  /** Compiles a segment. Segments of equal structure (`structureKey`) share what was compiled, also under concurrent calls. */
  prepare(segment: Graph): Promise<Kernel>;
}

/** Throws a `UserError` that lists every buffer which does not fit its input or output of `segment`. */
export function checkBuffers(
  segment: Graph,
  inputs: readonly TensorBuffer[],
  outputs: readonly TensorBuffer[],
): void {
  const problems = [
    ...faults(
      "input",
      segment.inputs.map(({ name }, value) => ({ name, type: segment.types[value] as TensorType })),
      inputs,
    ),
    ...faults(
      "output",
      segment.outputs.map(({ name, value }) => ({ name, type: segment.types[value] as TensorType })),
      outputs,
    ),
    ...sharedOutputs(segment, outputs),
  ];
  if (problems.length > 0) throw new UserError(`cannot bind ${describeSegment(segment)}`, problems);
}

/** True when the two views have bytes in common. */
export function overlap(a: TypedArray, b: TypedArray): boolean {
  return (
    a.buffer === b.buffer &&
    a.byteOffset < b.byteOffset + b.byteLength &&
    b.byteOffset < a.byteOffset + a.byteLength
  );
}

/** The segment in a few words, for messages: `segment of layer0, layer1 (F, 12 operations)`. */
export function describeSegment({ nodes }: Graph): string {
  const groups = [...new Set(nodes.map(({ group }) => group))];
  const phases = [...new Set(nodes.map(({ phase }) => phase))];
  const shown = groups.length > 4 ? [...groups.slice(0, 3), `${groups.length - 3} more groups`] : groups;
  return `segment of ${shown.length === 0 ? "no group" : shown.join(", ")} (${[...phases, `${nodes.length} operations`].join(", ")})`;
}

function faults(
  what: string,
  expected: readonly { readonly name: string; readonly type: TensorType }[],
  buffers: readonly TensorBuffer[],
): string[] {
  if (buffers.length !== expected.length) {
    return [`it has ${expected.length} ${what}s, ${buffers.length} buffers were given`];
  }
  return expected.flatMap(({ name, type }, i) => {
    const { type: got, data } = buffers[i] as TensorBuffer;
    const where = `${what} "${name}"`;
    if (showType(got) !== showType(type))
      return [`${where} is ${showType(type)}, its buffer is ${showType(got)}`];
    const length = sizeOf(type.shape);
    return data.length === length && data.BYTES_PER_ELEMENT === elementBytes(type.dtype)
      ? []
      : [
          `${where} is ${showType(type)}, its buffer holds ${data.length} elements of ${data.BYTES_PER_ELEMENT} bytes`,
        ];
  });
}

/** Pairs of outputs that share memory; sorted by address so that many outputs stay cheap. */
function sharedOutputs(segment: Graph, outputs: readonly TensorBuffer[]): string[] {
  const nameOf = (index: number) => segment.outputs[index]?.name ?? `${index}`;
  const byBuffer = new Map<ArrayBufferLike, number[]>();
  outputs.forEach(({ data }, index) => {
    const others = byBuffer.get(data.buffer);
    if (others) others.push(index);
    else byBuffer.set(data.buffer, [index]);
  });
  return [...byBuffer.values()].flatMap((indices) => {
    const sorted = indices.toSorted(
      (a, b) => (outputs[a] as TensorBuffer).data.byteOffset - (outputs[b] as TensorBuffer).data.byteOffset,
    );
    return sorted.flatMap((index, at) => {
      const before = sorted[at - 1];
      return before !== undefined &&
        overlap((outputs[before] as TensorBuffer).data, (outputs[index] as TensorBuffer).data)
        ? [`outputs "${nameOf(before)}" and "${nameOf(index)}" share memory`]
        : [];
    });
  });
}
