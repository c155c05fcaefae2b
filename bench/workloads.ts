/** The workloads of the benchmarks, with random data of fixed shape. */

import { hashIndex, uniform } from "../src/base/random.ts";
import type { Batch, BatchShape, DataSet, InputSpec, TensorData } from "../src/data/dataset.ts";
import { shapeKey } from "../src/data/dataset.ts";
import type { DType } from "../src/graph/dtype.ts";
import { sizeOf } from "../src/graph/shape.ts";
import { gaussian, uniformWithin } from "../src/model/initializer.ts";
import { positionEmbedding, transformerBlock } from "../src/model/layers/attention.ts";
import { embedding, flatten, layerNorm, linear, relu, sequential } from "../src/model/layers/basic.ts";
import { avgPool, convolution, maxPool } from "../src/model/layers/convolution.ts";
import { lstm } from "../src/model/layers/recurrent.ts";
import { adamW, sgd } from "../src/model/optimizer.ts";
import type { CompileSource } from "../src/partition/compile.ts";

export interface Workload {
  readonly source: CompileSource;
  readonly shape: BatchShape;
  readonly data: DataSet;
  /** What "per second" counts: tokens or samples of one mini-batch. */
  readonly units: number;
  readonly unit: "tokens" | "samples";
  /** Floating-point operations of the matrix products and convolutions of one step, forward and backward. */
  readonly flops: number;
  batch(seed: number): Batch;
}

const vocabulary = 10_000;

/** The main job's step: MXNet's model-parallel LSTM, one bucket. */
export function lstmWorkload(batch = 20, time = 32): Workload {
  const widths = [200, 400, 400, 400, 400, 400, 400, 400];
  const source: CompileSource = {
    model: sequential([
      embedding({ vocabulary, dim: 200, group: "embed" }),
      ...widths.map((_, i) => lstm({ units: 400, dropout: 0.5, group: `layer${i}` })),
      linear({ units: vocabulary, group: "decode" }),
    ]),
    loss: "cross-entropy",
    inputs: [indices("tokens", ["time", "batch"]), indices("targets", ["time", "batch"])],
    optimizer: sgd({ rate: 0.1, clipNorm: 5 }),
    dtype: "f32",
    initializer: uniformWithin(0.1),
  };
  const perToken = widths.reduce((sum, width) => sum + 2 * 1600 * (width + 400), 0) + 2 * 400 * vocabulary;
  return workload(source, { batch, time }, "tokens", 3 * perToken * batch * time, {
    tokens: vocabulary,
    targets: vocabulary,
  });
}

/** Two pre-norm transformer blocks of width 512 with 8 heads over 128 positions; 1,000 symbols. */
export function transformerWorkload(batch = 16, time = 128, width = 512, blocks = 2): Workload {
  const symbols = 1000;
  const source: CompileSource = {
    model: sequential([
      embedding({ vocabulary: symbols, dim: width, group: "embed" }),
      positionEmbedding({ length: time, group: "embed", name: "position" }),
      ...Array.from({ length: blocks }, (_, i) =>
        transformerBlock({ heads: 8, causal: true, group: `block${i}` }),
      ),
      layerNorm({ group: "decode", name: "norm" }),
      linear({ units: symbols, group: "decode" }),
    ]),
    loss: "cross-entropy",
    inputs: [indices("tokens", ["batch", "time"]), indices("targets", ["batch", "time"])],
    optimizer: adamW({ rate: 1e-3 }),
    dtype: "f32",
    initializer: gaussian(0.02),
  };
  const perToken = blocks * (2 * 12 * width * width + 4 * time * width) + 2 * width * symbols;
  return workload(source, { batch, time }, "tokens", 3 * perToken * batch * time, {
    tokens: symbols,
    targets: symbols,
  });
}

/** A small convolutional network on images of MNIST's size. */
export function convolutionWorkload(batch = 64): Workload {
  const conv = (channels: number) => convolution({ channels, kernel: 3, padding: "same" });
  const source: CompileSource = {
    model: sequential([
      conv(32),
      relu(),
      conv(64),
      relu(),
      maxPool({ kernel: 2 }),
      conv(64),
      relu(),
      maxPool({ kernel: 2 }),
      flatten(),
      linear({ units: 128 }),
      relu(),
      linear({ units: 10 }),
    ]),
    loss: "cross-entropy",
    inputs: [
      { name: "images", dtype: "f32", dims: ["batch", { size: 1 }, { size: 28 }, { size: 28 }] },
      { name: "targets", dtype: "i32", dims: ["batch"] },
    ],
    optimizer: sgd({ rate: 0.05, momentum: 0.9 }),
    dtype: "f32",
  };
  const macs = 784 * 9 * (1 * 32 + 32 * 64) + 196 * 9 * 64 * 64 + 3136 * 128 + 1280;
  return workload(source, { batch }, "samples", 6 * macs * batch, { targets: 10 });
}

/** A stack of 3x3 convolutions with 64, 128 and 256 channels on images of 64 x 64, and a classifier of 10 classes. */
export function convolutionStackWorkload(batch = 4): Workload {
  const widths = [64, 128, 256];
  const side = 64;
  const source: CompileSource = {
    model: sequential([
      ...widths.flatMap((channels, i) => [
        convolution({ channels, kernel: 3, padding: "same", group: `conv${i}` }),
        relu({ group: `conv${i}` }),
      ]),
      avgPool({ kernel: 8, group: "classify" }),
      flatten({ group: "classify" }),
      linear({ units: 10, group: "classify", name: "linear" }),
    ]),
    loss: "cross-entropy",
    inputs: [
      { name: "images", dtype: "f32", dims: ["batch", { size: 3 }, { size: side }, { size: side }] },
      { name: "targets", dtype: "i32", dims: ["batch"] },
    ],
    optimizer: sgd({ rate: 0.05, momentum: 0.9 }),
    dtype: "f32",
  };
  const macs = side * side * 9 * (3 * 64 + 64 * 128 + 128 * 256);
  return workload(source, { batch }, "samples", 6 * macs * batch, { targets: 10 });
}

function indices(name: string, dims: InputSpec["dims"]): InputSpec {
  return { name, dtype: "i32", dims };
}

function workload(
  source: CompileSource,
  shape: BatchShape,
  unit: Workload["unit"],
  flops: number,
  limits: { readonly [input: string]: number },
): Workload {
  const key = shapeKey(shape);
  const batch = (seed: number): Batch => {
    const tensors = source.inputs.map(
      (input, at) =>
        [input.name, randomTensor(input, shape, limits[input.name], hashIndex(seed, at))] as const,
    );
    return { inputs: Object.fromEntries(tensors), shapeKey: key, samples: shape.batch };
  };
  const data: DataSet = {
    inputs: source.inputs,
    shapes: [shape],
    training: () => none(),
    validation: () => none(),
    batchesPerEpoch: 0,
    description: {},
  };
  const units = unit === "tokens" ? shape.batch * (shape.time ?? 1) : shape.batch;
  return { source, shape, data, unit, units, flops, batch };
}

async function* none(): AsyncIterable<Batch> {}

function randomTensor(
  { dtype, dims }: InputSpec,
  shape: BatchShape,
  limit: number | undefined,
  key: number,
): TensorData {
  const sizes = dims.map((dim) =>
    dim === "batch" ? shape.batch : dim === "time" ? (shape.time ?? 1) : dim.size,
  );
  const count = sizeOf(sizes);
  const kind: DType = dtype;
  if (kind === "f32")
    return { dtype, shape: sizes, data: Float32Array.from({ length: count }, (_, i) => uniform(key, i)) };
  return {
    dtype,
    shape: sizes,
    data: Int32Array.from({ length: count }, (_, i) => hashIndex(key, i) % (limit ?? 1)),
  };
}
