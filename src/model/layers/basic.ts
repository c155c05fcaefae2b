/** Layers that act on each position by itself, and ways to combine layers. */

import { UserError } from "../../base/errors.ts";
import {
  add,
  batchNorm as batchNormalize,
  constant,
  gather,
  gelu as geluOf,
  layerNorm as layerNormalize,
  matmul,
  mul,
  reciprocal,
  relu as reluOf,
  reshape,
  sigmoid as sigmoidOf,
  sqrt,
  sub,
  tanh as tanhOf,
} from "../../graph/functions.ts";
import { sameShape, showType, sizeOf } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { gaussian, ones, uniformWithin, zeros } from "../initializer.ts";
import { checkCounts, checkShare, defineLayer, type Layer, type LayerOptions } from "../layer.ts";
import { type ModelBuilder, modelOf } from "../model-builder.ts";

export interface EmbeddingOptions extends LayerOptions {
  /** Number of rows. */
  readonly vocabulary: number;
  /** Width of a row. */
  readonly dim: number;
}

/** An embedding that can also be used as a decoder with the same parameter. */
export interface Embedding extends Layer {
  /** Scores of every row for each position: [..., dim] → [..., vocabulary], with the embedding's own table (tied weights). */
  readonly decode: Layer;
}

/** Rows of a table: i32 [...] → [..., dim]. Parameter `table` [vocabulary, dim]. */
export function embedding(options: EmbeddingOptions): Embedding {
  const { vocabulary, dim } = options;
  checkCounts("embedding", { vocabulary, dim });
  const tableOf = (builder: ModelBuilder, name: string): Tensor =>
    builder.parameter(`${name}.table`, [vocabulary, dim], gaussian(1 / Math.sqrt(dim)));
  const lookup = defineLayer("embedding", options, (x, builder, name) => {
    if (x.dtype !== "i32")
      throw new UserError(`embedding "${name}" expects whole numbers (i32), got ${showType(x)}`);
    return gather(tableOf(builder, name), x);
  });
  const decode = defineLayer("decode", {}, (x, builder) => {
    const name = builder.nameOf(lookup, "embedding", options);
    if (x.shape.length < 2 || x.shape.at(-1) !== dim)
      throw new UserError(
        `the decoder of embedding "${name}" with a table of [${vocabulary},${dim}] expects [..., ${dim}], got [${x.shape}]`,
      );
    return matmul(x, tableOf(builder, name), { transposeB: true });
  });
  return Object.assign(lookup, { decode });
}

export interface LinearOptions extends LayerOptions {
  readonly units: number;
  /** Whether a bias is added; default true. */
  readonly bias?: boolean;
}

/** x·W + b: [..., in] → [..., units]. Parameters `weight` [in, units], `bias` [units]. */
export function linear(options: LinearOptions): Layer {
  const { units, bias } = options;
  checkCounts("linear", { units });
  return defineLayer("linear", options, (x, _builder, name) => applyLinear(x, name, units, bias));
}

/** A linear layer with parameters of the given name, for use inside other layers. */
export function applyLinear(x: Tensor, name: string, units: number, bias = true): Tensor {
  const builder = modelOf(x);
  const width = x.shape.at(-1);
  if (width === undefined || x.shape.length < 2)
    throw new UserError(`linear "${name}" expects [samples, ..., features], got [${x.shape}]`);
  const bound = uniformWithin(1 / Math.sqrt(width));
  const y = matmul(x, builder.parameter(`${name}.weight`, [width, units], bound));
  return bias ? add(y, builder.parameter(`${name}.bias`, [units], zeros, "bias")) : y;
}

/** Zeroes a share `rate` of the elements in training and scales the others by 1/(1-rate) (Srivastava et al. 2014). */
export function dropout(options: LayerOptions & { readonly rate: number }): Layer {
  checkShare("dropout", "rate", options.rate);
  return defineLayer("dropout", options, (x, _builder, name) => applyDropout(x, name, options.rate));
}

/** Dropout with a key of its own, for use inside other layers. */
export function applyDropout(x: Tensor, name: string, rate: number): Tensor {
  const builder = modelOf(x);
  if (rate === 0 || !builder.options.training) return x;
  return mul(x, builder.dropoutMask(x, name, 1 - rate));
}

/** Normalises the last dim (Ba et al. 2016). Parameters `scale` and `shift` of its width. */
export function layerNorm(options: LayerOptions & { readonly epsilon?: number } = {}): Layer {
  return defineLayer("layerNorm", options, (x, _builder, name) => applyLayerNorm(x, name, options.epsilon));
}

/** A layer norm with parameters of the given name, for use inside other layers. */
export function applyLayerNorm(x: Tensor, name: string, epsilon?: number): Tensor {
  const builder = modelOf(x);
  const width = x.shape.at(-1) ?? 1;
  const scale = builder.parameter(`${name}.scale`, [width], ones, "bias");
  return layerNormalize(x, scale, builder.parameter(`${name}.shift`, [width], zeros, "bias"), epsilon);
}

export interface BatchNormOptions extends LayerOptions {
  readonly epsilon?: number;
  /** Weight of the newest batch in the running statistics; default 0.1. */
  readonly momentum?: number;
}

/**
 * Normalises every channel of [N, C, ...] by the batch's statistics in training and by the running ones in evaluation (Ioffe & Szegedy
 * 2015). The statistics are those of one micro-batch: cutting the batch changes what is computed.
 */
export function batchNorm(options: BatchNormOptions = {}): Layer {
  const { epsilon = 1e-5, momentum = 0.1 } = options;
  return defineLayer("batchNorm", options, (x, builder, name) => {
    const channels = x.shape[1];
    if (channels === undefined)
      throw new UserError(`batchNorm "${name}" expects [samples, channels, ...], got [${x.shape}]`);
    const scale = builder.parameter(`${name}.scale`, [channels], ones, "bias");
    const shift = builder.parameter(`${name}.shift`, [channels], zeros, "bias");
    const mean = builder.state(`${name}.mean`, [channels], "statistic", zeros);
    const variance = builder.state(`${name}.variance`, [channels], "statistic", ones);
    if (!builder.options.training) return normalizeWith(x, scale, shift, mean, variance, epsilon);
    const [y, batchMean, batchVariance] = batchNormalize(x, scale, shift, epsilon) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const count = sizeOf(x.shape) / channels;
    const blend = (old: Tensor, now: Tensor, weight: number): Tensor =>
      add(
        mul(old, constant(x.scope, x.dtype, [], 1 - momentum)),
        mul(now, constant(x.scope, x.dtype, [], weight)),
      );
    builder.setState(`${name}.mean`, blend(mean, batchMean, momentum));
    builder.setState(
      `${name}.variance`,
      blend(variance, batchVariance, (momentum * count) / Math.max(1, count - 1)),
    );
    return y;
  });
}

function normalizeWith(
  x: Tensor,
  scale: Tensor,
  shift: Tensor,
  mean: Tensor,
  variance: Tensor,
  epsilon: number,
): Tensor {
  const perChannel = (t: Tensor): Tensor =>
    reshape(t, [t.shape[0] as number, ...x.shape.slice(2).map(() => 1)]);
  const factor = mul(scale, reciprocal(sqrt(add(variance, constant(x.scope, x.dtype, [], epsilon)))));
  return add(mul(sub(x, perChannel(mean)), perChannel(factor)), perChannel(shift));
}

/** A layer without parameters from a function. */
export function activation(kind: string, compute: (x: Tensor) => Tensor): (options?: LayerOptions) => Layer {
  return (options = {}) => defineLayer(kind, options, (x) => compute(x));
}

export const relu: (options?: LayerOptions) => Layer = activation("relu", reluOf);
export const gelu: (options?: LayerOptions) => Layer = activation("gelu", geluOf);
export const sigmoid: (options?: LayerOptions) => Layer = activation("sigmoid", sigmoidOf);
export const tanh: (options?: LayerOptions) => Layer = activation("tanh", tanhOf);
/** [N, ...] → [N, product of the rest]. */
export const flatten: (options?: LayerOptions) => Layer = activation("flatten", (x) =>
  reshape(x, [x.shape[0] as number, sizeOf(x.shape.slice(1))]),
);

/** Applies layers one after another. Layers without a group form groups of their own unless `group` is given. */
export function sequential(layers: readonly Layer[], options: LayerOptions = {}): Layer {
  if (layers.length === 0) throw new UserError("a sequential model needs at least one layer");
  const apply = (x: Tensor): Tensor => layers.reduce((value, layer) => layer(value), x);
  const { group } = options;
  const layer = group === undefined ? apply : (x: Tensor) => modelOf(x).within({ group }, () => apply(x));
  return Object.assign(layer, { layer: "sequential" });
}

/** x + layer(x) (He et al. 2016); the sum belongs to `group`, or to the group the layer is in. */
export function residual(inner: Layer, options: LayerOptions = {}): Layer {
  return defineLayer("residual", options, (x, _builder, name) => {
    const y = inner(x);
    if (!sameShape(x.shape, y.shape)) {
      throw new UserError(
        `residual "${name}" cannot add its input [${x.shape}] to the output [${y.shape}] of ${inner.layer}; make them equal`,
      );
    }
    return add(x, y);
  });
}
