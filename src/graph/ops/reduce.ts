/** Reductions over any dims. */

import { isFloat } from "../dtype.ts";
import { broadcast, cast, div, equal, mul, reshape, scalar, sum } from "../functions.ts";
import type { ReduceKind } from "../op.ts";
import { type Dense, type OpRules, ShapeError } from "../op-rules.ts";
import { type Shape, showType, sizeOf, stridesOf, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

interface Reduced {
  readonly dims: readonly number[];
  /** Repeats a result-shaped tensor over the reduced dims. */
  readonly expand: (t: Tensor) => Tensor;
}

interface Reduction {
  readonly initial: number;
  readonly combine: (total: number, value: number) => number;
  /** Turns the total over `count` elements into the result. */
  readonly finish: (total: number, count: number) => number;
  /** Gradient of x. */
  readonly derivative: (x: Tensor, y: Tensor, dy: Tensor, at: Reduced) => Tensor;
}

function reduction(rule: Reduction): OpRules<ReduceKind> {
  return {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const bad = op.dims.filter((dim) => type.shape[dim] === undefined);
      if (bad.length > 0) throw new ShapeError(`dims ${bad} do not exist in ${showType(type)}`);
      if (type.dtype === "bool") throw new ShapeError(`expects numbers, got ${showType(type)}`);
      if (op.kind === "mean" && !isFloat(type.dtype))
        throw new ShapeError(`expects floats, got ${showType(type)}`);
      return [{ dtype: type.dtype, shape: reducedShape(type.shape, op.dims, op.keep) }];
    },
    space: (op, [x]) => {
      const shape = (x as TensorType).shape;
      const all = shape.map((_, dim) => [dim]);
      const left = all.map((index, dim) => (op.dims.includes(dim) ? [] : index));
      return {
        loops: shape.map((size, dim) => ({
          name: `d${dim}`,
          size,
          kind: op.dims.includes(dim) ? (op.kind === "sum" ? "reduce" : "whole") : "parallel",
        })),
        operands: [all],
        results: [op.keep ? left : left.filter((_, dim) => !op.dims.includes(dim))],
        flopsPerPoint: 1,
      };
    },
    derive: (op, { inputs: [x], outputs: [y], gradients: [dy] }) => {
      if (!(x && y && dy)) return [undefined];
      const kept = reducedShape(x.shape, op.dims, true);
      const expand = (t: Tensor) => broadcast(reshape(t, kept), x.shape);
      return [rule.derivative(x, y, dy, { dims: op.dims, expand })];
    },
    evaluate: (op, [x], [type]) => {
      const { shape, data } = x as Dense;
      const kept = reducedShape(shape, op.dims, true);
      const strides = stridesOf(shape);
      const keptStrides = stridesOf(kept).map((stride, dim) => (op.dims.includes(dim) ? 0 : stride));
      const totals = new Float64Array(sizeOf(kept)).fill(rule.initial);
      for (let element = 0; element < data.length; element++) {
        let at = 0;
        for (let dim = 0; dim < shape.length; dim++) {
          at +=
            (Math.floor(element / (strides[dim] as number)) % (shape[dim] as number)) *
            (keptStrides[dim] as number);
        }
        totals[at] = rule.combine(totals[at] as number, data[element] as number);
      }
      const count = data.length / Math.max(totals.length, 1);
      return [{ shape: (type as TensorType).shape, data: totals.map((total) => rule.finish(total, count)) }];
    },
  };
}

function reducedShape(shape: Shape, dims: readonly number[], keep: boolean): number[] {
  return shape.flatMap((size, dim) => (dims.includes(dim) ? (keep ? [1] : []) : [size]));
}

export const reduce: { readonly [K in ReduceKind]: OpRules<K> } = {
  sum: reduction({
    initial: 0,
    combine: (total, value) => total + value,
    finish: (total) => total,
    derivative: (_x, _y, dy, { expand }) => expand(dy),
  }),
  mean: reduction({
    initial: 0,
    combine: (total, value) => total + value,
    finish: (total, count) => total / count,
    derivative: (x, y, dy, { expand }) => expand(mul(dy, scalar(dy, sizeOf(y.shape) / sizeOf(x.shape)))),
  }),
  "reduce-max": reduction({
    initial: Number.NEGATIVE_INFINITY,
    combine: Math.max,
    finish: (total) => total,
    derivative: (x, y, dy, { dims, expand }) => {
      const winners = cast(equal(x, expand(y)), dy.dtype);
      return mul(winners, div(expand(dy), sum(winners, dims, true)));
    },
  }),
};
