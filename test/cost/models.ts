/** Training steps of small models for tests of costs and plans. */

import { type TrainingStep, trainingStep } from "../../src/autodiff/training-step.ts";
import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import { buildForward, type ModelSource } from "../../src/model/forward.ts";
import { embedding, linear, sequential } from "../../src/model/layers/basic.ts";
import { lstm } from "../../src/model/layers/recurrent.ts";
import { type Optimizer, sgd } from "../../src/model/optimizer.ts";

export const textInputs: readonly InputSpec[] = [
  { name: "tokens", dtype: "i32", dims: ["time", "batch"] },
  { name: "targets", dtype: "i32", dims: ["time", "batch"] },
];

export interface LanguageModel {
  readonly vocabulary: number;
  readonly dim: number;
  readonly units: number;
  readonly layers: number;
  readonly dropout?: number;
}

/** Groups embed, layer0, layer1, ..., decode. */
export function languageModel({ vocabulary, dim, units, layers, dropout = 0 }: LanguageModel): ModelSource {
  return {
    model: sequential([
      embedding({ vocabulary, dim, group: "embed" }),
      ...Array.from({ length: layers }, (_, i) => lstm({ units, dropout, group: `layer${i}` })),
      linear({ units: vocabulary, group: "decode" }),
    ]),
    loss: "cross-entropy",
    inputs: textInputs,
  };
}

/** MXNet's example: embedding 200, 8 LSTM layers of 400, 10,000 words. */
export const mainModel: ModelSource = languageModel({
  vocabulary: 10_000,
  dim: 200,
  units: 400,
  layers: 8,
  dropout: 0.5,
});

export function stepOf(
  source: ModelSource,
  item: BatchShape,
  options: { readonly total?: BatchShape; readonly optimizer?: Optimizer } = {},
): TrainingStep {
  const forward = buildForward(source, {
    shape: { item, total: options.total ?? item },
    training: true,
    dtype: "f32",
  });
  return trainingStep(forward, { optimizer: options.optimizer ?? sgd({ rate: 0.1, clipNorm: 5 }) });
}
