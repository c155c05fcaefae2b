/**
 * Counter-based random numbers: every value is a pure function of a key and the global index of the element
 * it belongs to, so that any split of a tensor over devices draws the same numbers.
 *
 *     seed, step, operation ── deriveKey ──► key ─┐
 *                     global element index ───────┴─ hashIndex ──► 32 random bits
 *
 * The mixing is two multiply and xor-shift rounds with the constants of Chris Wellons' "lowbias32"
 * (https://nullprogram.com/blog/2018/07/31/): cheap, expressible in 32-bit tensor arithmetic, not cryptographic.
 */
import { invariant } from "./errors.ts";

const bits24 = 2 ** -24;
const bits32 = 2 ** -32;
/** Tags keep the number 1, the text "1" and a list boundary apart in `deriveKey`. */
const numberTag = 0x6e756d62;
const textTag = 0x74657874;

/** 32 random bits as an integer in [0, 2^32): a bijection of `index` (modulo 2^32) for every `key`. */
export function hashIndex(key: number, index: number): number {
  let x = (index + key) | 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  x ^= x >>> 16;
  return x >>> 0;
}

/**
 * A key in [0, 2^32) from whole numbers and texts, such as seed, step and operation name; order, type and
 * the boundaries between parts all matter.
 */
export function deriveKey(...parts: readonly (number | string)[]): number {
  let key = hashIndex(0, parts.length);
  for (const part of parts) key = typeof part === "number" ? mixNumber(key, part) : mixText(key, part);
  return key;
}

/** A number in [0, 1) with 24 random bits, exact in float32. */
export function uniform(key: number, index: number): number {
  return (hashIndex(key, index) >>> 8) * bits24;
}

/** A standard normal number (Box and Muller, 1958) from the counters 2·index and 2·index + 1; |value| < 5.8. */
export function normal(key: number, index: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform(key, 2 * index)));
  return radius * Math.cos(2 * Math.PI * uniform(key, 2 * index + 1));
}

/** A random order of 0 … count-1 (Fisher and Yates), the same for the same key and count. */
export function permutation(key: number, count: number): Int32Array {
  invariant(Number.isInteger(count) && count >= 0, `cannot permute ${count} elements`);
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(hashIndex(key, last) * bits32 * (last + 1));
    const moved = order[last] as number;
    order[last] = order[other] as number;
    order[other] = moved;
  }
  return order;
}

function mixNumber(key: number, value: number): number {
  invariant(Number.isSafeInteger(value), `a random key needs whole numbers, got ${value}`);
  const low = value | 0;
  const high = Math.floor(value / 2 ** 32) | 0;
  return hashIndex(hashIndex(hashIndex(key, numberTag), low), high);
}

function mixText(key: number, text: string): number {
  let mixed = hashIndex(hashIndex(key, textTag), text.length);
  for (let i = 0; i < text.length; i++) mixed = hashIndex(mixed, text.charCodeAt(i));
  return mixed;
}
