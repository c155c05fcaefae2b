/**
 * One time step of a recurrent layer for a share of its units, so that the units of a layer can lie on several devices. Every device
 * needs the hidden state of all units and makes that of its own; between two steps the shares are gathered.
 *
 *     h' (all units) ──┬─► units 0..3 on device 0 ──┬─► h (all units)
 *                      └─► units 4..6 on device 1 ──┘
 */

import { type IterationSpace, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { showType, type TensorType } from "../shape.ts";
import { type NamedIndex, namedSpace } from "./named-space.ts";
import { inferShapes, repeat, type Shapes } from "./recurrent.ts";
import {
  evaluateGruStep,
  evaluateGruStepGrad,
  evaluateLstmStep,
  evaluateLstmStepGrad,
} from "./recurrent-reference.ts";

type StepKind = "lstm-step" | "lstm-step-grad" | "gru-step" | "gru-step-grad";

interface Sizes {
  readonly batch: number;
  /** Units of the share. */
  readonly units: number;
  /** Units of the layer; 0 for the derivatives, which do not see it. */
  readonly features: number;
}

/** Sizes from a tensor [B, h] and, in the forward operations, from the recurrent weights [gates·h, H] at operand 1. */
function sizesOf(inputs: readonly TensorType[], state: number, weights?: number): Sizes {
  const own = inputs[state] as TensorType;
  const [batch, units] = own.shape;
  if (own.shape.length !== 2 || batch === undefined || units === undefined)
    throw new ShapeError(`operand ${state} must be [batch, units], got ${showType(own)}`);
  const features = weights === undefined ? 0 : (inputs[weights]?.shape[1] ?? 0);
  return { batch, units, features };
}

const lstmSizes = (inputs: readonly TensorType[]): Sizes => sizesOf(inputs, 3, 1);
const gruSizes = (inputs: readonly TensorType[]): Sizes => sizesOf(inputs, 4, 1);
const gradSizes = (inputs: readonly TensorType[]): Sizes => sizesOf(inputs, 0);

const lstmOperands = ({ batch: b, units: h, features: all }: Sizes): Shapes => [
  [b, 4 * h],
  [4 * h, all],
  [b, all],
  [b, h],
];
const gruOperands = ({ batch: b, units: h, features: all }: Sizes): Shapes => [
  [b, 3 * h],
  [3 * h, all],
  [3 * h],
  [b, all],
  [b, h],
];

/** How the dims of each kind of tensor are indexed by the loops of `space`. */
const index = {
  state: ["batch", "unit"],
  gates: ["batch", "gate unit"],
  weight: ["gate unit", "feature"],
  bias: ["gate unit"],
  before: ["batch", "feature"],
} as const satisfies { readonly [tensor: string]: NamedIndex };

/** Samples and units are parallel; each unit needs all of its gates, and, through the recurrent product, all units of the step before. */
function space(
  { batch, units, features }: Sizes,
  gates: number,
  operands: readonly NamedIndex[],
  results: readonly NamedIndex[],
): IterationSpace {
  const loops: Loop[] = [
    { name: "batch", size: batch, kind: "parallel" },
    { name: "gate", size: gates, kind: "whole" },
    { name: "unit", size: units, kind: "parallel" },
  ];
  if (features > 0) loops.push({ name: "feature", size: features, kind: "whole" });
  return namedSpace(loops, operands, results, 2);
}

export const recurrentStep: { readonly [K in StepKind]: OpRules<K> } = {
  "lstm-step": {
    infer: (_op, inputs) => {
      const sizes = lstmSizes(inputs);
      return inferShapes(inputs, lstmOperands(sizes), repeat(8, [sizes.batch, sizes.units]));
    },
    space: (_op, inputs) =>
      space(
        lstmSizes(inputs),
        4,
        [index.gates, index.weight, index.before, index.state],
        repeat(8, index.state),
      ),
    derive: null,
    evaluate: (_op, inputs) => evaluateLstmStep(inputs),
  },
  "lstm-step-grad": {
    infer: (_op, inputs) => {
      const { batch, units } = gradSizes(inputs);
      return inferShapes(inputs, repeat(8, [batch, units]), [
        [batch, 4 * units],
        [batch, units],
      ]);
    },
    space: (_op, inputs) => space(gradSizes(inputs), 4, repeat(8, index.state), [index.gates, index.state]),
    derive: null,
    evaluate: (_op, inputs) => evaluateLstmStepGrad(inputs),
  },
  "gru-step": {
    infer: (_op, inputs) => {
      const sizes = gruSizes(inputs);
      return inferShapes(inputs, gruOperands(sizes), repeat(6, [sizes.batch, sizes.units]));
    },
    space: (_op, inputs) =>
      space(
        gruSizes(inputs),
        3,
        [index.gates, index.weight, index.bias, index.before, index.state],
        repeat(6, index.state),
      ),
    derive: null,
    evaluate: (_op, inputs) => evaluateGruStep(inputs),
  },
  "gru-step-grad": {
    infer: (_op, inputs) => {
      const { batch, units } = gradSizes(inputs);
      return inferShapes(inputs, repeat(6, [batch, units]), [
        ...repeat(2, [batch, 3 * units]),
        [batch, units],
      ]);
    },
    space: (_op, inputs) =>
      space(gradSizes(inputs), 3, repeat(6, index.state), [...repeat(2, index.gates), index.state]),
    derive: null,
    evaluate: (_op, inputs) => evaluateGruStepGrad(inputs),
  },
};
