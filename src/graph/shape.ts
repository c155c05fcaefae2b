/** Shapes: lists of dimension sizes in C order; the last dim is contiguous. */

import { type DType, elementBytes } from "./dtype.ts";

export type Shape = readonly number[];

export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Number of elements; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const dim of shape) size *= dim;
  return size;
}

export function bytesOfType(type: TensorType): number {
  return sizeOf(type.shape) * elementBytes(type.dtype);
}

/** Distance in elements between neighbours along each dim, for a contiguous tensor. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let dim = shape.length - 1; dim >= 0; dim--) {
    strides[dim] = stride;
    stride *= shape[dim] as number;
  }
  return strides;
}

/** `f32[20,400]`. */
export function showType(type: TensorType): string {
  return `${type.dtype}[${type.shape.join(",")}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

export function sameType(a: TensorType, b: TensorType): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

/**
 * The shape of an elementwise operation on several operands by NumPy's rule: shapes are aligned at the last dim and a dim
 * of size 1 is repeated. `undefined` where they do not fit.
 */
export function broadcastShapes(shapes: readonly Shape[]): Shape | undefined {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  const result: number[] = [];
  for (let dim = 0; dim < rank; dim++) {
    let size = 1;
    for (const shape of shapes) {
      const own = shape[dim - rank + shape.length] ?? 1;
      if (own === 1) continue;
      if (size !== 1 && size !== own) return undefined;
      size = own;
    }
    result.push(size);
  }
  return result;
}

/** `dim` counted from the end where negative; `undefined` when the tensor has no such dim. */
export function normalizeDim(dim: number, rank: number): number | undefined {
  const index = dim < 0 ? dim + rank : dim;
  return Number.isInteger(index) && index >= 0 && index < rank ? index : undefined;
}
