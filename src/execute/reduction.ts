/** Element-wise combination of equally long stretches of numbers, in place, rounding after every step. */
import type { Numbers, Reduction } from "./transport.ts";

/** `into[at + i] = into[at + i] (+ or max) from[at + i]` for `count` elements. NaN wins a max. */
export function combine(reduction: Reduction, into: Numbers, from: Numbers, at: number, count: number): void {
  const end = at + count;
  if (reduction === "max") {
    for (let i = at; i < end; i++) into[i] = Math.max(into[i] as number, from[i] as number);
  } else if (into instanceof Float32Array && from instanceof Float32Array) {
    addFloat32(into, from, at, end);
  } else {
    for (let i = at; i < end; i++) into[i] = (into[i] as number) + (from[i] as number);
  }
}

/** Kept apart from the generic loop, so that it sees one type of array, and unrolled: twice as fast. */
function addFloat32(into: Float32Array, from: Float32Array, start: number, end: number): void {
  let i = start;
  for (; i + 4 <= end; i += 4) {
    into[i] = (into[i] as number) + (from[i] as number);
    into[i + 1] = (into[i + 1] as number) + (from[i + 1] as number);
    into[i + 2] = (into[i + 2] as number) + (from[i + 2] as number);
    into[i + 3] = (into[i + 3] as number) + (from[i + 3] as number);
  }
  for (; i < end; i++) into[i] = (into[i] as number) + (from[i] as number);
}
