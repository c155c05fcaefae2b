/** Cross-entropy with ignored targets, and the dropout mask: the two operations that a loss curve hinges on. */

import { invariant } from "../../base/errors.ts";
import { uniform } from "../../base/random.ts";
import { type Dense, type DimIndex, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { sameShape, sameType, showType, sizeOf, stridesOf, type TensorType } from "../shape.ts";
import { elementwiseSpace } from "./elementwise.ts";

type LossKind = "cross-entropy" | "cross-entropy-grad" | "dropout-mask";

function checkTargets(logits: TensorType, targets: TensorType): readonly number[] {
  const rows = logits.shape.slice(0, -1);
  if (logits.shape.length === 0 || targets.dtype !== "i32" || !sameShape(rows, targets.shape)) {
    throw new ShapeError(
      `logits ${showType(logits)} need i32 targets of shape [${rows}], got ${showType(targets)}`,
    );
  }
  return rows;
}

/** Rows are parallel; the classes of a row are needed whole. */
function rowLoops(logits: TensorType): { loops: Loop[]; row: DimIndex[]; full: DimIndex[] } {
  const full: DimIndex[] = logits.shape.map((_, dim) => [dim]);
  const loops = logits.shape.map(
    (size, dim): Loop => ({ name: `d${dim}`, size, kind: dim < full.length - 1 ? "parallel" : "whole" }),
  );
  return { loops, row: full.slice(0, -1), full };
}

export const loss: { readonly [K in LossKind]: OpRules<K> } = {
  "cross-entropy": {
    infer: (_op, inputs) => {
      const [logits, targets] = inputs as [TensorType, TensorType];
      const shape = checkTargets(logits, targets);
      return [{ dtype: logits.dtype, shape }, logits];
    },
    space: (_op, [logits]) => {
      const { loops, row, full } = rowLoops(logits as TensorType);
      return { loops, operands: [full, row], results: [row, full], flopsPerPoint: 6 };
    },
    derive: (op, { inputs: [logits, targets], outputs: [, probabilities], gradients: [dLoss, other] }) => {
      invariant(other === undefined, "the probabilities of a cross-entropy are for its derivative only");
      if (!(logits && targets && probabilities && dLoss)) return [undefined, undefined];
      const gradient = logits.scope.apply({ kind: "cross-entropy-grad", ignore: op.ignore }, [
        probabilities,
        targets,
        dLoss,
        dLoss,
      ]);
      return [gradient[0], undefined];
    },
    evaluate: (op, [logits, targets]) => {
      const { shape, data } = logits as Dense;
      const classes = shape.at(-1) as number;
      const rows = shape.slice(0, -1);
      const logSumExp = Float64Array.from({ length: sizeOf(rows) }, (_, row) =>
        logSumExpOf(data.subarray(row * classes, (row + 1) * classes)),
      );
      const losses = logSumExp.map((total, row) => {
        const target = (targets as Dense).data[row] as number;
        if (target === op.ignore) return 0;
        if (!(target >= 0 && target < classes))
          throw new RangeError(`cross-entropy: target ${target} is outside 0..${classes - 1}`);
        return total - (data[row * classes + target] as number);
      });
      const probabilities = data.map((logit, i) =>
        Math.exp(logit - (logSumExp[Math.floor(i / classes)] as number)),
      );
      return [
        { shape: rows, data: losses },
        { shape, data: probabilities },
      ];
    },
  },
  "cross-entropy-grad": {
    infer: (_op, inputs) => {
      const [probabilities, targets, ...gradients] = inputs as [TensorType, TensorType, ...TensorType[]];
      const expected = { dtype: probabilities.dtype, shape: checkTargets(probabilities, targets) };
      for (const gradient of gradients)
        if (!sameType(gradient, expected))
          throw new ShapeError(`the gradient must be ${showType(expected)}, got ${showType(gradient)}`);
      return [probabilities];
    },
    space: (_op, [probabilities]) => {
      const { loops, row, full } = rowLoops(probabilities as TensorType);
      return { loops, operands: [full, row, row, row], results: [full], flopsPerPoint: 2 };
    },
    derive: null,
    evaluate: (op, [probabilities, targets, dTarget, dLogSum]) => {
      const { shape, data } = probabilities as Dense;
      const classes = shape.at(-1) as number;
      const result = data.map((probability, i) => {
        const row = Math.floor(i / classes);
        const target = (targets as Dense).data[row] as number;
        if (target === op.ignore) return 0;
        const isTarget = i % classes === target - (op.first ?? 0);
        const own = isTarget ? ((dTarget as Dense).data[row] as number) : 0;
        return probability * ((dLogSum as Dense).data[row] as number) - own;
      });
      return [{ shape, data: result }];
    },
  },
  "dropout-mask": {
    infer: (op, inputs) => {
      const fits =
        inputs.length === 2 && inputs.every((type) => type.dtype === "i32" && type.shape.length === 0);
      if (!fits)
        throw new ShapeError(`expects a key and a base, both i32[], got ${inputs.map(showType).join(", ")}`);
      if (!(op.keep > 0 && op.keep <= 1))
        throw new ShapeError(`the share of kept elements must be in (0, 1], got ${op.keep}`);
      return [{ dtype: op.dtype, shape: op.shape }];
    },
    space: (_op, _inputs, results) => ({
      ...elementwiseSpace([], results, 10),
      operands: [[], []],
    }),
    derive: () => [undefined, undefined],
    evaluate: (op, [key, base]) => {
      const strides = stridesOf(op.shape);
      const data = Float64Array.from({ length: sizeOf(op.shape) }, (_, element) => {
        const index = op.shape.reduce(
          (sum, size, dim) =>
            sum + (Math.floor(element / (strides[dim] as number)) % size) * (op.strides[dim] as number),
          (base as Dense).data[0] as number,
        );
        return uniform((key as Dense).data[0] as number, index) < op.keep ? 1 / op.keep : 0;
      });
      return [{ shape: op.shape, data }];
    },
  },
};

function logSumExpOf(row: Float64Array): number {
  const max = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return max + Math.log(row.reduce((sum, value) => sum + Math.exp(value - max), 0));
}
