/**
 * The work of one operation: arithmetic from its iteration space, and bytes from the tensors it touches. Together they bound its
 * time from below (the roofline of Williams et al. 2009): products are bound by arithmetic, elementwise operations by memory. A product
 * first brings its right operand into the order in which its kernel reads it; that does not overlap with its arithmetic, and makes many
 * products of few rows slower than one of many.
 */

import type { Graph, Node, ValueId } from "../graph/graph.ts";
import { rulesOf } from "../graph/op-table.ts";
import { bytesOfType, type TensorType } from "../graph/shape.ts";

/** Floating-point operations (a multiply-add counts 2), and bytes. */
export interface Work {
  readonly flops: number;
  /** Read and written. */
  readonly bytes: number;
  /** Put in order before the arithmetic, out of memory. */
  readonly packed: number;
  /** Put in order again out of the cache: at every further step of a recurrent layer. */
  readonly repacked: number;
}

/** How fast a device of speed 1 works. */
export interface Rates {
  readonly flopsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Bytes of right operands of products that are put in order, from memory that is not in a cache. */
  readonly packedPerSecond: number;
  /** The same from a cache. */
  readonly repackedPerSecond: number;
  /** Right operands of so many bytes are still in a cache when a stage does the same for its next item. */
  readonly cacheBytes: number;
}

/**
 * One thread of a current desktop or server processor with ONNX Runtime: large products and large elementwise operations; and by how
 * much a step becomes slower when all of its products are done in four parts.
 */
export const typicalRates: Rates = {
  flopsPerSecond: 200e9,
  bytesPerSecond: 30e9,
  packedPerSecond: 12e9,
  repackedPerSecond: 40e9,
  cacheBytes: 8e6,
};

/** The work of `node`, an operation of `graph`. */
export function workOf(graph: Graph, node: Node): Work {
  const typesOf = (values: readonly ValueId[]) => values.map((value) => graph.types[value] as TensorType);
  const [inputs, results] = [typesOf(node.inputs), typesOf(node.outputs)];
  const { loops, flopsPerPoint } = rulesOf(node.op.kind).space(node.op, inputs, results);
  const points = loops.reduce((product, { size }) => product * size, 1);
  return {
    flops: flopsPerPoint === 0 ? 0 : points * flopsPerPoint,
    bytes: bytesMoved(node, inputs, results),
    packed: packedOperands(node).reduce((sum, i) => sum + bytesOfType(inputs[i] as TensorType), 0),
    repacked: repackedBytes(node, inputs),
  };
}

/** Seconds that `work` takes at least. */
export function secondsOf({ flops, bytes, packed, repacked }: Work, rates: Rates): number {
  const { flopsPerSecond, bytesPerSecond, packedPerSecond, repackedPerSecond } = rates;
  const working = Math.max(flops / flopsPerSecond, bytes / bytesPerSecond);
  return working + packed / packedPerSecond + repacked / repackedPerSecond;
}

/** Seconds less for operands of `packed` bytes that are still in a cache. */
export function warmSeconds(packed: number, rates: Rates): number {
  const { packedPerSecond, repackedPerSecond, cacheBytes } = rates;
  return packed > cacheBytes ? 0 : packed / packedPerSecond - packed / repackedPerSecond;
}

/** The operands of a product that are put in order: its right one; in recurrent layers their weights. */
function packedOperands({ op: { kind } }: Node): readonly number[] {
  switch (kind) {
    case "matmul":
      return [1];
    case "lstm":
    case "gru":
      return [1, 2];
    case "lstm-grad":
    case "gru-grad":
      return [0];
    default:
      return [];
  }
}

/** The recurrent weights of a layer once for every step but the first; the steps are the first dim of what it reads beside them. */
function repackedBytes({ op: { kind } }: Node, inputs: readonly TensorType[]): number {
  const isForward = kind === "lstm" || kind === "gru";
  if (!isForward && kind !== "lstm-grad" && kind !== "gru-grad") return 0;
  const [weights, sequence] = (isForward ? [inputs[2], inputs[0]] : [inputs[0], inputs[1]]) as TensorType[];
  const steps = sequence?.shape[0] ?? 1;
  return weights === undefined ? 0 : (steps - 1) * bytesOfType(weights);
}

function bytesMoved(node: Node, inputs: readonly TensorType[], results: readonly TensorType[]): number {
  const total = (types: readonly TensorType[]): number =>
    types.reduce((sum, type) => sum + bytesOfType(type), 0);
  switch (node.op.kind) {
    case "reshape":
    case "constant":
      return 0;
    // These read only the part of their operand that they return.
    case "gather":
    case "slice":
    case "take":
      return 2 * total(results);
    default:
      return total(inputs) + total(results);
  }
}
