/**
 * Recurrent layers over a chunk of time, as one operation each. The input projection x·W for all steps is an ordinary matmul
 * outside; inside is only what the recurrence forces into sequence. The derivative returns dz for all steps, from which the
 * weights' gradients are single large products (the W slice), as in cuDNN (Appleyard et al. 2016, arXiv 1604.01946, section 3).
 */

import { concat, constant, matmul, reshape, sliceDim, sum } from "../functions.ts";
import { type DimIndex, type IterationSpace, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { showType, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { evaluateGru, evaluateGruGrad, evaluateLstm, evaluateLstmGrad } from "./recurrent-reference.ts";

type RecurrentKind = "lstm" | "lstm-grad" | "gru" | "gru-grad";

interface Sizes {
  readonly steps: number;
  readonly batch: number;
  readonly units: number;
}

/** Reads T, B, H from a [T, B, gates·H] operand and checks the others against the shapes they must have. */
function check(
  inputs: readonly TensorType[],
  at: number,
  gates: number,
  expected: (sizes: Sizes) => readonly (readonly number[])[],
): Sizes {
  const z = inputs[at] as TensorType;
  const [steps, batch, width] = z.shape;
  if (
    z.shape.length !== 3 ||
    steps === undefined ||
    batch === undefined ||
    width === undefined ||
    width % gates !== 0
  ) {
    throw new ShapeError(`expects [time, batch, ${gates}·units], got ${showType(z)}`);
  }
  const sizes = { steps, batch, units: width / gates };
  const problems = expected(sizes).flatMap((shape, i) => {
    const type = inputs[i];
    const fits =
      type !== undefined &&
      type.dtype === z.dtype &&
      type.shape.length === shape.length &&
      shape.every((size, dim) => size === type.shape[dim]);
    return fits
      ? []
      : [`operand ${i} must be ${z.dtype}[${shape}], got ${type ? showType(type) : "nothing"}`];
  });
  if (problems.length > 0) throw new ShapeError(problems.join("; "));
  return sizes;
}

const lstmShapes = ({ steps: t, batch: b, units: h }: Sizes) => [
  [t, b, 4 * h],
  [h, 4 * h],
  [b, h],
  [b, h],
];
const lstmGradShapes = ({ steps: t, batch: b, units: h }: Sizes) => [
  [h, 4 * h],
  [b, h],
  [t, b, h],
  [t, b, 4 * h],
  [t, b, h],
  [b, h],
  [b, h],
];
const gruShapes = ({ steps: t, batch: b, units: h }: Sizes) => [[t, b, 3 * h], [h, 3 * h], [3 * h], [b, h]];
const gruGradShapes = ({ steps: t, batch: b, units: h }: Sizes) => [
  [h, 3 * h],
  [b, h],
  [t, b, h],
  [t, b, 3 * h],
  [t, b, h],
  [t, b, h],
  [b, h],
];

/**
 * Time is needed whole and in order; samples are parallel; the units of all gates are coupled through the recurrent product,
 * whose inner loop is `inner`.
 */
function space(
  inputs: readonly TensorType[],
  results: readonly TensorType[],
  sizes: Sizes,
  gates: number,
): IterationSpace {
  const loops: Loop[] = [
    { name: "time", size: sizes.steps, kind: "whole" },
    { name: "batch", size: sizes.batch, kind: "parallel" },
    { name: "gate", size: gates, kind: "whole" },
    { name: "unit", size: sizes.units, kind: "whole" },
    { name: "inner", size: sizes.units, kind: "whole" },
  ];
  const index = (type: TensorType): readonly DimIndex[] => {
    const width: DimIndex = type.shape.at(-1) === sizes.units ? [3] : [2, 3];
    if (type.shape.length === 3) return [[0], [1], width];
    if (type.shape.length === 1) return [width];
    return type.shape[0] === sizes.units && type.shape[1] === gates * sizes.units
      ? [[4], width]
      : [[1], width];
  };
  return { loops, operands: inputs.map(index), results: results.map(index), flopsPerPoint: 2 };
}

function types(like: TensorType, shapes: readonly (readonly number[])[]): TensorType[] {
  return shapes.map((shape) => ({ dtype: like.dtype, shape }));
}

/** h of the step before, for every step: [h0, h1, ..., h(T-1)], flattened to rows. */
function previousRows(h0: Tensor, h: Tensor): Tensor {
  const [steps, batch, units] = h.shape as [number, number, number];
  const previous = concat(
    [reshape(h0, [1, batch, units]), ...(steps > 1 ? [sliceDim(h, 0, 0, steps - 1)] : [])],
    0,
  );
  return reshape(previous, [steps * batch, units]);
}

function rows(x: Tensor): Tensor {
  const [steps, batch, width] = x.shape as [number, number, number];
  return reshape(x, [steps * batch, width]);
}

function orZero(gradient: Tensor | undefined, like: Tensor): Tensor {
  return gradient ?? constant(like.scope, like.dtype, like.shape, 0);
}

export const recurrent: { readonly [K in RecurrentKind]: OpRules<K> } = {
  lstm: {
    infer: (_op, inputs) => {
      const { steps: t, batch: b, units: h } = check(inputs, 0, 4, lstmShapes);
      return types(inputs[0] as TensorType, [
        [t, b, h],
        [b, h],
        [b, h],
        [t, b, h],
        [t, b, 4 * h],
      ]);
    },
    space: (_op, inputs, results) => space(inputs, results, check(inputs, 0, 4, lstmShapes), 4),
    derive: (_op, { inputs, outputs, gradients, wanted }) => {
      const [, u, h0, c0] = inputs as [Tensor, Tensor, Tensor, Tensor];
      const [h, hLast, cLast, c, gates] = outputs as [Tensor, Tensor, Tensor, Tensor, Tensor];
      const [dh, dhLast, dcLast] = gradients;
      const incoming = [orZero(dh, h), orZero(dhLast, hLast), orZero(dcLast, cLast)];
      const [dz, dh0, dc0] = u.scope.apply({ kind: "lstm-grad" }, [u, c0, c, gates, ...incoming]) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      return [
        dz,
        wanted[1] ? matmul(previousRows(h0, h), rows(dz), { transposeA: true }) : undefined,
        dh0,
        dc0,
      ];
    },
    evaluate: (_op, inputs) => evaluateLstm(inputs),
  },
  "lstm-grad": {
    infer: (_op, inputs) => {
      const { steps: t, batch: b, units: h } = check(inputs, 3, 4, lstmGradShapes);
      return types(inputs[0] as TensorType, [
        [t, b, 4 * h],
        [b, h],
        [b, h],
      ]);
    },
    space: (_op, inputs, results) => space(inputs, results, check(inputs, 3, 4, lstmGradShapes), 4),
    derive: null,
    evaluate: (_op, inputs) => evaluateLstmGrad(inputs),
  },
  gru: {
    infer: (_op, inputs) => {
      const { steps: t, batch: b, units: h } = check(inputs, 0, 3, gruShapes);
      return types(inputs[0] as TensorType, [
        [t, b, h],
        [b, h],
        [t, b, 3 * h],
        [t, b, h],
      ]);
    },
    space: (_op, inputs, results) => space(inputs, results, check(inputs, 0, 3, gruShapes), 3),
    derive: (_op, { inputs, outputs, gradients, wanted }) => {
      const [, w, , h0] = inputs as [Tensor, Tensor, Tensor, Tensor];
      const [h, hLast, gates, q] = outputs as [Tensor, Tensor, Tensor, Tensor];
      const incoming = [orZero(gradients[0], h), orZero(gradients[1], hLast)];
      const [dz, dp, dh0] = w.scope.apply({ kind: "gru-grad" }, [w, h0, h, gates, q, ...incoming]) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      return [
        dz,
        wanted[1] ? matmul(previousRows(h0, h), rows(dp), { transposeA: true }) : undefined,
        wanted[2] ? sum(dp, [0, 1]) : undefined,
        dh0,
      ];
    },
    evaluate: (_op, inputs) => evaluateGru(inputs),
  },
  "gru-grad": {
    infer: (_op, inputs) => {
      const { steps: t, batch: b, units: h } = check(inputs, 3, 3, gruGradShapes);
      return types(inputs[0] as TensorType, [
        [t, b, 3 * h],
        [t, b, 3 * h],
        [b, h],
      ]);
    },
    space: (_op, inputs, results) => space(inputs, results, check(inputs, 3, 3, gruGradShapes), 3),
    derive: null,
    evaluate: (_op, inputs) => evaluateGruGrad(inputs),
  },
};
