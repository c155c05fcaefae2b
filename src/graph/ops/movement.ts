/** Operations that only move elements: broadcast, reshape, transpose, slice, concat, split, pad, constants. */

import { concat, constant, pad, reshape, slice, sliceDim, transpose } from "../functions.ts";
import { type Dense, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import {
  broadcastShapes,
  type Shape,
  sameShape,
  showType,
  sizeOf,
  stridesOf,
  type TensorType,
} from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { broadcastIndex, elementwiseSpace, sumTo } from "./elementwise.ts";
import { joinSpace, parallelLoops, partSpace, reshapeSpace } from "./movement-space.ts";

type MovementKind =
  | "constant"
  | "iota"
  | "broadcast"
  | "reshape"
  | "transpose"
  | "slice"
  | "concat"
  | "split"
  | "pad";

export const movement: { readonly [K in MovementKind]: OpRules<K> } = {
  constant: {
    infer: (op) => [{ dtype: op.dtype, shape: op.shape }],
    space: (_op, inputs, results) => elementwiseSpace(inputs, results, 0),
    derive: () => [],
    evaluate: (op) => [{ shape: op.shape, data: new Float64Array(sizeOf(op.shape)).fill(op.value) }],
  },
  iota: {
    infer: (op) => {
      if (op.shape[op.dim] === undefined)
        throw new ShapeError(`dim ${op.dim} does not exist in [${op.shape}]`);
      return [{ dtype: op.dtype, shape: op.shape }];
    },
    space: (op, inputs, results) => {
      const space = elementwiseSpace(inputs, results, 0);
      const counted = space.loops[op.dim] as Loop;
      return { ...space, loops: space.loops.with(op.dim, { ...counted, kind: "whole" }) };
    },
    derive: () => [],
    evaluate: (op) => {
      const stride = stridesOf(op.shape)[op.dim] as number;
      const size = op.shape[op.dim] as number;
      const data = Float64Array.from({ length: sizeOf(op.shape) }, (_, i) => Math.floor(i / stride) % size);
      return [{ shape: op.shape, data }];
    },
  },
  broadcast: {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const shape = broadcastShapes([type.shape, op.shape]);
      if (shape === undefined || !sameShape(shape, op.shape)) {
        throw new ShapeError(`${showType(type)} cannot be repeated to [${op.shape}]`);
      }
      return [{ dtype: type.dtype, shape }];
    },
    space: (op, [x], results) => ({
      ...elementwiseSpace([], results, 0),
      operands: [broadcastIndex((x as TensorType).shape, op.shape)],
    }),
    derive: (_op, { inputs: [x], gradients: [dy] }) => [x && dy && sumTo(dy, x.shape)],
    evaluate: (op, [x]) => {
      const { shape, data } = x as Dense;
      const shift = op.shape.length - shape.length;
      return [
        rearrange(
          op.shape,
          data,
          (index) => shape.map((size, dim) => (size === 1 ? 0 : (index[dim + shift] as number))),
          shape,
        ),
      ];
    },
  },
  reshape: {
    infer: (op, [x]) => {
      const type = x as TensorType;
      if (sizeOf(type.shape) !== sizeOf(op.shape)) {
        throw new ShapeError(
          `${showType(type)} has ${sizeOf(type.shape)} elements, [${op.shape}] has ${sizeOf(op.shape)}`,
        );
      }
      return [{ dtype: type.dtype, shape: op.shape }];
    },
    space: (op, [x]) => reshapeSpace((x as TensorType).shape, op.shape),
    derive: (_op, { inputs: [x], gradients: [dy] }) => [x && dy && reshape(dy, x.shape)],
    evaluate: (op, [x]) => [{ shape: op.shape, data: (x as Dense).data.slice() }],
  },
  transpose: {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const sorted = op.permutation.toSorted((a, b) => a - b);
      if (sorted.length !== type.shape.length || sorted.some((dim, i) => dim !== i)) {
        throw new ShapeError(`[${op.permutation}] is not a permutation of the dims of ${showType(type)}`);
      }
      return [{ dtype: type.dtype, shape: op.permutation.map((dim) => type.shape[dim] as number) }];
    },
    space: (op, [x]) => {
      const shape = (x as TensorType).shape;
      return {
        loops: parallelLoops(shape),
        operands: [shape.map((_, dim) => [dim])],
        results: [op.permutation.map((dim) => [dim])],
        flopsPerPoint: 0,
      };
    },
    derive: (op, { gradients: [dy] }) => [
      dy &&
        transpose(
          dy,
          op.permutation.map((_, dim) => op.permutation.indexOf(dim)),
        ),
    ],
    evaluate: (op, [x], [type]) => {
      const { shape, data } = x as Dense;
      return [
        rearrange(
          (type as TensorType).shape,
          data,
          (index) => shape.map((_, dim) => index[op.permutation.indexOf(dim)] as number),
          shape,
        ),
      ];
    },
  },
  slice: {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const fits = type.shape.every((size, dim) => {
        const [start, stop, step] = [op.start[dim], op.stop[dim], op.step[dim]];
        return (
          start !== undefined &&
          stop !== undefined &&
          step !== undefined &&
          0 <= start &&
          start <= stop &&
          stop <= size &&
          step >= 1 &&
          [start, stop, step].every(Number.isInteger)
        );
      });
      if (!fits || [op.start, op.stop, op.step].some((list) => list.length !== type.shape.length)) {
        throw new ShapeError(
          `[${op.start}] to [${op.stop}] step [${op.step}] does not lie in ${showType(type)}`,
        );
      }
      return [{ dtype: type.dtype, shape: slicedShape(op) }];
    },
    space: (_op, [x], results) => partSpace((x as TensorType).shape, (results[0] as TensorType).shape),
    derive: (op, { inputs: [x], gradients: [dy] }) => [x && dy && unslice(dy, x.shape, op)],
    evaluate: (op, [x], [type]) => {
      const { shape, data } = x as Dense;
      return [
        rearrange(
          (type as TensorType).shape,
          data,
          (index) => index.map((i, dim) => (op.start[dim] as number) + i * (op.step[dim] as number)),
          shape,
        ),
      ];
    },
  },
  concat: {
    infer: (op, inputs) => {
      const [first] = inputs as [TensorType];
      const fits = inputs.every(
        (type) =>
          type.dtype === first.dtype &&
          type.shape.length === first.shape.length &&
          type.shape.every((size, dim) => dim === op.dim || size === first.shape[dim]),
      );
      if (!fits || first.shape[op.dim] === undefined) {
        throw new ShapeError(`${inputs.map(showType).join(", ")} cannot be joined along dim ${op.dim}`);
      }
      const total = inputs.reduce((sum, type) => sum + (type.shape[op.dim] as number), 0);
      return [{ dtype: first.dtype, shape: first.shape.with(op.dim, total) }];
    },
    space: (op, inputs, results) => joinSpace(op.dim, inputs, results),
    derive: (op, { inputs, gradients: [dy] }) => {
      let start = 0;
      return inputs.map((part) => {
        const size = part.shape[op.dim] as number;
        start += size;
        return dy && sliceDim(dy, op.dim, start - size, start);
      });
    },
    evaluate: (op, inputs, [type]) => [joined((type as TensorType).shape, op.dim, inputs)],
  },
  split: {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const total = op.sizes.reduce((sum, size) => sum + size, 0);
      if (type.shape[op.dim] !== total || op.sizes.length === 0)
        throw new ShapeError(`parts [${op.sizes}] do not add up to dim ${op.dim} of ${showType(type)}`);
      return op.sizes.map((size) => ({ dtype: type.dtype, shape: type.shape.with(op.dim, size) }));
    },
    space: (op, inputs, results) => joinSpace(op.dim, inputs, results),
    derive: (op, { outputs, gradients }) => {
      if (gradients.every((gradient) => gradient === undefined)) return [undefined];
      return [
        concat(
          outputs.map((part, i) => gradients[i] ?? constant(part.scope, part.dtype, part.shape, 0)),
          op.dim,
        ),
      ];
    },
    evaluate: (op, [x], types) => {
      const { shape, data } = x as Dense;
      let start = 0;
      return types.map((type) => {
        const from = start;
        start += type.shape[op.dim] as number;
        return rearrange(
          type.shape,
          data,
          (index) => index.with(op.dim, (index[op.dim] as number) + from),
          shape,
        );
      });
    },
  },
  pad: {
    infer: (op, [x]) => {
      const type = x as TensorType;
      const fits = [op.before, op.after].every(
        (list) =>
          list.length === type.shape.length && list.every((count) => Number.isInteger(count) && count >= 0),
      );
      if (!fits)
        throw new ShapeError(
          `[${op.before}] and [${op.after}] do not give counts for every dim of ${showType(type)}`,
        );
      return [
        {
          dtype: type.dtype,
          shape: type.shape.map((size, dim) => size + (op.before[dim] as number) + (op.after[dim] as number)),
        },
      ];
    },
    space: (_op, [x], results) => partSpace((x as TensorType).shape, (results[0] as TensorType).shape),
    derive: (op, { inputs: [x], gradients: [dy] }) => [
      x &&
        dy &&
        slice(
          dy,
          op.before,
          op.before.map((count, dim) => count + (x.shape[dim] as number)),
        ),
    ],
    evaluate: (op, [x], [type]) => {
      const result = {
        shape: (type as TensorType).shape,
        data: new Float64Array(sizeOf((type as TensorType).shape)).fill(op.value),
      };
      place(
        x as Dense,
        result,
        op.before,
        op.before.map(() => 1),
      );
      return [result];
    },
  },
};

function slicedShape(op: {
  start: readonly number[];
  stop: readonly number[];
  step: readonly number[];
}): number[] {
  return op.start.map((start, dim) =>
    Math.ceil(((op.stop[dim] as number) - start) / (op.step[dim] as number)),
  );
}

/** Puts the gradient of a slice back in its place among zeros; strided slices are first spread out. */
function unslice(
  dy: Tensor,
  shape: Shape,
  op: { readonly start: readonly number[]; readonly step: readonly number[] },
): Tensor {
  const spread = op.step.reduce((t, step, dim) => (step === 1 ? t : spreadDim(t, dim, step)), dy);
  const after = shape.map((size, dim) => size - (op.start[dim] as number) - (spread.shape[dim] as number));
  if (after.every((count) => count >= 0)) return pad(spread, op.start, after);
  const kept = spread.shape.map((size, dim) => size + Math.min(0, after[dim] as number));
  return pad(
    slice(
      spread,
      kept.map(() => 0),
      kept,
    ),
    op.start,
    after.map((count) => Math.max(0, count)),
  );
}

/** [a, b] → [a, 0, b, 0] for a step of 2. */
function spreadDim(x: Tensor, dim: number, step: number): Tensor {
  const shape = x.shape;
  const split = [...shape.slice(0, dim + 1), 1, ...shape.slice(dim + 1)];
  const none = split.map(() => 0);
  const padded = pad(reshape(x, split), none, none.with(dim + 1, step - 1));
  return reshape(padded, shape.with(dim, (shape[dim] as number) * step));
}

/** A tensor of `shape` whose element at an index is the source's element at `source(index)`. */
function rearrange(
  shape: Shape,
  data: Float64Array,
  source: (index: readonly number[]) => readonly number[],
  sourceShape: Shape,
): Dense {
  const strides = stridesOf(shape);
  const sourceStrides = stridesOf(sourceShape);
  const values = Float64Array.from({ length: sizeOf(shape) }, (_, element) => {
    const index = shape.map((size, dim) => Math.floor(element / (strides[dim] as number)) % size);
    const at = source(index).reduce((sum, i, dim) => sum + i * (sourceStrides[dim] as number), 0);
    return data[at] as number;
  });
  return { shape, data: values };
}

/** Writes `part` into `whole` at `start` with distance `step`. */
function place(part: Dense, whole: Dense, start: readonly number[], step: readonly number[]): void {
  const strides = stridesOf(part.shape);
  const wholeStrides = stridesOf(whole.shape);
  part.data.forEach((value, element) => {
    let at = 0;
    part.shape.forEach((size, dim) => {
      const index = Math.floor(element / (strides[dim] as number)) % size;
      at += ((start[dim] as number) + index * (step[dim] as number)) * (wholeStrides[dim] as number);
    });
    whole.data[at] = value;
  });
}

function joined(shape: Shape, dim: number, parts: readonly Dense[]): Dense {
  const whole = { shape, data: new Float64Array(sizeOf(shape)) };
  let start = 0;
  for (const part of parts) {
    place(
      part,
      whole,
      shape.map((_, i) => (i === dim ? start : 0)),
      shape.map(() => 1),
    );
    start += part.shape[dim] as number;
  }
  return whole;
}
