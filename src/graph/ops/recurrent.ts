/**
 * Recurrent layers over a chunk of time, as one operation each. Forward saves the local derivatives of every step, so that the
 * backward recurrence is short; it returns dz for all steps, from which the gradients of input and weights are single large products,
 * those of the weights in the W slice (cuDNN's arrangement: Appleyard et al. 2016, arXiv 1604.01946, section 3).
 */

import { invariant } from "../../base/errors.ts";
import { constant, matmul, reshape, sum } from "../functions.ts";
import { type IterationSpace, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { showType, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type NamedIndex, namedSpace } from "./named-space.ts";
import { evaluateGru, evaluateGruGrad, evaluateLstm, evaluateLstmGrad } from "./recurrent-reference.ts";

type RecurrentKind = "lstm" | "lstm-grad" | "gru" | "gru-grad";

interface Sizes {
  readonly steps: number;
  readonly batch: number;
  readonly units: number;
  /** Width of x; 0 for the derivatives, which do not see it. */
  readonly width: number;
}

/** The shape of each operand, or of each result. */
export type Shapes = readonly (readonly number[])[];

/** A list of `count` times the same. */
export const repeat = <T>(count: number, item: T): readonly T[] => Array.from({ length: count }, () => item);

const lstmOperands = ({ steps: t, batch: b, units: h, width: i }: Sizes): Shapes => [
  [t, b, i],
  [4 * h, i],
  [4 * h, h],
  [4 * h],
  ...repeat(2, [b, h]),
];
const lstmResults = ({ steps: t, batch: b, units: h }: Sizes): Shapes => [
  [t, b, h],
  ...repeat(2, [b, h]),
  ...repeat(7, [t, b, h]),
];
const lstmGradOperands = ({ steps: t, batch: b, units: h }: Sizes): Shapes => [
  [4 * h, h],
  ...repeat(7, [t, b, h]),
  ...repeat(2, [b, h]),
];
const lstmGradResults = ({ steps: t, batch: b, units: h }: Sizes): Shapes => [
  [t, b, 4 * h],
  ...repeat(2, [b, h]),
];
const gruOperands = ({ steps: t, batch: b, units: h, width: i }: Sizes): Shapes => [
  [t, b, i],
  [3 * h, i],
  [3 * h, h],
  ...repeat(2, [3 * h]),
  [b, h],
];
const gruResults = ({ steps: t, batch: b, units: h }: Sizes): Shapes => [
  [t, b, h],
  [b, h],
  ...repeat(6, [t, b, h]),
];
const gruGradOperands = ({ steps: t, batch: b, units: h }: Sizes): Shapes => [
  [3 * h, h],
  ...repeat(6, [t, b, h]),
  [b, h],
];
const gruGradResults = ({ steps: t, batch: b, units: h }: Sizes): Shapes => [
  ...repeat(2, [t, b, 3 * h]),
  [b, h],
];

/** Sizes of a layer from x [T, B, I] and the recurrent weights u [gates·H, H] at operand 2. */
function layerSizes(inputs: readonly TensorType[]): Sizes {
  const [x, , u] = inputs as [TensorType, TensorType, TensorType];
  const [steps, batch, width] = x.shape;
  if (x.shape.length !== 3 || steps === undefined || batch === undefined || width === undefined) {
    throw new ShapeError(`expects [time, batch, features], got ${showType(x)}`);
  }
  return { steps, batch, width, units: u.shape[1] ?? 0 };
}

/** Sizes of a derivative from operand 1, [T, B, H]. */
function gradSizes(inputs: readonly TensorType[]): Sizes {
  const factor = inputs[1] as TensorType;
  const [steps, batch, units] = factor.shape;
  if (factor.shape.length !== 3 || steps === undefined || batch === undefined || units === undefined) {
    throw new ShapeError(`expects [time, batch, units], got ${showType(factor)}`);
  }
  return { steps, batch, units, width: 0 };
}

/** Types of the results. Throws a `ShapeError` that lists every operand whose shape or dtype (that of operand 0) is another. */
export function inferShapes(inputs: readonly TensorType[], operands: Shapes, results: Shapes): TensorType[] {
  const { dtype } = inputs[0] as TensorType;
  const problems = operands.flatMap((shape, i) => {
    const type = inputs[i];
    const fits =
      type?.dtype === dtype &&
      type.shape.length === shape.length &&
      shape.every((size, dim) => size === type.shape[dim]);
    return fits ? [] : [`operand ${i} must be ${dtype}[${shape}], got ${type ? showType(type) : "nothing"}`];
  });
  if (problems.length > 0) throw new ShapeError(problems.join("; "));
  return results.map((shape) => ({ dtype, shape }));
}

/** How the dims of each kind of tensor are indexed by the loops of `space`. */
const index = {
  sequence: ["time", "batch", "unit"],
  gates: ["time", "batch", "gate unit"],
  state: ["batch", "unit"],
  input: ["time", "batch", ""],
  weight: ["gate unit", ""],
  bias: ["gate unit"],
} as const satisfies { readonly [tensor: string]: NamedIndex };

/**
 * Time is needed whole and in order; samples are parallel; the units of all gates are coupled through the recurrent product, whose
 * inner loop runs over the layer's input and its own units (`feature`).
 */
function space(
  { steps, batch, units, width }: Sizes,
  gates: number,
  operands: readonly NamedIndex[],
  results: readonly NamedIndex[],
): IterationSpace {
  const loops: Loop[] = [
    { name: "time", size: steps, kind: "whole" },
    { name: "batch", size: batch, kind: "parallel" },
    { name: "gate", size: gates, kind: "whole" },
    { name: "unit", size: units, kind: "whole" },
    { name: "feature", size: width + units, kind: "whole" },
  ];
  return namedSpace(loops, operands, results, 2);
}

/** The gradients of the results that a model may use; the others are saved for the derivative only. */
function usable(gradients: readonly (Tensor | undefined)[], count: number): readonly (Tensor | undefined)[] {
  invariant(
    gradients.slice(count).every((gradient) => gradient === undefined),
    "the values that a recurrent layer saves have no derivative",
  );
  return gradients.slice(0, count);
}

/** [T, B, n] → [T·B, n]. */
function rows(x: Tensor): Tensor {
  const [steps, batch, width] = x.shape as [number, number, number];
  return reshape(x, [steps * batch, width]);
}

function orZero(gradient: Tensor | undefined, like: Tensor): Tensor {
  return gradient ?? constant(like.scope, like.dtype, like.shape, 0);
}

/** yᵀ·x over all steps and samples: a weight's gradient as one product. */
function weightGradient(dz: Tensor, x: Tensor): Tensor {
  return matmul(rows(dz), rows(x), { transposeA: true });
}

interface Products {
  readonly x: Tensor;
  readonly w: Tensor;
  readonly hBefore: Tensor;
  /** Gradient of x·wᵀ + b. */
  readonly dz: Tensor;
  /** Gradient of h'·uᵀ. */
  readonly dRecurrent: Tensor;
}

/** Gradients of x, w, u and b: what lies outside the recurrence, as products over all steps. */
function throughProducts(
  { x, w, hBefore, dz, dRecurrent }: Products,
  wanted: readonly boolean[],
): (Tensor | undefined)[] {
  return [
    wanted[0] ? matmul(dz, w) : undefined,
    wanted[1] ? weightGradient(dz, x) : undefined,
    wanted[2] ? weightGradient(dRecurrent, hBefore) : undefined,
    wanted[3] ? sum(dz, [0, 1]) : undefined,
  ];
}

export const recurrent: { readonly [K in RecurrentKind]: OpRules<K> } = {
  lstm: {
    infer: (_op, inputs) => {
      const sizes = layerSizes(inputs);
      return inferShapes(inputs, lstmOperands(sizes), lstmResults(sizes));
    },
    space: (_op, inputs) =>
      space(
        layerSizes(inputs),
        4,
        [index.input, index.weight, index.weight, index.bias, ...repeat(2, index.state)],
        [index.sequence, ...repeat(2, index.state), ...repeat(7, index.sequence)],
      ),
    derive: (_op, { inputs, outputs, gradients, wanted }) => {
      const [x, w, u] = inputs as [Tensor, Tensor, Tensor];
      const [h, hLast, cLast, hBefore, ...factors] = outputs as [Tensor, Tensor, Tensor, Tensor, ...Tensor[]];
      const arriving = usable(gradients, 3);
      const incoming = [h, hLast, cLast].map((like, i) => orZero(arriving[i], like));
      const [dz, dh0, dc0] = x.scope.apply({ kind: "lstm-grad" }, [u, ...factors, ...incoming]) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      return [...throughProducts({ x, w, hBefore, dz, dRecurrent: dz }, wanted), dh0, dc0];
    },
    evaluate: (_op, inputs) => evaluateLstm(inputs),
  },
  "lstm-grad": {
    infer: (_op, inputs) => {
      const sizes = gradSizes(inputs);
      return inferShapes(inputs, lstmGradOperands(sizes), lstmGradResults(sizes));
    },
    space: (_op, inputs) =>
      space(
        gradSizes(inputs),
        4,
        [index.weight, ...repeat(7, index.sequence), ...repeat(2, index.state)],
        [index.gates, ...repeat(2, index.state)],
      ),
    derive: null,
    evaluate: (_op, inputs) => evaluateLstmGrad(inputs),
  },
  gru: {
    infer: (_op, inputs) => {
      const sizes = layerSizes(inputs);
      return inferShapes(inputs, gruOperands(sizes), gruResults(sizes));
    },
    space: (_op, inputs) =>
      space(
        layerSizes(inputs),
        3,
        [index.input, index.weight, index.weight, ...repeat(2, index.bias), index.state],
        [index.sequence, index.state, ...repeat(6, index.sequence)],
      ),
    derive: (_op, { inputs, outputs, gradients, wanted }) => {
      const [x, w, u] = inputs as [Tensor, Tensor, Tensor];
      const [h, hLast, hBefore, ...factors] = outputs as [Tensor, Tensor, Tensor, ...Tensor[]];
      const arriving = usable(gradients, 2);
      const incoming = [h, hLast].map((like, i) => orZero(arriving[i], like));
      const [dz, dq, dh0] = x.scope.apply({ kind: "gru-grad" }, [u, ...factors, ...incoming]) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      return [
        ...throughProducts({ x, w, hBefore, dz, dRecurrent: dq }, wanted),
        wanted[4] ? sum(dq, [0, 1]) : undefined,
        dh0,
      ];
    },
    evaluate: (_op, inputs) => evaluateGru(inputs),
  },
  "gru-grad": {
    infer: (_op, inputs) => {
      const sizes = gradSizes(inputs);
      return inferShapes(inputs, gruGradOperands(sizes), gruGradResults(sizes));
    },
    space: (_op, inputs) =>
      space(
        gradSizes(inputs),
        3,
        [index.weight, ...repeat(6, index.sequence), index.state],
        [...repeat(2, index.gates), index.state],
      ),
    derive: null,
    evaluate: (_op, inputs) => evaluateGruGrad(inputs),
  },
};
