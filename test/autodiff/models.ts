/** Small models whose training steps are looked at in several tests. */

import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import { buildForward, type ForwardGraph, type ModelSource } from "../../src/model/forward.ts";
import { dropout, embedding, linear, relu, sequential } from "../../src/model/layers/basic.ts";
import { lstm } from "../../src/model/layers/recurrent.ts";
import { randomDense } from "../graph/dense.ts";
import { integers } from "../graph/shapes.ts";

const tokens: InputSpec = { name: "tokens", dtype: "i32", dims: ["time", "batch"] };

/** A language model of two LSTM layers over a vocabulary of 7. */
export const languageModel: ModelSource = {
  model: sequential([
    embedding({ vocabulary: 7, dim: 3, group: "embed" }),
    lstm({ units: 4, group: "one", dropout: 0.25 }),
    lstm({ units: 4, group: "two" }),
    linear({ units: 7, group: "decode" }),
  ]),
  loss: "cross-entropy",
  inputs: [tokens, { ...tokens, name: "targets" }],
};

/** Two linear layers from 3 features to 2. */
export const perceptron: ModelSource = {
  model: sequential([
    linear({ units: 4, group: "a" }),
    relu({ group: "a" }),
    dropout({ rate: 0.5, group: "a" }),
    linear({ units: 2, group: "b" }),
  ]),
  loss: "mean-squared-error",
  inputs: [
    { name: "x", dtype: "f32", dims: ["batch", { size: 3 }] },
    { name: "targets", dtype: "f32", dims: ["batch", { size: 2 }] },
  ],
};

/** The same embedding before and after an LSTM. */
export function tiedModel(): ModelSource {
  const embed = embedding({ vocabulary: 7, dim: 4, group: "embed" });
  return {
    model: sequential([
      embed,
      lstm({ units: 4, group: "one" }),
      sequential([embed.decode], { group: "decode" }),
    ]),
    loss: "cross-entropy",
    inputs: languageModel.inputs,
  };
}

export function forwardOf(source: ModelSource, item: BatchShape, total: BatchShape = item): ForwardGraph {
  return buildForward(source, { shape: { item, total }, training: true, dtype: "f64" });
}

/** Fixed random values for every input of a graph: tokens below 7, other whole numbers as they come. */
export function valuesFor(graph: Graph, seed = 1): Map<string, Dense> {
  return new Map(
    graph.inputs.map(({ name }, value) => {
      const { dtype, shape } = graph.types[value] as TensorType;
      return [name, dtype === "i32" ? integers(shape, seed + value, 7) : randomDense(shape, seed + value)];
    }),
  );
}

export function evaluate(graph: Graph, seed = 1): Map<string, Dense> {
  return evaluateGraph(graph, valuesFor(graph, seed));
}
