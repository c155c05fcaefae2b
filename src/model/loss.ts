/**
 * Losses give one number for each target. Training minimises their sum over the mini-batch divided by the number of targets that
 * count; that division happens once, inside the graph, by a number known before the step: it is the same under every layout.
 */

import { UserError } from "../base/errors.ts";
import { ignoredTarget } from "../data/dataset.ts";
import { crossEntropy, mean, square, sub } from "../graph/functions.ts";
import type { Tensor } from "../graph/tensor.ts";

/** From the model's output and the data inputs to one loss for each target. */
export type LossFunction = (output: Tensor, inputs: { readonly [name: string]: Tensor }) => Tensor;

/** A loss by name, with the input called "targets", or a function of your own. */
export type Loss = "cross-entropy" | "mean-squared-error" | LossFunction;

export function lossFunction(loss: Loss): LossFunction {
  if (typeof loss === "function") return loss;
  switch (loss) {
    case "cross-entropy":
      return (logits, inputs) => crossEntropy(logits, targetsOf(inputs), ignoredTarget);
    case "mean-squared-error":
      return squaredError;
    default:
      throw new UserError(
        `unknown loss "${loss satisfies never}"; known are "cross-entropy" and "mean-squared-error"`,
      );
  }
}

/** Mean over the features of (output - target)², one for each sample (and time step). */
function squaredError(output: Tensor, inputs: { readonly [name: string]: Tensor }): Tensor {
  const targets = targetsOf(inputs);
  if (output.shape.join() !== targets.shape.join()) {
    throw new UserError(
      `mean-squared-error: the output [${output.shape}] and the targets [${targets.shape}] must have the same shape`,
    );
  }
  return output.shape.length < 2
    ? square(sub(output, targets))
    : mean(square(sub(output, targets)), [output.shape.length - 1]);
}

function targetsOf(inputs: { readonly [name: string]: Tensor }): Tensor {
  const { targets } = inputs;
  if (targets === undefined) {
    throw new UserError(
      `the loss needs a data input "targets"; the data set has ${Object.keys(inputs).join(", ")}`,
    );
  }
  return targets;
}
