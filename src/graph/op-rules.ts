/** What the operation table says about one kind of operation. */

import type { OpKind, OpOf } from "./op.ts";
import type { Shape, TensorType } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/**
 * One loop of an operation's iteration space.
 *  - `parallel`: points are independent; splitting it splits the results.
 *  - `reduce`: points are summed; splitting it leaves partial sums.
 *  - `window`: results step through an operand by a sliding window; splitting it needs a halo.
 *  - `whole`: every result needs all of it (normalisation, time steps of a recurrence); it cannot be split locally.
 */
export interface Loop {
  readonly name: string;
  readonly size: number;
  readonly kind: "parallel" | "reduce" | "window" | "whole";
}

/** The loops (indices into `loops`, outermost first) that index one dim of a tensor; empty when none does. */
export type DimIndex = readonly number[];

/**
 * The iteration space of an operation: named loops, and which dim of which operand and result each one indexes. From it
 * follow work, depth, the axes that can shard the operation, and the collective that this needs.
 */
export interface IterationSpace {
  readonly loops: readonly Loop[];
  readonly operands: readonly (readonly DimIndex[])[];
  readonly results: readonly (readonly DimIndex[])[];
  /** Floating-point operations at each point of the space; a multiply-add counts 2. */
  readonly flopsPerPoint: number;
}

/** A tensor of the reference engine: any dtype, held as float64 in C order. */
export interface Dense {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** What a derivative rule may use: operands, results, and the gradient of each result (absent: it is zero). */
export interface Derivation {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly gradients: readonly (Tensor | undefined)[];
  /** For each operand, whether its gradient is wanted; a rule may skip the others. */
  readonly wanted: readonly boolean[];
}

export interface OpRules<in K extends OpKind> {
  /** Types of the results. Throws `ShapeError` with the sentence that says what does not fit. */
  infer(op: OpOf<K>, inputs: readonly TensorType[]): readonly TensorType[];
  space(op: OpOf<K>, inputs: readonly TensorType[], results: readonly TensorType[]): IterationSpace;
  /** Gradient of each operand; `undefined` where it is zero or not wanted. `null` rule: not differentiable. */
  readonly derive: ((op: OpOf<K>, at: Derivation) => readonly (Tensor | undefined)[]) | null;
  /** Reference evaluation in float64, as plain as possible. */
  evaluate(op: OpOf<K>, inputs: readonly Dense[], results: readonly TensorType[]): readonly Dense[];
}

/** Operands of an operation do not fit together; the builder adds where it happened. */
export class ShapeError extends Error {
  override readonly name: string = "ShapeError";
}
