/**
 * How parameters start. The values of a parameter are a function of seed, parameter name and element index, so they are the
 * same under every layout.
 */

import { deriveKey, normal, uniform } from "../base/random.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";

export type Initializer =
  | { readonly kind: "constant"; readonly value: number }
  /** Uniform in [low, high). */
  | { readonly kind: "uniform"; readonly low: number; readonly high: number }
  | { readonly kind: "normal"; readonly mean: number; readonly deviation: number };

export const zeros: Initializer = { kind: "constant", value: 0 };
export const ones: Initializer = { kind: "constant", value: 1 };

/** Uniform in [-bound, bound). */
export function uniformWithin(bound: number): Initializer {
  return { kind: "uniform", low: -bound, high: bound };
}

export function gaussian(deviation: number): Initializer {
  return { kind: "normal", mean: 0, deviation };
}

/** Glorot & Bengio 2010, equation 16: uniform within sqrt(6 / (fanIn + fanOut)). */
export function xavier(fanIn: number, fanOut: number): Initializer {
  return uniformWithin(Math.sqrt(6 / (fanIn + fanOut)));
}

/** He et al. 2015, equation 10: normal with deviation sqrt(2 / fanIn), for layers followed by a ReLU. */
export function kaiming(fanIn: number): Initializer {
  return gaussian(Math.sqrt(2 / fanIn));
}

/** All elements of the parameter `name`, in C order. */
export function initialize(initializer: Initializer, name: string, shape: Shape, seed: number): Float64Array {
  const key = deriveKey(seed, "initialize", name);
  const values = new Float64Array(sizeOf(shape));
  switch (initializer.kind) {
    case "constant":
      return values.fill(initializer.value);
    case "uniform": {
      const { low, high } = initializer;
      return values.map((_, i) => low + (high - low) * uniform(key, i));
    }
    case "normal":
      return values.map((_, i) => initializer.mean + initializer.deviation * normal(key, i));
    default:
      return initializer satisfies never;
  }
}
