/**
 * Normalisations: softmax and log-softmax and layer norm over the last dim, batch norm over all dims but the channels. What an
 * operation normalises over is a `whole` loop: every result needs all of it, twice.
 *
 * With x̂ = (x - mean)·r and r = 1/√(variance + ε), the gradient of a normalised tensor is (Ioffe and Szegedy 2015)
 *
 *     dx = r·(g - mean(g) - x̂·mean(g·x̂)),   g = dy·scale
 */

import { invariant } from "../../base/errors.ts";
import { isFloat } from "../dtype.ts";
import { exp, mul, only, sub, sum } from "../functions.ts";
import { type Dense, type IterationSpace, type OpRules, ShapeError } from "../op-rules.ts";
import { sameType, showType, sizeOf, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { broadcastIndex } from "./elementwise.ts";
import {
  channelsOf,
  logSoftmaxOf,
  mapRows,
  normalize,
  normalizeGradient,
  rowsOf,
  softmaxGradientOf,
  softmaxOf,
} from "./normalization-reference.ts";

type NormalizationKind =
  | "softmax"
  | "softmax-grad"
  | "log-softmax"
  | "layer-norm"
  | "layer-norm-grad"
  | "batch-norm"
  | "batch-norm-grad";

export const normalization: { readonly [K in NormalizationKind]: OpRules<K> } = {
  softmax: {
    infer: (_op, [x]) => [expectRows(x as TensorType)],
    space: (_op, inputs, results) => rowSpace(inputs, results, 8),
    derive: (_op, { outputs: [y], gradients: [dy] }) => [y && dy && softmaxGradient(y, dy)],
    evaluate: (_op, inputs) => [mapRows(inputs, softmaxOf)],
  },

  /** dx = y·(dy - s) with s = sum(dy·y), for every row. */
  "softmax-grad": {
    infer: (_op, inputs) => {
      const [y, dy] = inputs as [TensorType, TensorType];
      expectSame(expectRows(y), dy, "gradient");
      return [y];
    },
    space: (_op, inputs, results) => rowSpace(inputs, results, 4),
    derive: (_op, { inputs: [y, dy], gradients: [dx], wanted }) => {
      if (!(y && dy && dx)) return [undefined, undefined];
      const lastDim = [y.shape.length - 1];
      const dotted = (a: Tensor) => sum(mul(a, y), lastDim, true);
      return [
        wanted[0] ? sub(mul(dx, sub(dy, dotted(dy))), mul(dy, dotted(dx))) : undefined,
        wanted[1] ? softmaxGradient(y, dx) : undefined,
      ];
    },
    evaluate: (_op, inputs) => [mapRows(inputs, softmaxGradientOf)],
  },

  "log-softmax": {
    infer: (_op, [x]) => [expectRows(x as TensorType)],
    space: (_op, inputs, results) => rowSpace(inputs, results, 8),
    derive: (_op, { outputs: [y], gradients: [dy] }) => {
      if (!(y && dy)) return [undefined];
      return [sub(dy, mul(exp(y), sum(dy, [y.shape.length - 1], true)))];
    },
    evaluate: (_op, inputs) => [mapRows(inputs, logSoftmaxOf)],
  },

  "layer-norm": {
    infer: (op, inputs) => {
      const [x, scale, shift] = inputs as [TensorType, TensorType, TensorType];
      const features = expectRows(x).shape.at(-1) as number;
      if (features === 0) throw new ShapeError(`cannot normalise rows of no elements, got ${showType(x)}`);
      expectVector(scale, features, "scale", x);
      expectVector(shift, features, "shift", x);
      expectEpsilon(op.epsilon);
      const statistic = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), 1] };
      return [x, statistic, statistic];
    },
    space: (_op, inputs, results) => rowSpace(inputs, results, 7),
    derive: (_op, { inputs, outputs, gradients, wanted }) => {
      const [x, scale] = inputs as [Tensor, Tensor, Tensor];
      const [, mean, deviation] = outputs as [Tensor, Tensor, Tensor];
      const [dy, ...statistics] = gradients;
      invariant(
        statistics.every((gradient) => gradient === undefined),
        "layer-norm: its statistics have no derivative",
      );
      if (!dy) return [undefined, undefined, undefined];
      const leading = x.shape.slice(0, -1).map((_, dim) => dim);
      const grad = { kind: "layer-norm-grad" } as const;
      return [
        wanted[0] ? only(x.scope.apply(grad, [x, scale, mean, deviation, dy])) : undefined,
        wanted[1] ? sum(mul(dy, mul(sub(x, mean), deviation)), leading) : undefined,
        wanted[2] ? sum(dy, leading) : undefined,
      ];
    },
    evaluate: (op, inputs, results) => {
      const [x, scale, shift] = inputs as [Dense, Dense, Dense];
      const { y, means, variances } = normalize(x, rowsOf(x.shape), scale, shift, op.epsilon);
      const deviations = variances.map((variance) => 1 / Math.sqrt(variance + op.epsilon));
      return withShapes([y, means, deviations], results);
    },
  },

  "layer-norm-grad": {
    infer: (_op, inputs) => {
      const [x, scale, mean, deviation, dy] = inputs as [
        TensorType,
        TensorType,
        TensorType,
        TensorType,
        TensorType,
      ];
      expectVector(scale, expectRows(x).shape.at(-1) as number, "scale", x);
      const statistic = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), 1] };
      expectSame(statistic, mean, "mean");
      expectSame(statistic, deviation, "inverse standard deviation");
      expectSame(x, dy, "gradient");
      return [x];
    },
    space: (_op, inputs, results) => rowSpace(inputs, results, 10),
    derive: null,
    evaluate: (_op, inputs, results) => {
      const [x, scale, mean, deviation, dy] = inputs as [Dense, Dense, Dense, Dense, Dense];
      const { dx } = normalizeGradient(x, rowsOf(x.shape), scale, mean.data, deviation.data, dy);
      return withShapes([dx], results);
    },
  },

  "batch-norm": {
    infer: (op, inputs) => {
      const [x, scale, shift] = inputs as [TensorType, TensorType, TensorType];
      const channels = expectChannels(x);
      expectVector(scale, channels, "scale", x);
      expectVector(shift, channels, "shift", x);
      expectEpsilon(op.epsilon);
      const statistic = { dtype: x.dtype, shape: [channels] };
      return [x, statistic, statistic];
    },
    space: (_op, inputs, results) => channelSpace(inputs, results, 7),
    derive: (op, { inputs, outputs, gradients, wanted }) => {
      const [x, scale] = inputs as [Tensor, Tensor, Tensor];
      const [, mean, variance] = outputs as [Tensor, Tensor, Tensor];
      const [dy, ...statistics] = gradients;
      invariant(
        statistics.every((gradient) => gradient === undefined),
        "batch-norm: its statistics have no derivative",
      );
      if (!dy) return [undefined, undefined, undefined];
      const results = x.scope.apply({ kind: "batch-norm-grad", epsilon: op.epsilon }, [
        x,
        scale,
        mean,
        variance,
        dy,
      ]);
      return results.map((gradient, operand) => (wanted[operand] ? gradient : undefined));
    },
    evaluate: (op, inputs, results) => {
      const [x, scale, shift] = inputs as [Dense, Dense, Dense];
      const { y, means, variances } = normalize(x, channelsOf(x.shape), scale, shift, op.epsilon);
      return withShapes([y, means, variances], results);
    },
  },

  "batch-norm-grad": {
    infer: (op, inputs) => {
      const [x, scale, mean, variance, dy] = inputs as [
        TensorType,
        TensorType,
        TensorType,
        TensorType,
        TensorType,
      ];
      const channels = expectChannels(x);
      expectVector(scale, channels, "scale", x);
      expectVector(mean, channels, "mean", x);
      expectVector(variance, channels, "variance", x);
      expectSame(x, dy, "gradient");
      expectEpsilon(op.epsilon);
      return [x, scale, scale];
    },
    space: (_op, inputs, results) => channelSpace(inputs, results, 9),
    derive: null,
    evaluate: (op, inputs, results) => {
      const [x, scale, mean, variance, dy] = inputs as [Dense, Dense, Dense, Dense, Dense];
      const deviations = variance.data.map((value) => 1 / Math.sqrt(value + op.epsilon));
      const { dx, alongNormal, total } = normalizeGradient(
        x,
        channelsOf(x.shape),
        scale,
        mean.data,
        deviations,
        dy,
      );
      return withShapes([dx, alongNormal, total], results);
    },
  },
};

function softmaxGradient(y: Tensor, dy: Tensor): Tensor {
  return only(y.scope.apply({ kind: "softmax-grad" }, [y, dy]));
}

/** Floats with a last dim to normalise over. */
function expectRows(x: TensorType): TensorType {
  if (x.shape.length === 0 || !isFloat(x.dtype)) {
    throw new ShapeError(`expects floats with at least 1 dim, got ${showType(x)}`);
  }
  return x;
}

/** Number of channels of [N, C, ...]. */
function expectChannels(x: TensorType): number {
  const channels = x.shape[1];
  if (channels === undefined || !isFloat(x.dtype) || sizeOf(x.shape) === 0) {
    throw new ShapeError(`expects floats [N, C, ...] with at least 1 element, got ${showType(x)}`);
  }
  return channels;
}

function expectVector(got: TensorType, size: number, name: string, x: TensorType): void {
  const expected: TensorType = { dtype: x.dtype, shape: [size] };
  if (sameType(got, expected)) return;
  throw new ShapeError(`input ${showType(x)} needs a ${name} of ${showType(expected)}, got ${showType(got)}`);
}

function expectSame(expected: TensorType, got: TensorType, name: string): void {
  if (sameType(expected, got)) return;
  throw new ShapeError(`the ${name} must be ${showType(expected)}, got ${showType(got)}`);
}

function expectEpsilon(epsilon: number): void {
  if (!(epsilon >= 0 && epsilon < Number.POSITIVE_INFINITY))
    throw new ShapeError(`epsilon must be at least 0, got ${epsilon}`);
}

/** The last dim is needed whole; the others are parallel. */
function rowSpace(
  inputs: readonly TensorType[],
  results: readonly TensorType[],
  flopsPerPoint: number,
): IterationSpace {
  const { shape } = results[0] as TensorType;
  return {
    loops: shape.map((size, dim) => ({
      name: `d${dim}`,
      size,
      kind: dim === shape.length - 1 ? "whole" : "parallel",
    })),
    operands: inputs.map((type) => broadcastIndex(type.shape, shape)),
    results: results.map((type) => broadcastIndex(type.shape, shape)),
    flopsPerPoint,
  };
}

/** Channels are parallel; every other dim is needed whole. */
function channelSpace(
  inputs: readonly TensorType[],
  results: readonly TensorType[],
  flopsPerPoint: number,
): IterationSpace {
  const { shape } = results[0] as TensorType;
  const index = (type: TensorType) => (type.shape.length === 1 ? [[1]] : shape.map((_, dim) => [dim]));
  return {
    loops: shape.map((size, dim) => ({
      name: dim === 1 ? "c" : `d${dim}`,
      size,
      kind: dim === 1 ? "parallel" : "whole",
    })),
    operands: inputs.map(index),
    results: results.map(index),
    flopsPerPoint,
  };
}

function withShapes(data: readonly Float64Array[], types: readonly TensorType[]): readonly Dense[] {
  return types.map(({ shape }, i) => ({ shape, data: data[i] as Float64Array }));
}
