/** Multi-head attention and the transformer block over [batch, time, features]. */

import { UserError } from "../../base/errors.ts";
import {
  add,
  constant,
  gather,
  gelu,
  greater,
  iota,
  matmul,
  mul,
  reshape,
  sliceDim,
  softmax,
  transpose,
  where,
} from "../../graph/functions.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { gaussian } from "../initializer.ts";
import { checkCounts, checkShare, defineLayer, type Layer, type LayerOptions } from "../layer.ts";
import { applyDropout, applyLayerNorm, applyLinear } from "./basic.ts";

export interface AttentionOptions extends LayerOptions {
  readonly heads: number;
  /** Whether a position sees only itself and earlier ones; default false. */
  readonly causal?: boolean;
  /** Share of the attention weights that is zeroed in training; default 0. */
  readonly dropout?: number;
}

/**
 * Self-attention (Vaswani et al. 2017, section 3.2): [batch, time, width] → the same. Parameters of the linear layers `query`, `key`,
 * `value` and `output`, each [width, width] with a bias.
 */
export function attention(options: AttentionOptions): Layer {
  checkAttention("attention", options);
  return defineLayer("attention", options, (x, _builder, name) => applyAttention(x, name, options));
}

function checkAttention(kind: string, { heads, dropout = 0 }: AttentionOptions): void {
  checkCounts(kind, { heads });
  checkShare(kind, "dropout", dropout);
}

function applyAttention(x: Tensor, name: string, options: AttentionOptions): Tensor {
  const { heads, causal = false, dropout = 0 } = options;
  const [batch, time, width] = x.shape;
  if (x.shape.length !== 3 || batch === undefined || time === undefined || width === undefined) {
    throw new UserError(`attention "${name}" expects [batch, time, features], got [${x.shape}]`);
  }
  if (width % heads !== 0)
    throw new UserError(
      `attention "${name}": ${heads} heads do not divide the width ${width} of [${x.shape}]`,
    );
  const split = (part: string): Tensor =>
    transpose(
      reshape(applyLinear(x, `${name}.${part}`, width), [batch, time, heads, width / heads]),
      [0, 2, 1, 3],
    );
  const [query, key, value] = [split("query"), split("key"), split("value")];
  const scale = constant(x.scope, x.dtype, [], 1 / Math.sqrt(width / heads));
  const scores = matmul(mul(query, scale), key, { transposeB: true });
  const weights = applyDropout(softmax(causal ? maskFuture(scores) : scores), name, dropout);
  const joined = reshape(transpose(matmul(weights, value), [0, 2, 1, 3]), [batch, time, width]);
  return applyLinear(joined, `${name}.output`, width);
}

/** Scores [..., query, key] with minus a large number where the key lies after the query. */
function maskFuture(scores: Tensor): Tensor {
  const [queries, keys] = scores.shape.slice(-2) as [number, number];
  const shape = [queries, keys];
  const isFuture = greater(iota(scores.scope, "i32", shape, 1), iota(scores.scope, "i32", shape, 0));
  return where(isFuture, constant(scores.scope, scores.dtype, [], -1e9), scores);
}

export interface TransformerOptions extends AttentionOptions {
  /** Width of the hidden layer as a multiple of the block's width; default 4. */
  readonly expansion?: number;
}

/** A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)) with a GELU (Radford et al. 2019). */
export function transformerBlock(options: TransformerOptions): Layer {
  const { expansion = 4, dropout = 0 } = options;
  checkAttention("transformerBlock", options);
  return defineLayer("transformerBlock", options, (x, _builder, name) => {
    const width = x.shape.at(-1) as number;
    const attended = applyAttention(applyLayerNorm(x, `${name}.norm1`), `${name}.attention`, options);
    const middle = add(x, applyDropout(attended, `${name}.drop1`, dropout));
    const up = applyLinear(applyLayerNorm(middle, `${name}.norm2`), `${name}.up`, expansion * width);
    const down = applyLinear(gelu(up), `${name}.down`, width);
    return add(middle, applyDropout(down, `${name}.drop2`, dropout));
  });
}

/** Adds a trained vector to each position of [batch, time, width]. Parameter `table` [length, width]. */
export function positionEmbedding(options: LayerOptions & { readonly length: number }): Layer {
  checkCounts("positionEmbedding", { length: options.length });
  return defineLayer("positionEmbedding", options, (x, builder, name) => {
    const [, time, width] = x.shape;
    if (x.shape.length !== 3 || time === undefined || width === undefined) {
      throw new UserError(`positionEmbedding "${name}" expects [batch, time, features], got [${x.shape}]`);
    }
    const isCut = builder.isChunked(x, 1);
    const length = isCut ? (builder.options.shape.total.time ?? time) : time;
    if (length > options.length)
      throw new UserError(
        `positionEmbedding "${name}" has ${options.length} positions, the sequence ${length}`,
      );
    const table = builder.parameter(`${name}.table`, [options.length, width], gaussian(0.02));
    if (!isCut) return add(x, sliceDim(table, 0, 0, time));
    return add(x, gather(table, add(iota(builder, "i32", [time], 0), builder.offset("time"))));
  });
}
