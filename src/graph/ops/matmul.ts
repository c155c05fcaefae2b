/** Matrix products over the last two dims, with leading (batch) dims that broadcast. */

import { isFloat } from "../dtype.ts";
import { matmul as product, reshape } from "../functions.ts";
import {
  type Dense,
  type DimIndex,
  type IterationSpace,
  type Loop,
  type OpRules,
  ShapeError,
} from "../op-rules.ts";
import { broadcastShapes, type Shape, showType, sizeOf, stridesOf, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { broadcastIndex, sumTo } from "./elementwise.ts";

interface Sizes {
  readonly batch: Shape;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

type Transposes = { readonly transposeA: boolean; readonly transposeB: boolean };

function sizesOf(op: Transposes, a: TensorType, b: TensorType): Sizes {
  const fail = (why: string) =>
    new ShapeError(
      `${showType(a)}${op.transposeA ? "ᵀ" : ""} x ${showType(b)}${op.transposeB ? "ᵀ" : ""}: ${why}`,
    );
  if (a.shape.length < 2 || b.shape.length < 2) throw fail("both operands need at least 2 dims");
  if (a.dtype !== b.dtype) throw fail("the element types differ");
  if (!isFloat(a.dtype)) throw fail("only floats have a product");
  const [rows, columns] = [a.shape.slice(-2), b.shape.slice(-2)];
  const [m, k] = (op.transposeA ? rows.toReversed() : rows) as [number, number];
  const [inner, n] = (op.transposeB ? columns.toReversed() : columns) as [number, number];
  if (k !== inner) throw fail(`the inner dims are ${k} and ${inner}`);
  const batch = broadcastShapes([a.shape.slice(0, -2), b.shape.slice(0, -2)]);
  if (batch === undefined) throw fail("the leading dims do not fit together");
  return { batch, m, n, k };
}

function space(op: Transposes, a: TensorType, b: TensorType): IterationSpace {
  const { batch, m, n, k } = sizesOf(op, a, b);
  const loops: Loop[] = [
    ...batch.map((size, dim): Loop => ({ name: `b${dim}`, size, kind: "parallel" })),
    { name: "m", size: m, kind: "parallel" },
    { name: "n", size: n, kind: "parallel" },
    { name: "k", size: k, kind: "reduce" },
  ];
  const [atM, atN, atK] = [[batch.length], [batch.length + 1], [batch.length + 2]];
  const lead = (shape: Shape): readonly DimIndex[] => broadcastIndex(shape.slice(0, -2), batch);
  return {
    loops,
    operands: [
      [...lead(a.shape), ...(op.transposeA ? [atK, atM] : [atM, atK])],
      [...lead(b.shape), ...(op.transposeB ? [atN, atK] : [atK, atN])],
    ],
    results: [[...batch.map((_, dim) => [dim]), atM, atN]],
    flopsPerPoint: 2,
  };
}

/**
 * y = A·B with A = aᵀ or a, B = bᵀ or b: dA = dy·Bᵀ, dB = Aᵀ·dy. Leading dims that only one operand has are flattened into
 * its rows, so a weight's gradient is one product over all samples and time steps rather than a sum of many.
 */
function derive(
  op: Transposes,
  a: Tensor,
  b: Tensor,
  dy: Tensor,
  wanted: readonly boolean[],
): (Tensor | undefined)[] {
  const { transposeA, transposeB } = op;
  const da = () =>
    transposeA
      ? product(b, dy, { transposeA: transposeB, transposeB: true })
      : product(dy, b, { transposeB: !transposeB });
  const db = () => {
    if (b.shape.length === 2 && a.shape.length > 2 && !transposeA) {
      const [rows, gradient] = [flattenRows(a), flattenRows(dy)];
      return transposeB
        ? product(gradient, rows, { transposeA: true })
        : product(rows, gradient, { transposeA: true });
    }
    return transposeB
      ? product(dy, a, { transposeA: true, transposeB: transposeA })
      : product(a, dy, { transposeA: !transposeA });
  };
  return [wanted[0] ? sumTo(da(), a.shape) : undefined, wanted[1] ? sumTo(db(), b.shape) : undefined];
}

/** [..., k] → [product of the leading dims, k]. */
function flattenRows(x: Tensor): Tensor {
  return reshape(x, [sizeOf(x.shape.slice(0, -1)), x.shape.at(-1) as number]);
}

function evaluate(op: Transposes, a: Dense, b: Dense): Dense {
  const type = (x: Dense): TensorType => ({ dtype: "f64", shape: x.shape });
  const { batch, m, n, k } = sizesOf(op, type(a), type(b));
  const [rowA, innerA] = op.transposeA ? [1, m] : [k, 1];
  const [innerB, columnB] = op.transposeB ? [1, k] : [n, 1];
  const data = new Float64Array(sizeOf([...batch, m, n]));
  for (let element = 0; element < data.length; element++) {
    const product = Math.floor(element / (m * n));
    const startA = matrixOffset(a.shape, batch, product) + (Math.floor(element / n) % m) * rowA;
    const startB = matrixOffset(b.shape, batch, product) + (element % n) * columnB;
    let total = 0;
    for (let l = 0; l < k; l++)
      total += (a.data[startA + l * innerA] as number) * (b.data[startB + l * innerB] as number);
    data[element] = total;
  }
  return { shape: [...batch, m, n], data };
}

/** Where the operand's matrix for batch element `product` starts. */
function matrixOffset(shape: Shape, batch: Shape, product: number): number {
  const shift = batch.length - (shape.length - 2);
  const strides = stridesOf(shape);
  const batchStrides = stridesOf(batch);
  return shape.slice(0, -2).reduce((sum, size, dim) => {
    const index =
      Math.floor(product / (batchStrides[dim + shift] as number)) % (batch[dim + shift] as number);
    return sum + (size === 1 ? 0 : index * (strides[dim] as number));
  }, 0);
}

export const matrix: { readonly matmul: OpRules<"matmul"> } = {
  matmul: {
    infer: (op, inputs) => {
      const [a, b] = inputs as [TensorType, TensorType];
      const { batch, m, n } = sizesOf(op, a, b);
      return [{ dtype: a.dtype, shape: [...batch, m, n] }];
    },
    space: (op, inputs) => space(op, inputs[0] as TensorType, inputs[1] as TensorType),
    derive: (op, { inputs: [a, b], gradients: [dy], wanted }) =>
      a && b && dy ? derive(op, a, b, dy, wanted) : [undefined, undefined],
    evaluate: (op, [a, b]) => [evaluate(op, a as Dense, b as Dense)],
  },
};
