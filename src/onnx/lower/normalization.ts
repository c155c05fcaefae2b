/**
 * Normalisations. Softmax and layer norm have operators; their derivatives and batch norm with the statistics of the batch are
 * written out.
 */

import type { Emitter } from "../emitter.ts";
import { type Lowering, operand, operands, operandType, resultType, type Site } from "../site.ts";

type NormalizationKind =
  | "softmax"
  | "softmax-grad"
  | "log-softmax"
  | "layer-norm"
  | "layer-norm-grad"
  | "batch-norm"
  | "batch-norm-grad";

type Five = readonly [string, string, string, string, string];

/** Short names for the arithmetic of this file. */
function arithmetic(emitter: Emitter) {
  return {
    add: (a: string, b: string) => emitter.emit("Add", [a, b]),
    sub: (a: string, b: string) => emitter.emit("Sub", [a, b]),
    mul: (a: string, b: string) => emitter.emit("Mul", [a, b]),
    mean: (x: string, dims: readonly number[]) =>
      emitter.emit("ReduceMean", [x, emitter.ints(dims)], { keepdims: 1 }),
    sum: (x: string, dims: readonly number[]) =>
      emitter.emit("ReduceSum", [x, emitter.ints(dims)], { keepdims: 1 }),
  };
}

/** dx = y·dy - y·sum(y·dy). */
function softmaxGrad(site: Site): readonly string[] {
  const { mul, sub, sum } = arithmetic(site.emitter);
  const [y, dy] = [operand(site, 0), operand(site, 1)];
  const along = mul(y, dy);
  return [sub(along, mul(y, sum(along, [operandType(site, 0).shape.length - 1])))];
}

/** dx = r·(g - mean(g) - x̂·mean(g·x̂)) with g = dy·scale, x̂ = (x - mean)·r. */
function layerNormGrad(site: Site): readonly string[] {
  const { mul, sub, mean } = arithmetic(site.emitter);
  const [x, scale, center, r, dy] = operands(site) as Five;
  const last = [operandType(site, 0).shape.length - 1];
  const normal = mul(sub(x, center), r);
  const g = mul(dy, scale);
  return [mul(sub(sub(g, mean(g, last)), mul(normal, mean(mul(g, normal), last))), r)];
}

/** All dims but the channels, and the shape in which a vector of channels broadcasts. */
function channels(site: Site): { readonly dims: readonly number[]; readonly shape: readonly number[] } {
  const { shape } = operandType(site, 0);
  return {
    dims: shape.flatMap((_, dim) => (dim === 1 ? [] : [dim])),
    shape: shape.slice(1).map((size, dim) => (dim === 0 ? size : 1)),
  };
}

/** 1 / √(variance + epsilon). */
function inverseDeviation(site: Site, variance: string, epsilon: number): string {
  const { emitter } = site;
  const { dtype } = resultType(site);
  const shifted = emitter.emit("Add", [variance, emitter.scalar(dtype, epsilon)]);
  return emitter.emit("Reciprocal", [emitter.emit("Sqrt", [shifted])]);
}

/** y, mean and variance over `dims` by hand: for f64, as the operators keep statistics or epsilon in f32. */
function normalized(
  site: Site,
  dims: readonly number[],
  shape: readonly number[],
  epsilon: number,
): { readonly y: string; readonly center: string; readonly variance: string; readonly r: string } {
  const { emitter } = site;
  const { add, sub, mul, mean } = arithmetic(emitter);
  const [x, scale, shift] = operands(site) as readonly [string, string, string];
  const center = mean(x, dims);
  const centered = sub(x, center);
  const variance = mean(mul(centered, centered), dims);
  const r = inverseDeviation(site, variance, epsilon);
  const y = add(mul(mul(centered, r), emitter.reshape(scale, shape)), emitter.reshape(shift, shape));
  return { y, center, variance, r };
}

const layerNorm: Lowering<"layer-norm"> = (op, site) => {
  const { dtype, shape } = resultType(site);
  if (dtype === "f32") {
    const attributes = { axis: -1, epsilon: { float: op.epsilon } };
    return site.emitter.emitMany("LayerNormalization", operands(site), attributes, site.used);
  }
  const { y, center, r } = normalized(site, [shape.length - 1], shape.slice(-1), op.epsilon);
  return [y, center, r];
};

/**
 * In training mode with a momentum of 0 the running statistics that the operator returns are those of the batch. It writes them over
 * the old ones, so these must be two tensors and no constants.
 */
const batchNorm: Lowering<"batch-norm"> = (op, site) => {
  const { emitter } = site;
  const vector = resultType(site, 1);
  if (vector.dtype !== "f32") {
    const { dims, shape } = channels(site);
    const { y, center, variance } = normalized(site, dims, shape, op.epsilon);
    return [y, emitter.reshape(center, vector.shape), emitter.reshape(variance, vector.shape)];
  }
  const [x, scale, shift] = operands(site) as readonly [string, string, string];
  const old = [scale, shift].map((name) => emitter.emit("Sub", [name, name]));
  const attributes = { epsilon: { float: op.epsilon }, momentum: { float: 0 }, training_mode: 1 };
  return emitter.emitMany(
    "BatchNormalization",
    [x, scale, shift, ...old],
    attributes,
    site.used.map(() => true),
  );
};

/** dScale = sum(dy·x̂), dShift = sum(dy), dx = scale·r·(dy - dShift/n - x̂·dScale/n). */
const batchNormGrad: Lowering<"batch-norm-grad"> = (op, site) => {
  const { emitter } = site;
  const { sub, mul, sum } = arithmetic(emitter);
  const [x, scale, center, variance, dy] = operands(site) as Five;
  const { dims, shape } = channels(site);
  const type = operandType(site, 0);
  const count = dims.reduce((product, dim) => product * (type.shape[dim] as number), 1);
  const share = emitter.scalar(type.dtype, 1 / count);
  const r = inverseDeviation(site, emitter.reshape(variance, shape), op.epsilon);
  const normal = mul(sub(x, emitter.reshape(center, shape)), r);
  const [along, total] = [sum(mul(dy, normal), dims), sum(dy, dims)];
  const rest = sub(sub(dy, mul(total, share)), mul(normal, mul(along, share)));
  const dx = mul(rest, mul(emitter.reshape(scale, shape), r));
  const vector = resultType(site, 1).shape;
  return [dx, emitter.reshape(along, vector), emitter.reshape(total, vector)];
};

export const normalization: { readonly [K in NormalizationKind]: Lowering<K> } = {
  softmax: (_op, site) => [site.emitter.emit("Softmax", [operand(site, 0)], { axis: -1 })],
  "softmax-grad": (_op, site) => softmaxGrad(site),
  "log-softmax": (_op, site) => [site.emitter.emit("LogSoftmax", [operand(site, 0)], { axis: -1 })],
  "layer-norm": layerNorm,
  "layer-norm-grad": (_op, site) => layerNormGrad(site),
  "batch-norm": batchNorm,
  "batch-norm-grad": batchNormGrad,
};
