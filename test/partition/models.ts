/** Small models of every kind that is split in tests, each with batches that it can be trained on. */

import { type TrainingStep, trainingStep } from "../../src/autodiff/training-step.ts";
import { deriveKey, hashIndex, normal } from "../../src/base/random.ts";
import {
  type Batch,
  type BatchShape,
  type InputSpec,
  ignoredTarget,
  inputShape,
  shapeKey,
  type TensorData,
} from "../../src/data/dataset.ts";
import { allocate, type DType } from "../../src/graph/dtype.ts";
import { add, concat, mul, reshape, sum } from "../../src/graph/functions.ts";
import { sizeOf } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { buildForward } from "../../src/model/forward.ts";
import type { Model } from "../../src/model/layer.ts";
import { positionEmbedding, transformerBlock } from "../../src/model/layers/attention.ts";
import {
  batchNorm,
  dropout,
  embedding,
  flatten,
  layerNorm,
  linear,
  relu,
  sequential,
  tanh,
} from "../../src/model/layers/basic.ts";
import { avgPool, convolution, maxPool } from "../../src/model/layers/convolution.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { modelOf } from "../../src/model/model-builder.ts";
import { adam, type Optimizer, sgd } from "../../src/model/optimizer.ts";
import type { CompileSource } from "../../src/partition/compile.ts";

/** A model with everything that training it needs. */
export interface Example {
  readonly name: string;
  readonly source: CompileSource;
  /** In an order that a pipeline may have. */
  readonly groups: readonly string[];
  /** The shapes of its mini-batches; steps take them in turn. */
  readonly shapes: readonly BatchShape[];
  /** Whether the model can be cut into chunks of time. */
  readonly hasChunks: boolean;
  /** Tokens and identities are below this. */
  readonly vocabulary: number;
}

interface ExampleSpec {
  readonly name: string;
  readonly model: () => Model;
  readonly inputs: readonly InputSpec[];
  readonly groups: readonly string[];
  readonly loss?: CompileSource["loss"];
  readonly optimizer?: Optimizer;
  readonly time?: readonly number[];
  readonly hasChunks?: boolean;
}

export interface ExampleOptions {
  readonly dtype?: DType;
  /** Samples of a mini-batch. */
  readonly batch?: number;
}

const tokens: InputSpec = { name: "tokens", dtype: "i32", dims: ["time", "batch"] };
const sentences: readonly InputSpec[] = [tokens, { ...tokens, name: "targets" }];
const vocabulary = 7;

function features(name: string, ...sizes: number[]): InputSpec {
  return { name, dtype: "f32", dims: ["batch", ...sizes.map((size) => ({ size }))] };
}

/** Three layers of sentences in buckets of two lengths, with padding. */
const lstmSpec: ExampleSpec = {
  name: "lstm",
  model: () =>
    sequential([
      embedding({ vocabulary, dim: 3, group: "embed" }),
      lstm({ units: 3, dropout: 0.3, group: "layer0" }),
      lstm({ units: 3, dropout: 0.3, residual: true, group: "layer1" }),
      lstm({ units: 2, group: "layer2" }),
      linear({ units: vocabulary, group: "decode" }),
    ]),
  inputs: sentences,
  groups: ["embed", "layer0", "layer1", "layer2", "decode"],
  optimizer: sgd({ rate: 0.5, momentum: 0.9, clipNorm: 0.2 }),
  time: [4, 3],
  hasChunks: true,
};

const gruSpec: ExampleSpec = {
  name: "gru",
  model: () =>
    sequential([
      gru({ units: 2, dropout: 0.2, group: "layer0" }),
      gru({ units: 3, group: "layer1" }),
      gru({ units: 2, group: "layer2" }),
      linear({ units: 1, group: "head" }),
    ]),
  inputs: [
    { name: "x", dtype: "f32", dims: ["time", "batch", { size: 2 }] },
    { name: "targets", dtype: "f32", dims: ["time", "batch", { size: 1 }] },
  ],
  groups: ["layer0", "layer1", "layer2", "head"],
  loss: "mean-squared-error",
  optimizer: adam({ rate: 0.01 }),
  time: [4],
  hasChunks: true,
};

/** Skips over one and several stages, two tensors on an edge, and a branch that joins at the end. */
const skipSpec: ExampleSpec = {
  name: "skip-mlp",
  model: () => {
    const block = (group: string, units: number) =>
      sequential([linear({ units, group }), tanh({ group }), dropout({ rate: 0.25, group })]);
    const [a, b, c, d] = [block("a", 4), block("b", 3), block("c", 4), block("d", 3)];
    const head = linear({ units: 2, group: "e" });
    const inGroup = (group: string, build: () => Tensor) => (x: Tensor) =>
      modelOf(x).within({ group }, build);
    return ({ x }) => {
      const first = a(x as Tensor);
      const second = b(first);
      const third = c(inGroup("c", () => concat([second, first], 1))(first));
      const fourth = d(inGroup("c", () => add(third, first))(first));
      return head(inGroup("d", () => concat([fourth, second, mul(first, third)], 1))(first));
    };
  },
  inputs: [features("x", 3), features("targets", 2)],
  groups: ["a", "b", "c", "d", "e"],
  loss: "mean-squared-error",
  optimizer: sgd({ rate: 0.1, clipNorm: 0.5, weightDecay: 0.01 }),
};

const tiedSpec: ExampleSpec = {
  name: "tied",
  model: () => {
    const embed = embedding({ vocabulary, dim: 3, group: "embed" });
    return sequential([
      embed,
      lstm({ units: 3, dropout: 0.4, group: "layer0" }),
      lstm({ units: 3, group: "layer1" }),
      sequential([embed.decode], { group: "decode" }),
    ]);
  },
  inputs: sentences,
  groups: ["embed", "layer0", "layer1", "decode"],
  optimizer: sgd({ rate: 0.3, clipNorm: 0.4 }),
  time: [4],
  hasChunks: true,
};

const transformerSpec: ExampleSpec = {
  name: "transformer",
  model: () => {
    const block = (group: string) =>
      transformerBlock({ heads: 2, causal: true, dropout: 0.2, expansion: 2, group });
    return sequential([
      embedding({ vocabulary, dim: 4, group: "embed" }),
      positionEmbedding({ length: 5, group: "embed" }),
      block("block0"),
      block("block1"),
      layerNorm({ group: "head" }),
      linear({ units: vocabulary, group: "head" }),
    ]);
  },
  inputs: [
    { ...tokens, dims: ["batch", "time"] },
    { ...tokens, name: "targets", dims: ["batch", "time"] },
  ],
  groups: ["embed", "block0", "block1", "head"],
  optimizer: sgd({ rate: 0.1, momentum: 0.9, clipNorm: 1 }),
  time: [3],
};

function convolutionSpec(normalize: boolean): ExampleSpec {
  const norm = (group: string) => (normalize ? [batchNorm({ group })] : []);
  return {
    name: normalize ? "batch-norm" : "convolution",
    model: () =>
      sequential([
        convolution({ channels: 2, kernel: 3, padding: "same", group: "stem" }),
        ...norm("stem"),
        relu({ group: "stem" }),
        maxPool({ kernel: 2, group: "stem" }),
        convolution({ channels: 3, kernel: 2, stride: 1, group: "middle" }),
        ...norm("middle"),
        tanh({ group: "middle" }),
        avgPool({ kernel: 2, stride: 1, padding: 1, group: "pool" }),
        flatten({ group: "head" }),
        linear({ units: vocabulary, group: "head" }),
      ]),
    inputs: [features("x", 1, 6, 6), { name: "targets", dtype: "i32", dims: ["batch"] }],
    groups: ["stem", "middle", "pool", "head"],
    optimizer: sgd({ rate: 0.1, momentum: 0.9, nesterov: true }),
  };
}

/** Matrix factorisation: two towers that know nothing of each other, and a product at the end. */
const towersSpec: ExampleSpec = {
  name: "two-towers",
  model: () => {
    const tower = (group: string) =>
      sequential([embedding({ vocabulary, dim: 3, group }), linear({ units: 2, group: `${group}-mlp` })]);
    const [users, items] = [tower("user"), tower("item")];
    return ({ user, item }) => {
      const product = mul(users(user as Tensor), items(item as Tensor));
      return reshape(sum(product, [1]), [product.shape[0] as number]);
    };
  },
  inputs: [
    { name: "user", dtype: "i32", dims: ["batch"] },
    { name: "item", dtype: "i32", dims: ["batch"] },
    features("targets"),
  ],
  groups: ["user", "item", "user-mlp", "item-mlp", "model"],
  loss: "mean-squared-error",
  optimizer: adam({ rate: 0.02, clipNorm: 0.3 }),
};

const specs = {
  lstm: lstmSpec,
  gru: gruSpec,
  "skip-mlp": skipSpec,
  tied: tiedSpec,
  transformer: transformerSpec,
  convolution: convolutionSpec(false),
  "batch-norm": convolutionSpec(true),
  "two-towers": towersSpec,
};

export type ExampleName = keyof typeof specs;

export const exampleNames: readonly ExampleName[] = Object.keys(specs) as ExampleName[];

/** The example of this name, computing in float64 on 4 samples unless told otherwise. */
export function exampleOf(name: ExampleName, { dtype = "f64", batch = 4 }: ExampleOptions = {}): Example {
  const spec: ExampleSpec = specs[name];
  const { time, inputs, groups, hasChunks = false, loss = "cross-entropy" } = spec;
  return {
    name,
    source: { model: spec.model(), loss, inputs, optimizer: spec.optimizer ?? sgd({ rate: 0.1 }), dtype },
    groups,
    shapes: time === undefined ? [{ batch }] : time.map((steps) => ({ batch, time: steps })),
    hasChunks,
    vocabulary,
  };
}

/** Mini-batch number `index`: a function of the example and the number only. Some targets of sentences are padding. */
export function batchOf({ source, shapes, vocabulary }: Example, index: number): Batch {
  const shape = shapes[index % shapes.length] as BatchShape;
  const inputs = Object.fromEntries(
    source.inputs.map((spec) => [
      spec.name,
      tensorOf(spec, shape, { index, vocabulary, float: source.dtype }),
    ]),
  );
  const { targets } = inputs;
  const isText = targets?.dtype === "i32" && shape.time !== undefined;
  const valid = Array.from((targets?.data ?? []) as Int32Array).filter((id) => id !== ignoredTarget).length;
  return {
    inputs,
    shapeKey: shapeKey(shape),
    ...(isText && { validTargets: valid }),
    samples: shape.batch,
  };
}

function tensorOf(
  spec: InputSpec,
  batch: BatchShape,
  {
    index,
    vocabulary,
    float,
  }: { readonly index: number; readonly vocabulary: number; readonly float: DType },
): TensorData {
  const shape = inputShape(spec, batch);
  const dtype = spec.dtype === "f32" ? float : spec.dtype;
  const key = deriveKey(index, spec.name);
  const data = allocate(dtype, sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    if (dtype !== "i32") data[i] = normal(key, i);
    else {
      const isPadding = spec.name === "targets" && batch.time !== undefined && hashIndex(key, ~i) % 4 === 0;
      data[i] = isPadding ? ignoredTarget : hashIndex(key, i) % vocabulary;
    }
  }
  return { dtype, shape, data };
}

/** The training step of an example as one item of its first shape. */
export function stepOf({ source, shapes }: Example): TrainingStep {
  const [shape] = shapes as [(typeof shapes)[number]];
  const { dtype, optimizer } = source;
  const forward = buildForward(source, { shape: { item: shape, total: shape }, training: true, dtype });
  return trainingStep(forward, { optimizer });
}
