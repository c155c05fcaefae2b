/** Multi-head attention and the transformer block over [batch, time, features]. */

import { UserError } from "../../base/errors.ts";
import {
  add,
  constant,
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
import { applyDropout, gelu, layerNorm, linear } from "./basic.ts";

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
  const { heads, causal = false, dropout = 0 } = options;
  checkCounts("attention", { heads });
  checkShare("attention", "dropout", dropout);
  return defineLayer("attention", options, (x, _builder, name) => {
    const [batch, time, width] = x.shape;
    if (x.shape.length !== 3 || batch === undefined || time === undefined || width === undefined) {
      throw new UserError(`attention "${name}" expects [batch, time, features], got [${x.shape}]`);
    }
    if (width % heads !== 0)
      throw new UserError(`attention "${name}": ${heads} heads do not divide the width ${width}`);
    const project = (part: string, input: Tensor): Tensor =>
      linear({ units: width, name: `${name}.${part}` })(input);
    const split = (part: string): Tensor =>
      transpose(reshape(project(part, x), [batch, time, heads, width / heads]), [0, 2, 1, 3]);
    const [query, key, value] = [split("query"), split("key"), split("value")];
    const scale = constant(x.scope, x.dtype, [], 1 / Math.sqrt(width / heads));
    const scores = matmul(mul(query, scale), key, { transposeB: true });
    const weights = applyDropout(softmax(causal ? maskFuture(scores) : scores), name, dropout);
    const joined = reshape(transpose(matmul(weights, value), [0, 2, 1, 3]), [batch, time, width]);
    return project("output", joined);
  });
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
  return defineLayer("transformerBlock", options, (x, _builder, name) => {
    const width = x.shape.at(-1) as number;
    const attend = attention({ ...options, name: `${name}.attention` });
    const attended = add(
      x,
      applyDropout(attend(layerNorm({ name: `${name}.norm1` })(x)), `${name}.drop1`, dropout),
    );
    const hidden = gelu()(
      linear({ units: expansion * width, name: `${name}.up` })(
        layerNorm({ name: `${name}.norm2` })(attended),
      ),
    );
    const down = linear({ units: width, name: `${name}.down` })(hidden);
    return add(attended, applyDropout(down, `${name}.drop2`, dropout));
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
    if (time > options.length)
      throw new UserError(
        `positionEmbedding "${name}" has ${options.length} positions, the sequence ${time}`,
      );
    const table = builder.parameter(`${name}.table`, [options.length, width], gaussian(0.02));
    return add(x, sliceDim(table, 0, 0, time));
  });
}
