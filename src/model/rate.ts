/** Learning rates as functions of the step, as data so that they can be printed and saved. */

import { UserError } from "../base/errors.ts";

export type Rate =
  | number
  /** Multiplied by `factor` every `every` steps. */
  | { readonly kind: "step"; readonly rate: number; readonly factor: number; readonly every: number }
  /** From `rate` to `final` along half a cosine over `steps`, then constant (Loshchilov & Hutter 2017, without restarts). */
  | { readonly kind: "cosine"; readonly rate: number; readonly final: number; readonly steps: number }
  /** Grows linearly to the rate of `then` over `steps`, then follows it. */
  | { readonly kind: "warm-up"; readonly steps: number; readonly then: Rate };

/** The rate of step `step`, counted from 0. */
export function rateAt(rate: Rate, step: number): number {
  if (typeof rate === "number") return rate;
  switch (rate.kind) {
    case "step":
      return rate.rate * rate.factor ** Math.floor(step / rate.every);
    case "cosine": {
      const done = Math.min(1, step / rate.steps);
      return rate.final + ((rate.rate - rate.final) * (1 + Math.cos(Math.PI * done))) / 2;
    }
    case "warm-up": {
      const then = rateAt(rate.then, Math.max(0, step - rate.steps));
      return step < rate.steps ? (then * (step + 1)) / (rate.steps + 1) : then;
    }
    default:
      return rate satisfies never;
  }
}

export function stepRate(rate: number, options: { readonly factor: number; readonly every: number }): Rate {
  return { kind: "step", rate, ...options };
}

export function cosineRate(rate: number, options: { readonly steps: number; readonly final?: number }): Rate {
  return { kind: "cosine", rate, final: options.final ?? 0, steps: options.steps };
}

export function warmUp(steps: number, then: Rate): Rate {
  return { kind: "warm-up", steps, then };
}

/** Throws when a rate cannot be followed, naming every number that is wrong. */
export function checkRate(rate: Rate): void {
  const problems = rateProblems(rate);
  if (problems.length > 0) throw new UserError("the learning rate is not valid", problems);
}

function rateProblems(rate: Rate): string[] {
  if (typeof rate === "number")
    return rate > 0 && Number.isFinite(rate) ? [] : [`a rate must be positive, got ${rate}`];
  if (rate.kind === "warm-up") return [...countProblem("steps", rate.steps), ...rateProblems(rate.then)];
  const rest =
    rate.kind === "step"
      ? [...countProblem("every", rate.every), ...sizeProblem("factor", rate.factor)]
      : [...countProblem("steps", rate.steps), ...sizeProblem("final", rate.final)];
  return [...rateProblems(rate.rate), ...rest];
}

function sizeProblem(name: string, value: number): string[] {
  return value >= 0 && Number.isFinite(value) ? [] : [`${name} must be at least 0, got ${value}`];
}

function countProblem(name: string, count: number): string[] {
  return Number.isInteger(count) && count > 0
    ? []
    : [`${name} must be a positive whole number, got ${count}`];
}
