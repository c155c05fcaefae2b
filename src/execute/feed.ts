/** What a step needs from outside, and how it gets into a device's buffers. */

import { invariant, UserError } from "../base/errors.ts";
import type { TensorData } from "../data/dataset.ts";
import type { TypedArray } from "../graph/dtype.ts";
import { showType, stridesOf } from "../graph/shape.ts";
import type { Program } from "../program/program.ts";
import type { TensorBuffer } from "./engine.ts";

/** What one step needs from outside. */
export interface StepInput {
  /** The whole mini-batch, by input name. */
  readonly data: { readonly [name: string]: TensorData };
  readonly scalars: { readonly [name: string]: number };
}

export interface NamedBuffer {
  readonly name: string;
  readonly data: TypedArray;
}

/** A program's buffers, those of its scalars by name. */
export interface FeedTarget {
  readonly program: Program;
  readonly buffers: readonly TensorBuffer[];
  readonly scalars: readonly NamedBuffer[];
}

/** Copies the step's data and scalars into their buffers. */
export function feed({ program, buffers, scalars: wanted }: FeedTarget, { data, scalars }: StepInput): void {
  for (const { buffer, input, start } of program.feeds) {
    const whole = data[input];
    if (whole === undefined)
      throw new UserError(`the batch has no input "${input}"; it has ${Object.keys(data).join(", ")}`);
    copyBlock(whole, start, buffers[buffer] as TensorBuffer);
  }
  for (const { name, data: scalar } of wanted) {
    const value = scalars[name];
    invariant(value !== undefined, `scalar "${name}" was not given`);
    fill(scalar, value);
  }
}

/** Copies the block of `whole` that begins at `start` and has the shape of `part`, run by run of contiguous elements. */
function copyBlock(whole: TensorData, start: readonly number[], part: TensorBuffer): void {
  const { shape } = part.type;
  if (shape.length !== whole.shape.length || whole.dtype !== part.type.dtype) {
    throw new UserError(`a batch holds ${showType(whole)}, the program expects ${showType(part.type)}`);
  }
  const strides = stridesOf(whole.shape);
  const partStrides = stridesOf(shape);
  const contiguous = shape.findLastIndex((size, dim) => size !== whole.shape[dim]);
  const run =
    contiguous < 0 ? part.data.length : (partStrides[contiguous] as number) * (shape[contiguous] as number);
  for (let at = 0; at < part.data.length; at += run) {
    let from = 0;
    for (let dim = 0; dim < shape.length; dim++) {
      const index = Math.floor(at / (partStrides[dim] as number)) % (shape[dim] as number);
      from += ((start[dim] ?? 0) + index) * (strides[dim] as number);
    }
    (part.data as Float32Array).set((whole.data as Float32Array).subarray(from, from + run), at);
  }
}

/** Sets every element. */
export function fill(data: TypedArray, value: number): void {
  if (data instanceof BigInt64Array) data.fill(BigInt(value));
  else data.fill(value);
}
