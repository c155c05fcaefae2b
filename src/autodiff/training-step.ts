/**
 * One training step as two graphs: F, B and W of one item, which is run for every item of the mini-batch, and U, which is run once.
 *
 *     item    data, parameters, state ──► loss, new state, grad:<parameter>      (summed over the items)
 *     update  parameters, grad:<parameter>, optimizer state, loss ──► new parameters, new optimizer state, norm
 */

import { GraphBuilder } from "../graph/builder.ts";
import { add, constant, div, minimum, mul, scalar, sqrt, square, sum } from "../graph/functions.ts";
import type { Graph } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { withoutDeadNodes } from "../graph/subgraph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type ForwardGraph, lossOutput } from "../model/forward.ts";
import type { ParameterSpec, StateSpec } from "../model/model-builder.ts";
import type { Optimizer } from "../model/optimizer.ts";
import { differentiate, type GradientOutput } from "./differentiate.ts";
import { recompute } from "./recompute.ts";

/** Output of the update graph: the global norm of the gradient before clipping. */
export const normOutput = "norm";
/** Output of the update graph: what every gradient is multiplied by; not finite when the gradient or the loss is not. */
export const scaleOutput = "scale";
/** As in PyTorch's clip_grad_norm_. */
const clipEpsilon = 1e-6;

/** A tensor that an optimizer keeps beside a parameter; starts at zero. */
export interface OptimizerState {
  /** Input and output of the update graph. */
  readonly name: string;
  readonly parameter: string;
  readonly type: TensorType;
}

export interface TrainingStep {
  /** Phases F and B (not yet sliced); see `sliceWeightGradients`. */
  readonly item: Graph;
  readonly update: Graph;
  readonly parameters: readonly ParameterSpec[];
  readonly states: readonly StateSpec[];
  /** Gradients of parameters, none for a parameter that the loss does not depend on, as outputs of the item graph and inputs of the update graph. */
  readonly gradients: readonly GradientOutput[];
  readonly optimizerStates: readonly OptimizerState[];
}

/** Names by which a carried state is known: in, out, gradient that arrives at the output, gradient of the input. */
export function stateNames(state: string): {
  readonly value: string;
  readonly arriving: string;
  readonly leaving: string;
} {
  return { value: `state:${state}`, arriving: `arriving:${state}`, leaving: `grad:state:${state}` };
}

/** The inputs and outputs that are running statistics. */
export function statisticNames(states: readonly StateSpec[]): ReadonlySet<string> {
  return new Set(states.filter(({ kind }) => kind === "statistic").map(({ name }) => stateNames(name).value));
}

export interface StepOptions {
  readonly optimizer: Optimizer;
  /** Groups whose values are computed again in backward; default none. */
  readonly recompute?: ReadonlySet<string>;
}

export function trainingStep(forward: ForwardGraph, options: StepOptions): TrainingStep {
  const carried = forward.states.filter(({ kind }) => kind === "carried").map(({ name }) => stateNames(name));
  const seeds = [
    { output: lossOutput, gradient: "one" as const },
    ...carried.map(({ value, arriving }) => ({ output: value, gradient: { input: arriving } })),
  ];
  const wanted = [...forward.parameters.map(({ name }) => name), ...carried.map(({ value }) => value)];
  const derivative = differentiate(forward.graph, seeds, wanted);
  const live = withoutDeadNodes(derivative.graph);
  const item = options.recompute === undefined ? live : recompute(live, options.recompute);
  const names = new Set(forward.parameters.map(({ name }) => name));
  const gradients = derivative.gradients.filter(({ input }) => names.has(input));
  const trained = forward.parameters.filter(({ name }) => gradients.some(({ input }) => input === name));
  const optimizerStates = trained.flatMap(({ name, type }) =>
    options.optimizer.states.map((state) => ({ name: `${state}:${name}`, parameter: name, type })),
  );
  const update = updateGraph(trained, gradients, options.optimizer);
  return { item, update, parameters: forward.parameters, states: forward.states, gradients, optimizerStates };
}

/** The optimizer applied to every parameter (each has a gradient), with clipping by the global norm of all gradients. */
function updateGraph(
  parameters: readonly ParameterSpec[],
  gradients: readonly GradientOutput[],
  optimizer: Optimizer,
): Graph {
  const builder = new GraphBuilder();
  const within = <T>(group: string, build: () => T): T => builder.within({ group, phase: "U" }, build);
  const trained = parameters.map((parameter) =>
    within(parameter.group, () => {
      const parts = gradients.filter(({ input }) => input === parameter.name);
      const tensor = builder.input(parameter.name, "parameter", parameter.type);
      const contributions = parts.map(({ output }) => builder.input(output, "gradient", parameter.type));
      return { parameter, tensor, gradient: contributions.reduce((total, part) => add(total, part)) };
    }),
  );
  const [first] = trained;
  if (first === undefined) return builder.build();
  const norm = globalNorm(
    builder,
    first.parameter.group,
    trained.map(({ parameter, gradient }) => ({ group: parameter.group, gradient })),
  );
  builder.output(normOutput, norm);
  const loss = builder.input(lossOutput, "data", { dtype: norm.dtype, shape: [] });
  const scale = gradientScale(builder, first.parameter.group, { norm, loss, limit: optimizer.clipNorm });
  builder.output(scaleOutput, scale);
  for (const { parameter, tensor, gradient } of trained) {
    within(parameter.group, () => {
      const states = Object.fromEntries(
        optimizer.states.map((state) => [
          state,
          builder.input(`${state}:${parameter.name}`, "state", parameter.type),
        ]),
      );
      const scalars = Object.fromEntries(
        Object.keys(optimizer.scalars(0)).map((name) => [
          name,
          builder.input(name, "scalar", { dtype: tensor.dtype, shape: [] }),
        ]),
      );
      const next = optimizer.update({ parameter: tensor, gradient, scale, states, scalars });
      builder.output(parameter.name, next.parameter);
      for (const state of optimizer.states)
        builder.output(`${state}:${parameter.name}`, next.states[state] as Tensor);
    });
  }
  return builder.build();
}

/** sqrt of the sum of all squared elements; each group adds up its own, `home` adds up the groups in order. */
function globalNorm(
  builder: GraphBuilder,
  home: string,
  parts: readonly { readonly group: string; readonly gradient: Tensor }[],
): Tensor {
  const groups = [...new Set(parts.map(({ group }) => group))];
  const sums = groups.map((group) =>
    builder.within({ group, phase: "U" }, () =>
      parts
        .filter((part) => part.group === group)
        .map(({ gradient }) => sum(square(gradient)))
        .reduce((total, part) => add(total, part)),
    ),
  );
  return builder.within({ group: home, phase: "U" }, () =>
    sqrt(sums.reduce((total, part) => add(total, part))),
  );
}

/** min(1, limit / (norm + ε)) + 0·norm + 0·loss: the clipping factor, made NaN by a norm or a loss that is not finite. */
function gradientScale(
  builder: GraphBuilder,
  home: string,
  { norm, loss, limit }: { readonly norm: Tensor; readonly loss: Tensor; readonly limit: number | undefined },
): Tensor {
  return builder.within({ group: home, phase: "U" }, () => {
    const one = constant(builder, norm.dtype, [], 1);
    const poison = add(mul(norm, scalar(norm, 0)), mul(loss, scalar(loss, 0)));
    if (limit === undefined) return add(one, poison);
    return add(minimum(div(scalar(norm, limit), add(norm, scalar(norm, clipEpsilon))), one), poison);
  });
}
