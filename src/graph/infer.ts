/** Types of an operation's results, with the checks that hold for every kind: how many operands it has, and that sizes are sizes. */

import type { Op, OpKind } from "./op.ts";
import { ShapeError } from "./op-rules.ts";
import { rulesOf } from "./op-table.ts";
import { showType, type TensorType } from "./shape.ts";

/** Number of operands of each kind; a missing entry does not compile. */
const operandCounts: { readonly [K in OpKind]: number | "at least 1" } = {
  neg: 1,
  abs: 1,
  sign: 1,
  exp: 1,
  log: 1,
  sqrt: 1,
  reciprocal: 1,
  square: 1,
  sin: 1,
  cos: 1,
  erf: 1,
  sigmoid: 1,
  tanh: 1,
  relu: 1,
  gelu: 1,
  "gelu-tanh": 1,
  silu: 1,
  softplus: 1,
  not: 1,
  add: 2,
  sub: 2,
  mul: 2,
  div: 2,
  pow: 2,
  max: 2,
  min: 2,
  and: 2,
  or: 2,
  equal: 2,
  less: 2,
  "less-equal": 2,
  greater: 2,
  "greater-equal": 2,
  sum: 1,
  mean: 1,
  "reduce-max": 1,
  where: 3,
  cast: 1,
  constant: 0,
  iota: 0,
  broadcast: 1,
  reshape: 1,
  transpose: 1,
  slice: 1,
  concat: "at least 1",
  split: 1,
  pad: 1,
  matmul: 2,
  gather: 2,
  "scatter-add": 2,
  take: 2,
  "take-grad": 2,
  softmax: 1,
  "log-softmax": 1,
  "softmax-grad": 2,
  "cross-entropy": 2,
  "cross-entropy-grad": 4,
  "layer-norm": 3,
  "layer-norm-grad": 5,
  "batch-norm": 3,
  "batch-norm-grad": 5,
  conv2d: 2,
  "conv2d-input-grad": 2,
  "conv2d-weight-grad": 2,
  "max-pool": 1,
  "max-pool-grad": 3,
  "avg-pool": 1,
  "avg-pool-grad": 1,
  "dropout-mask": 2,
  "all-reduce": "at least 1",
  "all-gather": "at least 1",
  "reduce-scatter": "at least 1",
  lstm: 6,
  "lstm-grad": 10,
  gru: 6,
  "gru-grad": 8,
  "lstm-step": 4,
  "lstm-step-grad": 8,
  "gru-step": 5,
  "gru-step-grad": 6,
};

/** Types of the results. Throws a `ShapeError` where the operands are too few, too many, or do not fit together. */
export function inferTypes(op: Op, inputs: readonly TensorType[]): readonly TensorType[] {
  const expected = operandCounts[op.kind];
  if (expected === "at least 1" ? inputs.length === 0 : inputs.length !== expected) {
    const got = inputs.map(showType).join(", ") || "none";
    throw new ShapeError(`expects ${expected} operand${expected === 1 ? "" : "s"}, got ${got}`);
  }
  const types = rulesOf(op.kind).infer(op, inputs);
  const bad = types.find(({ shape }) => !shape.every(isSize));
  if (bad !== undefined)
    throw new ShapeError(`the result ${showType(bad)} has a size that is not a whole number`);
  return types;
}

/** Whether a dim can have this size. */
export function isSize(size: number): boolean {
  return Number.isSafeInteger(size) && size >= 0;
}
