/**
 * Optimizers: how one parameter is updated from its gradient, as operations of the graph (phase U). Equations and defaults are those
 * of PyTorch's SGD, Adam and AdamW.
 */

import { UserError } from "../base/errors.ts";
import { add, div, mul, scalar, sqrt, square, sub } from "../graph/functions.ts";
import type { Tensor } from "../graph/tensor.ts";
import { checkRate, type Rate, rateAt } from "./rate.ts";

/** What an update may use: scalars by name (see `Optimizer.scalars`) and the parameter's own state by name. */
export interface Update {
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  /** The factor that the gradient is still to be multiplied by (clipping), so that it can be merged into another product. */
  readonly scale: Tensor;
  readonly states: { readonly [name: string]: Tensor };
  readonly scalars: { readonly [name: string]: Tensor };
}

export interface Optimizer {
  readonly kind: string;
  readonly rate: Rate;
  /** Gradients are scaled down so that their global norm is at most this. */
  readonly clipNorm?: number;
  /** Names of the tensors it keeps for each parameter; they start at zero. */
  readonly states: readonly string[];
  /** Values of the scalars of step `step`, counted from 0; always the same names. */
  scalars(step: number): { readonly [name: string]: number };
  /** The new parameter and states. */
  update(at: Update): { readonly parameter: Tensor; readonly states: { readonly [name: string]: Tensor } };
}

interface CommonOptions {
  readonly rate: Rate;
  readonly clipNorm?: number;
  readonly weightDecay?: number;
}

export interface SgdOptions extends CommonOptions {
  readonly momentum?: number;
  /** Looks ahead along the momentum (Nesterov 1983, as in Sutskever et al. 2013). */
  readonly nesterov?: boolean;
}

/** g += decay·p; v = momentum·v + g; p -= rate·v (or rate·(g + momentum·v) with Nesterov). */
export function sgd(options: SgdOptions): Optimizer {
  const { momentum = 0, nesterov = false, weightDecay = 0 } = options;
  check("sgd", options, { momentum, weightDecay });
  if (nesterov && momentum === 0) throw new UserError("sgd: nesterov needs a momentum above 0");
  return {
    kind: "sgd",
    ...common(options),
    states: momentum === 0 ? [] : ["momentum"],
    scalars: (step) => ({ rate: rateAt(options.rate, step) }),
    update: (at) => {
      const { parameter: p, states } = at;
      const rate = at.scalars["rate"] as Tensor;
      if (weightDecay === 0 && momentum === 0) {
        return { parameter: sub(p, mul(at.gradient, mul(rate, at.scale))), states: {} };
      }
      const g = decayed(at, weightDecay);
      const v = states["momentum"];
      if (v === undefined) return { parameter: sub(p, mul(g, rate)), states: {} };
      const next = add(mul(v, scalar(p, momentum)), g);
      const direction = nesterov ? add(g, mul(next, scalar(p, momentum))) : next;
      return { parameter: sub(p, mul(direction, rate)), states: { momentum: next } };
    },
  };
}

export interface AdamOptions extends CommonOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly epsilon?: number;
}

/** Adam (Kingma & Ba 2015); weight decay is added to the gradient. */
export function adam(options: AdamOptions): Optimizer {
  return adamLike("adam", options, (p) => p, options.weightDecay ?? 0);
}

/** AdamW (Loshchilov & Hutter 2019): weight decay shrinks the parameter itself; default 0.01. */
export function adamW(options: AdamOptions): Optimizer {
  const { weightDecay = 0.01 } = options;
  const shrink = (p: Tensor, rate: Tensor): Tensor =>
    mul(p, sub(scalar(p, 1), mul(rate, scalar(p, weightDecay))));
  return adamLike("adamw", { ...options, weightDecay }, shrink, 0);
}

/** m = β1·m + (1-β1)·g; v = β2·v + (1-β2)·g²; p -= rate/(1-β1ᵗ) · m / (sqrt(v)/sqrt(1-β2ᵗ) + ε). */
function adamLike(
  kind: string,
  options: AdamOptions,
  shrink: (p: Tensor, rate: Tensor) => Tensor,
  decay: number,
): Optimizer {
  const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0 } = options;
  check(kind, options, { beta1, beta2, weightDecay });
  if (!(epsilon > 0))
    throw new UserError(`the optimizer ${kind} is not valid: epsilon must be positive, got ${epsilon}`);
  const blend = (old: Tensor, now: Tensor, beta: number): Tensor =>
    add(mul(old, scalar(old, beta)), mul(now, scalar(now, 1 - beta)));
  return {
    kind,
    ...common(options),
    states: ["mean", "square"],
    scalars: (step) => ({
      rate: rateAt(options.rate, step),
      size: rateAt(options.rate, step) / (1 - beta1 ** (step + 1)),
      root: 1 / Math.sqrt(1 - beta2 ** (step + 1)),
    }),
    update: (at) => {
      const { parameter: p, states, scalars } = at;
      const { rate, size, root } = scalars as {
        readonly rate: Tensor;
        readonly size: Tensor;
        readonly root: Tensor;
      };
      const g = decayed(at, decay);
      const mean = blend(states["mean"] as Tensor, g, beta1);
      const squared = blend(states["square"] as Tensor, square(g), beta2);
      const denominator = add(mul(sqrt(squared), root), scalar(p, epsilon));
      return {
        parameter: sub(shrink(p, rate), div(mul(mean, size), denominator)),
        states: { mean, square: squared },
      };
    },
  };
}

/** The gradient after scaling, with the share of the parameter that decays added. */
function decayed({ gradient, scale, parameter }: Update, decay: number): Tensor {
  const scaled = mul(gradient, scale);
  return decay === 0 ? scaled : add(scaled, mul(parameter, scalar(parameter, decay)));
}

function common(options: CommonOptions): { readonly rate: Rate; readonly clipNorm?: number } {
  const { rate, clipNorm } = options;
  return clipNorm === undefined ? { rate } : { rate, clipNorm };
}

function check(kind: string, options: CommonOptions, shares: { readonly [name: string]: number }): void {
  checkRate(options.rate);
  const problems = Object.entries(shares).flatMap(([name, value]) =>
    value >= 0 && value < 1 ? [] : [`${name} must be at least 0 and below 1, got ${value}`],
  );
  const { clipNorm } = options;
  if (clipNorm !== undefined && !(clipNorm > 0)) problems.push(`clipNorm must be positive, got ${clipNorm}`);
  if (problems.length > 0) throw new UserError(`the optimizer ${kind} is not valid`, problems);
}
