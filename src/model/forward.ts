/** Builds the forward graph of a model with its loss, for one item shape. */

import { UserError } from "../base/errors.ts";
import { type InputSpec, inputShape } from "../data/dataset.ts";
import { mul, sum } from "../graph/functions.ts";
import type { Graph } from "../graph/graph.ts";
import { sizeOf } from "../graph/shape.ts";
import { withoutDeadNodes } from "../graph/subgraph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { isLayer, type Model, type ModelFunction } from "./layer.ts";
import { type Loss, lossFunction } from "./loss.ts";
import {
  type DimRole,
  ModelBuilder,
  type ModelOptions,
  type ParameterSpec,
  type StateSpec,
} from "./model-builder.ts";

/** The names of the loss output and of the scalar it is multiplied by: 1 / the number of targets in the whole mini-batch. */
export const lossOutput = "loss";
export const lossScale = "scale:loss";

export interface ModelSource {
  readonly model: Model;
  readonly loss: Loss;
  readonly inputs: readonly InputSpec[];
}

export interface ForwardGraph {
  /** Inputs: data, parameters, state, scalars. Outputs: the item's share of the loss (a scalar), and the new state. */
  readonly graph: Graph;
  readonly parameters: readonly ParameterSpec[];
  readonly states: readonly StateSpec[];
  /** Number of targets in the item: what the whole batch counts where the data does not say how many are valid. */
  readonly targets: number;
}

/** The graph of `source` for the item of `options`. Model mistakes are `UserError`s that name the layer's group and the shapes. */
export function buildForward(source: ModelSource, options: ModelOptions): ForwardGraph {
  const builder = new ModelBuilder(options);
  const inputs = Object.fromEntries(source.inputs.map((spec) => [spec.name, dataInput(builder, spec)]));
  const output = applyModel(source.model, inputs);
  const losses = builder.within({ group: groupOf(builder, output) }, () =>
    lossFunction(source.loss)(output, inputs),
  );
  const total = builder.within({ group: groupOf(builder, losses) }, () => {
    const scale = builder.input(lossScale, "scalar", { dtype: losses.dtype, shape: [] });
    return mul(
      builder.sharing(() => sum(losses)),
      scale,
    );
  });
  builder.output(lossOutput, total);
  const graph = withoutDeadNodes(builder.build());
  checkUses(graph, builder.parameters);
  return {
    graph,
    parameters: builder.parameters,
    states: builder.states,
    targets: sizeOf(losses.shape),
  };
}

/** A layer whose result is dropped would look as if it were trained. */
function checkUses({ inputs, nodes }: Graph, parameters: readonly ParameterSpec[]): void {
  const used = new Set(nodes.flatMap((node) => node.inputs.map((value) => inputs[value]?.name)));
  const unused = parameters.filter(({ name }) => !used.has(name));
  const groups = [...new Set(unused.map(({ group }) => group))];
  if (groups.length === 0) return;
  throw new UserError(
    "the loss does not depend on all parameters of the model",
    groups.map((group) => {
      const names = unused.flatMap((parameter) => (parameter.group === group ? [parameter.name] : []));
      return `group "${group}": ${names.join(", ")}: use what is computed with them, or leave the layer out`;
    }),
  );
}

function dataInput(builder: ModelBuilder, spec: InputSpec): Tensor {
  const roles = spec.dims.map((dim): DimRole => (typeof dim === "string" ? dim : "fixed"));
  const dtype = spec.dtype === "f32" ? builder.options.dtype : spec.dtype;
  return builder.data(spec.name, dtype, inputShape(spec, builder.options.shape.item), roles);
}

function applyModel(model: Model, inputs: { readonly [name: string]: Tensor }): Tensor {
  if (!isLayer(model)) return (model as ModelFunction)(inputs);
  const names = Object.keys(inputs).filter((name) => name !== "targets");
  const [name] = names;
  if (name === undefined || names.length > 1) {
    throw new UserError(
      `a model made of layers takes one data input, but the data set has ${names.join(", ") || "none"}; write the model as a function of the inputs`,
    );
  }
  return model(inputs[name] as Tensor);
}

/** The group of the operation that made a tensor, so that the loss is computed where the output is. */
function groupOf(builder: ModelBuilder, tensor: Tensor): string {
  return builder.groupOf(tensor) ?? builder.group;
}
