/** Indexed reads and writes: rows of a table (embeddings), one element of every row (the target of a classifier). */

import { gather, scatterAdd, take } from "../functions.ts";
import { type Dense, type DimIndex, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { sameShape, showType, sizeOf, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

type LookupKind = "gather" | "scatter-add" | "take" | "take-grad";

/** Loops of the indices, then of the rest of a row; the table's rows are needed whole. */
function rowSpace(
  indices: TensorType,
  rest: readonly number[],
  kind: Loop["kind"],
): { loops: Loop[]; lead: DimIndex[]; tail: DimIndex[] } {
  const rank = indices.shape.length;
  return {
    loops: [
      ...indices.shape.map((size, dim): Loop => ({ name: `i${dim}`, size, kind })),
      ...rest.map((size, dim): Loop => ({ name: `r${dim}`, size, kind: "parallel" })),
    ],
    lead: indices.shape.map((_, dim) => [dim]),
    tail: rest.map((_, dim) => [rank + dim]),
  };
}

function checkIndices(type: TensorType | undefined): TensorType {
  if (type?.dtype !== "i32")
    throw new ShapeError(`indices must be i32, got ${type ? showType(type) : "nothing"}`);
  return type;
}

export const lookup: { readonly [K in LookupKind]: OpRules<K> } = {
  gather: {
    infer: (_op, [table, indices]) => {
      const { dtype, shape } = table as TensorType;
      if (shape.length === 0) throw new ShapeError("a scalar has no rows");
      return [{ dtype, shape: [...checkIndices(indices).shape, ...shape.slice(1)] }];
    },
    space: (_op, inputs) => {
      const [table, indices] = inputs as [TensorType, TensorType];
      const { loops, lead, tail } = rowSpace(indices, table.shape.slice(1), "parallel");
      return { loops, operands: [[[], ...tail], lead], results: [[...lead, ...tail]], flopsPerPoint: 0 };
    },
    derive: (_op, { inputs: [table, indices], gradients: [dy] }) =>
      table && indices && dy
        ? [scatterAdd(indices, dy, table.shape[0] as number), undefined]
        : [undefined, undefined],
    evaluate: (_op, [table, indices], [type]) => {
      const { shape, data } = table as Dense;
      const row = sizeOf(shape.slice(1));
      const result = new Float64Array(sizeOf((type as TensorType).shape));
      (indices as Dense).data.forEach((index, i) => {
        if (index < 0 || index >= (shape[0] as number))
          throw new RangeError(`gather: index ${index} is outside 0..${(shape[0] as number) - 1}`);
        result.set(data.subarray(index * row, (index + 1) * row), i * row);
      });
      return [{ shape: (type as TensorType).shape, data: result }];
    },
  },
  "scatter-add": {
    infer: (op, [indices, updates]) => {
      const rank = checkIndices(indices).shape.length;
      const { dtype, shape } = updates as TensorType;
      if (!sameShape(shape.slice(0, rank), (indices as TensorType).shape)) {
        throw new ShapeError(
          `updates ${showType(updates as TensorType)} do not start with the dims of ${showType(indices as TensorType)}`,
        );
      }
      return [{ dtype, shape: [op.size, ...shape.slice(rank)] }];
    },
    space: (_op, inputs) => {
      const [indices, updates] = inputs as [TensorType, TensorType];
      const { loops, lead, tail } = rowSpace(indices, updates.shape.slice(indices.shape.length), "reduce");
      return { loops, operands: [lead, [...lead, ...tail]], results: [[[], ...tail]], flopsPerPoint: 1 };
    },
    derive: (_op, { inputs: [indices], gradients: [dy] }) => [
      undefined,
      dy && indices && gather(dy, indices),
    ],
    evaluate: (_op, [indices, updates], [type]) => {
      const { shape } = type as TensorType;
      const row = sizeOf(shape.slice(1));
      const data = new Float64Array(sizeOf(shape));
      (indices as Dense).data.forEach((index, i) => {
        for (let j = 0; j < row; j++)
          data[index * row + j] =
            (data[index * row + j] as number) + ((updates as Dense).data[i * row + j] as number);
      });
      return [{ shape, data }];
    },
  },
  take: {
    infer: (_op, [x, indices]) => {
      const { dtype, shape } = x as TensorType;
      if (!sameShape(shape.slice(0, -1), checkIndices(indices).shape)) {
        throw new ShapeError(
          `${showType(x as TensorType)} needs indices of its leading dims, got ${showType(indices as TensorType)}`,
        );
      }
      return [{ dtype, shape: shape.slice(0, -1) }];
    },
    space: (_op, [x, indices]) => {
      const lead: DimIndex[] = (indices as TensorType).shape.map((_, dim) => [dim]);
      const loops = (x as TensorType).shape.map(
        (size, dim): Loop => ({ name: `d${dim}`, size, kind: dim < lead.length ? "parallel" : "whole" }),
      );
      return { loops, operands: [[...lead, [lead.length]], lead], results: [lead], flopsPerPoint: 0 };
    },
    derive: (_op, { inputs: [x, indices], gradients: [dy] }) => {
      if (!(x && indices && dy)) return [undefined, undefined];
      return [
        x.scope.apply({ kind: "take-grad", size: x.shape.at(-1) as number }, [indices, dy])[0] as Tensor,
        undefined,
      ];
    },
    evaluate: (_op, [x, indices]) => {
      const { shape, data } = x as Dense;
      const size = shape.at(-1) as number;
      return [
        {
          shape: shape.slice(0, -1),
          data: (indices as Dense).data.map((index, i) =>
            index >= 0 && index < size ? (data[i * size + index] as number) : 0,
          ),
        },
      ];
    },
  },
  "take-grad": {
    infer: (op, [indices, updates]) => {
      const { dtype, shape } = updates as TensorType;
      if (!sameShape(shape, checkIndices(indices).shape)) {
        throw new ShapeError(
          `${showType(updates as TensorType)} and ${showType(indices as TensorType)} must have the same shape`,
        );
      }
      return [{ dtype, shape: [...shape, op.size] }];
    },
    space: (op, [indices]) => {
      const lead: DimIndex[] = (indices as TensorType).shape.map((_, dim) => [dim]);
      const loops = [...(indices as TensorType).shape, op.size].map(
        (size, dim): Loop => ({ name: `d${dim}`, size, kind: dim < lead.length ? "parallel" : "whole" }),
      );
      return { loops, operands: [lead, lead], results: [[...lead, [lead.length]]], flopsPerPoint: 0 };
    },
    derive: (_op, { inputs: [indices], gradients: [dy] }) => [undefined, dy && indices && take(dy, indices)],
    evaluate: (op, [indices, updates], [type]) => {
      const data = new Float64Array(sizeOf((type as TensorType).shape));
      (indices as Dense).data.forEach((index, i) => {
        if (index >= 0 && index < op.size) data[i * op.size + index] = (updates as Dense).data[i] as number;
      });
      return [{ shape: (type as TensorType).shape, data }];
    },
  },
};
