/** Layers are plain functions on symbolic tensors that remember their name and the group they are placed in. */

import { UserError } from "../base/errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type ModelBuilder, modelOf } from "./model-builder.ts";

/** A function from one tensor to another; using the same layer twice shares its parameters. */
export interface Layer {
  (x: Tensor): Tensor;
  readonly layer: string;
}

export interface LayerOptions {
  /** Prefix of the names of its parameters; default: the group where no other layer has its name, or the kind of layer and a number. */
  readonly name?: string;
  /** The group it is placed with; default: the group it is used in, or at the top of the model a group of its own. */
  readonly group?: string;
}

/** Any function from the data inputs to the output that the loss is given. */
export type ModelFunction = (inputs: { readonly [name: string]: Tensor }) => Tensor;

/** A model: one layer (as made by `sequential`), or a function. A layer's own signature is left out, so that functions get their types. */
export type Model = Pick<Layer, "layer"> | ModelFunction;

/** The group of operations that no layer with a group contains. */
const outermostGroup = "model";

/** Makes a layer: `build` is called with the input, the builder and the layer's name, inside the layer's group. */
export function defineLayer(
  kind: string,
  options: LayerOptions,
  build: (x: Tensor, builder: ModelBuilder, name: string) => Tensor,
): Layer {
  const layer = (x: Tensor): Tensor => {
    const builder = modelOf(x);
    const name = builder.nameOf(layer, kind, options);
    const group = options.group ?? (builder.group === outermostGroup ? name : builder.group);
    return builder.within({ group }, () => builder.inLayer(name, () => build(x, builder, name)));
  };
  return Object.assign(layer, { layer: kind });
}

export function isLayer(model: Model): model is Layer {
  return typeof model === "function" && "layer" in model;
}

/** Throws one error that lists every option that is not a positive whole number. */
export function checkCounts(layer: string, counts: { readonly [option: string]: number }): void {
  const problems = Object.entries(counts).flatMap(([option, value]) =>
    Number.isInteger(value) && value > 0 ? [] : [`${option} must be a positive whole number, got ${value}`],
  );
  if (problems.length > 0) throw new UserError(`cannot make a layer "${layer}"`, problems);
}

/** Throws when `share` is not in [0, 1). */
export function checkShare(layer: string, option: string, share: number): void {
  if (!(share >= 0 && share < 1))
    throw new UserError(
      `cannot make a layer "${layer}": ${option} must be at least 0 and below 1, got ${share}`,
    );
}
