/**
 * The numbers of normalisation, in float64 and in plain loops. Layer norm and batch norm are the same computation over
 * different sets of elements: a row of the tensor, or a channel of all samples.
 */

import type { Dense } from "../op-rules.ts";
import { type Shape, sizeOf } from "../shape.ts";

/** Applies `combine` to the rows (last dim) of tensors of equal shape. */
export function mapRows(
  inputs: readonly Dense[],
  combine: (rows: readonly Float64Array[]) => Float64Array,
): Dense {
  const { shape } = inputs[0] as Dense;
  const data = new Float64Array(sizeOf(shape));
  const length = shape.at(-1) as number;
  for (let start = 0; start < data.length; start += length) {
    data.set(combine(inputs.map((input) => input.data.subarray(start, start + length))), start);
  }
  return { shape, data };
}

export function softmaxOf(rows: readonly Float64Array[]): Float64Array {
  const [x] = rows as [Float64Array];
  const most = maxOf(x);
  const powers = x.map((value) => Math.exp(value - most));
  const total = sumOf(powers);
  return powers.map((power) => power / total);
}

export function logSoftmaxOf(rows: readonly Float64Array[]): Float64Array {
  const [x] = rows as [Float64Array];
  const most = maxOf(x);
  const logTotal = Math.log(sumOf(x.map((value) => Math.exp(value - most))));
  return x.map((value) => value - most - logTotal);
}

export function softmaxGradientOf(rows: readonly Float64Array[]): Float64Array {
  const [y, dy] = rows as [Float64Array, Float64Array];
  const dotted = dot(y, dy);
  return y.map((value, i) => value * ((dy[i] as number) - dotted));
}

/** What is normalised together: for each set the offsets of its elements; and which scale and shift an element has. */
export interface Sets {
  readonly offsets: readonly Int32Array[];
  scaleOf(set: number, position: number): number;
}

/** One set for each row of the last dim; each position in it has its own scale. */
export function rowsOf(shape: Shape): Sets {
  const rows = sizeOf(shape.slice(0, -1));
  const length = shape.at(-1) as number;
  return {
    offsets: Array.from({ length: rows }, (_, row) =>
      Int32Array.from({ length }, (_, i) => row * length + i),
    ),
    scaleOf: (_set, position) => position,
  };
}

/** One set, with one scale, for each channel of [N, C, ...]. */
export function channelsOf(shape: Shape): Sets {
  const [samples, channels] = shape as readonly [number, number];
  const area = sizeOf(shape.slice(2));
  const offset = (channel: number, i: number) =>
    (Math.floor(i / area) * channels + channel) * area + (i % area);
  return {
    offsets: Array.from({ length: channels }, (_, channel) =>
      Int32Array.from({ length: samples * area }, (_, i) => offset(channel, i)),
    ),
    scaleOf: (set) => set,
  };
}

/** y = (x - mean)/√(variance + epsilon)·scale + shift, with the mean and the biased variance of every set. */
export function normalize(
  x: Dense,
  sets: Sets,
  scale: Dense,
  shift: Dense,
  epsilon: number,
): { y: Float64Array; means: Float64Array; variances: Float64Array } {
  const y = new Float64Array(x.data.length);
  const means = new Float64Array(sets.offsets.length);
  const variances = new Float64Array(sets.offsets.length);
  sets.offsets.forEach((offsets, set) => {
    const values = pick(x, offsets);
    const mean = sumOf(values) / values.length;
    const centered = values.map((value) => value - mean);
    const variance = dot(centered, centered) / values.length;
    const r = 1 / Math.sqrt(variance + epsilon);
    offsets.forEach((offset, position) => {
      const which = sets.scaleOf(set, position);
      y[offset] =
        (centered[position] as number) * r * (scale.data[which] as number) + (shift.data[which] as number);
    });
    means[set] = mean;
    variances[set] = variance;
  });
  return { y, means, variances };
}

/**
 * Gradient of `normalize`: dx, and for every set the sums of dy·x̂ and of dy. `deviations` are inverse standard deviations.
 */
export function normalizeGradient(
  x: Dense,
  sets: Sets,
  scale: Dense,
  means: Float64Array,
  deviations: Float64Array,
  dy: Dense,
): { dx: Float64Array; alongNormal: Float64Array; total: Float64Array } {
  const dx = new Float64Array(x.data.length);
  const alongNormal = new Float64Array(sets.offsets.length);
  const total = new Float64Array(sets.offsets.length);
  sets.offsets.forEach((offsets, set) => {
    const [mean, r] = [means[set] as number, deviations[set] as number];
    const normal = pick(x, offsets).map((value) => (value - mean) * r);
    const gradient = pick(dy, offsets);
    const scaled = gradient.map((value, i) => value * (scale.data[sets.scaleOf(set, i)] as number));
    const meanScaled = sumOf(scaled) / scaled.length;
    const meanAlong = dot(scaled, normal) / scaled.length;
    offsets.forEach((offset, i) => {
      dx[offset] = r * ((scaled[i] as number) - meanScaled - (normal[i] as number) * meanAlong);
    });
    alongNormal[set] = dot(gradient, normal);
    total[set] = sumOf(gradient);
  });
  return { dx, alongNormal, total };
}

function pick(x: Dense, offsets: Int32Array): Float64Array {
  return Float64Array.from(offsets, (offset) => x.data[offset] as number);
}

function sumOf(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
}

function maxOf(values: Float64Array): number {
  return values.reduce((max, value) => Math.max(max, value), Number.NEGATIVE_INFINITY);
}
