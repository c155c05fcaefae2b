/** An operation on whole tensors as the operation on one rank's parts: attributes that name sizes name those of the parts. */

import type { Op } from "../graph/op.ts";
import type { Shape } from "../graph/shape.ts";

/** Shapes of one rank's operands and results; `whole` are those of the whole first operand and result. */
export interface LocalShapes {
  readonly operands: readonly Shape[];
  readonly results: readonly Shape[];
  readonly whole: { readonly operand: Shape; readonly result: Shape };
}

export function localise(op: Op, { operands, results, whole }: LocalShapes): Op {
  const [first = [], second = []] = operands;
  const [result = []] = results;
  const [, , height = 0, width = 0] = result;
  switch (op.kind) {
    case "broadcast":
    case "reshape":
      return { ...op, shape: result };
    case "slice": {
      const isAll = (dim: number) => whole.operand[dim] === whole.result[dim];
      return { ...op, stop: op.stop.map((stop, dim) => (isAll(dim) ? (first[dim] as number) : stop)) };
    }
    case "split":
      return { ...op, sizes: results.map((shape) => shape[op.dim] as number) };
    case "take-grad":
      return { ...op, size: result.at(-1) as number };
    case "conv2d":
      return { ...op, groups: groupsOf(first, second) };
    case "conv2d-input-grad":
      return { ...op, groups: groupsOf(result, second), height, width };
    case "conv2d-weight-grad":
      return { ...op, groups: groupsOf(first, result) };
    case "avg-pool-grad":
      return { ...op, height, width };
    default:
      return op;
  }
}

/** Groups of a convolution between an image [N, C, ...] and a weight [O, C/groups, ...]. */
function groupsOf(image: Shape, weight: Shape): number {
  return Math.max(1, (image[1] as number) / (weight[1] as number));
}
