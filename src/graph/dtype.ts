/** Element types of tensors and the typed arrays that hold them. */

export type DType = "f32" | "f16" | "f64" | "i32" | "i64" | "bool";

/** Storage of one tensor: `f16` as raw IEEE bits in a `Uint16Array`, `bool` as 0 or 1 in a `Uint8Array`. */
export type TypedArray = Float32Array | Uint16Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

export const dtypes: readonly DType[] = ["f32", "f16", "f64", "i32", "i64", "bool"];

const bytesOf: { readonly [K in DType]: number } = { f32: 4, f16: 2, f64: 8, i32: 4, i64: 8, bool: 1 };

/** Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return bytesOf[dtype];
}

export function isFloat(dtype: DType): boolean {
  return dtype === "f32" || dtype === "f16" || dtype === "f64";
}

/** A zeroed array for `length` elements, over `buffer` from byte `offset` where one is given. */
export function allocate(dtype: DType, length: number, buffer?: ArrayBuffer, offset = 0): TypedArray {
  const memory = buffer ?? new ArrayBuffer(length * bytesOf[dtype]);
  switch (dtype) {
    case "f32":
      return new Float32Array(memory, offset, length);
    case "f16":
      return new Uint16Array(memory, offset, length);
    case "f64":
      return new Float64Array(memory, offset, length);
    case "i32":
      return new Int32Array(memory, offset, length);
    case "i64":
      return new BigInt64Array(memory, offset, length);
    case "bool":
      return new Uint8Array(memory, offset, length);
    default:
      return dtype satisfies never;
  }
}
