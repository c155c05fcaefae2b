/**
 * The operations of the graph, as data. Every kind has exactly one entry in the operation table (`op-table.ts`: shape rule,
 * iteration space, derivative, reference evaluation) and one in the ONNX lowering table; a missing entry does not compile.
 *
 * All dims are non-negative here (builders normalise negative ones). Operands are listed as `name: shape`.
 */

import type { DType } from "./dtype.ts";
import type { Shape } from "./shape.ts";

/** x: floats of any shape → same shape (`not`: bool; `neg`, `abs`, `sign`, `square` and `relu` also whole numbers). `gelu` is exact (erf), `gelu-tanh` the tanh approximation. */
export type UnaryKind =
  | "neg"
  | "abs"
  | "sign"
  | "exp"
  | "log"
  | "sqrt"
  | "reciprocal"
  | "square"
  | "sin"
  | "cos"
  | "erf"
  | "sigmoid"
  | "tanh"
  | "relu"
  | "gelu"
  | "gelu-tanh"
  | "silu"
  | "softplus"
  | "not";

/** a, b: shapes that broadcast → the broadcast shape, same dtype as the operands; whole numbers divide toward zero. */
export type BinaryKind = "add" | "sub" | "mul" | "div" | "pow" | "max" | "min" | "and" | "or";

/** a, b: shapes that broadcast → bool of the broadcast shape. */
export type CompareKind = "equal" | "less" | "less-equal" | "greater" | "greater-equal";

/** x → the dims `dims` reduced; kept as size 1 when `keep`; `mean` of floats only. Ties of max share the gradient equally. */
export type ReduceKind = "sum" | "mean" | "reduce-max";

/** Sizes of a 2-D window; NCHW tensors, `pad` is [top, left, bottom, right]. */
export interface Window {
  readonly stride: readonly [number, number];
  readonly pad: readonly [number, number, number, number];
  readonly dilation: readonly [number, number];
}

export type Op =
  | { [K in UnaryKind | BinaryKind | CompareKind]: { readonly kind: K } }[
      | UnaryKind
      | BinaryKind
      | CompareKind]
  | {
      [K in ReduceKind]: { readonly kind: K; readonly dims: readonly number[]; readonly keep: boolean };
    }[ReduceKind]
  /** condition: bool, a, b: broadcast together. */
  | { readonly kind: "where" }
  /** x → `dtype`; floats to integers truncate toward zero, anything to bool is `!= 0`. */
  | { readonly kind: "cast"; readonly dtype: DType }
  /** No operands; every element is `value`. */
  | { readonly kind: "constant"; readonly dtype: DType; readonly shape: Shape; readonly value: number }
  /** No operands; element index along `dim`, as `dtype` (i32, i64 or float). */
  | { readonly kind: "iota"; readonly dtype: DType; readonly shape: Shape; readonly dim: number }
  /** x: shape that broadcasts to `shape`. */
  | { readonly kind: "broadcast"; readonly shape: Shape }
  | { readonly kind: "reshape"; readonly shape: Shape }
  /** Result dim i is operand dim `permutation[i]`. */
  | { readonly kind: "transpose"; readonly permutation: readonly number[] }
  /** Elements start, start+step, ... below stop along every dim (one entry per dim, step >= 1). */
  | {
      readonly kind: "slice";
      readonly start: readonly number[];
      readonly stop: readonly number[];
      readonly step: readonly number[];
    }
  | { readonly kind: "concat"; readonly dim: number }
  /** One result per entry of `sizes`, cut along `dim`. */
  | { readonly kind: "split"; readonly dim: number; readonly sizes: readonly number[] }
  /** `before` and `after` elements of `value` added at each dim. */
  | {
      readonly kind: "pad";
      readonly before: readonly number[];
      readonly after: readonly number[];
      readonly value: number;
    }
  /** a: [..., m, k] (or [..., k, m] when `transposeA`), b: [..., k, n] (or [..., n, k]); leading dims broadcast → [..., m, n]. */
  | { readonly kind: "matmul"; readonly transposeA: boolean; readonly transposeB: boolean }
  /** table: [V, ...rest], indices: i32 [...] in 0..V-1 → [...indices, ...rest]. */
  | { readonly kind: "gather" }
  /** indices: i32 [...], updates: [...indices, ...rest] → [size, ...rest]: zeros with every update added at its row. */
  | { readonly kind: "scatter-add"; readonly size: number }
  /** x: [..., n], indices: i32 [...] → [...]: one element of the last dim each; an index outside 0..n-1 gives 0. */
  | { readonly kind: "take" }
  /** indices: i32 [...], updates: [...] → [..., size]: zeros but `updates` at the index; an index outside gives no entry. */
  | { readonly kind: "take-grad"; readonly size: number }
  /** Along the last dim. */
  | { readonly kind: "softmax" }
  | { readonly kind: "log-softmax" }
  /** y = softmax(x), dy → dx. */
  | { readonly kind: "softmax-grad" }
  /**
   * logits: [..., V], targets: i32 [...] → loss [...] (0 where the target equals `ignore`), probabilities [..., V]. In float32 a
   * probability below 1e-38 counts as 1e-38 in the loss.
   */
  | { readonly kind: "cross-entropy"; readonly ignore: number }
  /**
   * probabilities [..., V], targets: i32 [...], dTarget: [...], dLogSum: [...] → dLogits [..., V]: with the loss as
   * log Σ exp(logits) - logits[target], each of the two has a gradient of its own. With `first`, the V classes are those from `first`
   * on, and targets may be others; else they may not.
   */
  | { readonly kind: "cross-entropy-grad"; readonly ignore: number; readonly first?: number }
  /** x: [..., n], scale: [n], shift: [n] → y, mean [..., 1], inverse standard deviation [..., 1]. */
  | { readonly kind: "layer-norm"; readonly epsilon: number }
  /** x, scale, mean, inverse standard deviation, dy → dx. */
  | { readonly kind: "layer-norm-grad" }
  /** x: [N, C, ...], scale: [C], shift: [C] → y, batch mean [C], batch variance (biased) [C]. */
  | { readonly kind: "batch-norm"; readonly epsilon: number }
  /** x, scale, mean [C], variance [C], dy → dx, dScale, dShift. */
  | { readonly kind: "batch-norm-grad"; readonly epsilon: number }
  /** x: [N, C, H, W], w: [O, C/groups, KH, KW] → [N, O, H', W']. */
  | { readonly kind: "conv2d"; readonly window: Window; readonly groups: number }
  /** dy: [N, O, H', W'], w → dx [N, C, height, width]. */
  | {
      readonly kind: "conv2d-input-grad";
      readonly window: Window;
      readonly groups: number;
      readonly height: number;
      readonly width: number;
    }
  /** x, dy → dw [O, C/groups, kernel[0], kernel[1]]. */
  | {
      readonly kind: "conv2d-weight-grad";
      readonly window: Window;
      readonly groups: number;
      readonly kernel: readonly [number, number];
    }
  /** x: [N, C, H, W] → [N, C, H', W']; padding counts as minus infinity. */
  | { readonly kind: "max-pool"; readonly window: Window; readonly kernel: readonly [number, number] }
  /** x, y, dy → dx; the first maximum of a window in row-major order takes its gradient. */
  | { readonly kind: "max-pool-grad"; readonly window: Window; readonly kernel: readonly [number, number] }
  /** x: [N, C, H, W] → [N, C, H', W']; padding is not counted in the average. */
  | { readonly kind: "avg-pool"; readonly window: Window; readonly kernel: readonly [number, number] }
  /** dy → dx [N, C, height, width]. */
  | {
      readonly kind: "avg-pool-grad";
      readonly window: Window;
      readonly kernel: readonly [number, number];
      readonly height: number;
      readonly width: number;
    }
  /**
   * key, base: i32 [] → mask of `shape`: 1/keep with probability `keep`, else 0. Element i is a function of the key and of
   * its global index base + sum(i[dim] · strides[dim]) only, so any slice of a tensor gets the mask of the whole one.
   */
  | {
      readonly kind: "dropout-mask";
      readonly dtype: DType;
      readonly shape: Shape;
      readonly strides: readonly number[];
      readonly keep: number;
    }
  /** One operand for each rank of a mesh, all of one type → for each rank the sum, or the largest, in the order of the operands. */
  | { readonly kind: "all-reduce"; readonly reduce: "sum" | "max" }
  /** One operand [n, ...rest] for each rank → for each rank all of them under each other along dim 0. */
  | { readonly kind: "all-gather" }
  /** One operand for each rank, all of one type; dim 0 has `sizes` rows for each rank → each rank's rows of the sum. */
  | { readonly kind: "reduce-scatter"; readonly sizes: readonly number[] }
  /**
   * An LSTM over a chunk of time (Hochreiter & Schmidhuber 1997, with forget gates; PyTorch's weight layout). x: [T, B, I],
   * w: [4H, I], u: [4H, H], b: [4H] with the gates in blocks i, f, g, o; h0, c0: [B, H].
   *
   *     z = x·wᵀ + h'·uᵀ + b     i, f, o = σ(z), g = tanh(z)     c = f∘c' + i∘g     h = o∘tanh(c)
   *
   * → h [T, B, H], last h [B, H], last c [B, H], and what the derivative needs, each [T, B, H]: h before each step, f, and the
   * local derivatives Mi = g∘i(1-i), Mf = c'∘f(1-f), Mg = i(1-g²), Mo = tanh(c)∘o(1-o), K = o(1-tanh²(c)).
   */
  | { readonly kind: "lstm" }
  /** u, f, Mi, Mf, Mg, Mo, K, dh [T, B, H], d(last h) [B, H], d(last c) [B, H] → dz [T, B, 4H], dh0, dc0. */
  | { readonly kind: "lstm-grad" }
  /**
   * A GRU over a chunk of time (Cho et al. 2014, in cuDNN's and PyTorch's variant and weight layout). x: [T, B, I], w: [3H, I],
   * u: [3H, H], b: [3H], p: [3H] with the gates in blocks r, a, n; h0: [B, H].
   *
   *     r, a = σ(x·wᵀ + b + h'·uᵀ + p)     q = h'·u_nᵀ + p_n     n = tanh(x·w_nᵀ + b_n + r∘q)     h = (1-a)∘n + a∘h'
   *
   * → h [T, B, H], last h [B, H], and what the derivative needs, each [T, B, H]: h before each step, r, a, and the local
   * derivatives Mr = q∘r(1-r), Ma = (h'-n)∘a(1-a), Mn = (1-a)(1-n²).
   */
  | { readonly kind: "gru" }
  /** u, r, a, Mr, Ma, Mn, dh [T, B, H], d(last h) [B, H] → dz [T, B, 3H], dq [T, B, 3H] (gradient of h'·uᵀ + p), dh0. */
  | { readonly kind: "gru-grad" }
  /**
   * One time step of `lstm` for h of its H units, all gates of each. zx: [B, 4h] (x·wᵀ + b of the step), u: [4h, H], h': [B, H] (all
   * units, one step before), c': [B, h] → h, c, f, Mi, Mf, Mg, Mo, K, each [B, h].
   */
  | { readonly kind: "lstm-step" }
  /** f, Mi, Mf, Mg, Mo, K, dh, dc (from the step after), each [B, h] → dz [B, 4h], dc' [B, h]; of h', the gradient is dz·u. */
  | { readonly kind: "lstm-step-grad" }
  /**
   * One time step of `gru` for h of its H units, all gates of each. zx: [B, 3h] (x·wᵀ + b of the step), u: [3h, H], p: [3h],
   * h': [B, H] (all units, one step before), h' of the h units: [B, h] → h, r, a, Mr, Ma, Mn, each [B, h].
   */
  | { readonly kind: "gru-step" }
  /**
   * r, a, Mr, Ma, Mn, dh, each [B, h] → dz [B, 3h], dq [B, 3h] (gradient of h'·uᵀ + p), a∘dh [B, h]; of h', the gradient is dq·u
   * and, for the h units, a∘dh.
   */
  | { readonly kind: "gru-step-grad" };

export type OpKind = Op["kind"];

/** The member of `Op` whose kind is `K`. */
export type OpOf<K extends OpKind> = { readonly [O in Op as O["kind"]]: O }[K];
