/** Symbolic tensors: what model code and derivative rules compute with. No numbers are involved. */

import type { DType } from "./dtype.ts";
import type { ValueId } from "./graph.ts";
import type { Op } from "./op.ts";
import type { Shape } from "./shape.ts";

/** What an operation is applied through; implemented by `GraphBuilder`. */
export interface Scope {
  /** Adds one operation; throws a `UserError` naming operation, group and both shapes where they do not fit. */
  apply(op: Op, inputs: readonly Tensor[]): readonly Tensor[];
}

/** A value of a graph under construction. */
export interface Tensor {
  readonly scope: Scope;
  readonly id: ValueId;
  readonly dtype: DType;
  readonly shape: Shape;
}
