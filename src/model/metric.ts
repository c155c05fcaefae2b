/** Metrics: what people want to know about the validation data beside the loss. Nothing is trained on them, so they need no derivative. */

import { UserError } from "../base/errors.ts";
import { ignoredTarget } from "../data/dataset.ts";
import { and, cast, constant, equal, greaterEqual, reshape, sum, take } from "../graph/functions.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { LossFunction } from "./loss.ts";

/** From the model's output and the data inputs to one number for each target, 0 where it is ignored; reported is their mean. */
export type Metric = LossFunction;

/**
 * The share of targets whose class has the largest of the outputs [..., classes]; the data input "targets" holds the classes, i32 [...].
 * A tie counts as wrong: a model whose outputs are all the same knows nothing.
 */
export function accuracy(output: Tensor, inputs: { readonly [name: string]: Tensor }): Tensor {
  const { targets } = inputs;
  if (targets?.dtype !== "i32" || targets.shape.join() !== output.shape.slice(0, -1).join()) {
    const found = targets === undefined ? "none" : `${targets.dtype} [${targets.shape}]`;
    throw new UserError(
      `accuracy: the output [${output.shape}] needs a data input "targets" of classes, i32 [${output.shape.slice(0, -1)}]; there is ${found}`,
    );
  }
  const own = reshape(take(output, targets), [...targets.shape, 1]);
  const atLeastOwn = sum(cast(greaterEqual(output, own), output.dtype), [-1]);
  const isBest = equal(atLeastOwn, constant(output.scope, output.dtype, [], 1));
  const counts = greaterEqual(targets, constant(output.scope, targets.dtype, [], ignoredTarget + 1));
  return cast(and(isBest, counts), output.dtype);
}
