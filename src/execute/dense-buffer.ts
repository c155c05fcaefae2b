/** Between typed arrays of any element type and the float64 tensors of the reference evaluation. */

import { decodeFloat16, encodeFloat16 } from "../base/float16.ts";
import type { Dense } from "../graph/op-rules.ts";
import type { TensorBuffer } from "./engine.ts";

/** The numbers in a buffer. */
export function readBuffer({ type, data }: TensorBuffer): Dense {
  const decode = type.dtype === "f16" ? decodeFloat16 : Number;
  return {
    shape: type.shape,
    data: Float64Array.from(data as ArrayLike<number | bigint>, (x) => decode(x as number)),
  };
}

/** Writes numbers into a buffer, rounded to its element type (integers toward zero, bool as `!= 0`). */
export function writeBuffer({ type, data }: TensorBuffer, values: Float64Array): void {
  switch (type.dtype) {
    case "f32":
    case "f64":
    case "i32":
      (data as Float64Array).set(values);
      return;
    case "f16":
      (data as Uint16Array).set(Uint16Array.from(values, encodeFloat16));
      return;
    case "i64":
      (data as BigInt64Array).set(
        BigInt64Array.from(Array.from(values, (value) => BigInt(Math.trunc(value)))),
      );
      return;
    case "bool":
      (data as Uint8Array).set(Uint8Array.from(values, (value) => (value === 0 ? 0 : 1)));
      return;
    default:
      type.dtype satisfies never;
  }
}
