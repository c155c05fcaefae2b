/** Models whose sizes all differ, split over one stage, and what their programs hold and move: for counts that closed forms predict. */

import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import { bytesOfType } from "../../src/graph/shape.ts";
import { type Layout, type Mesh, meshSize, oneDevice } from "../../src/layout/layout.ts";
import type { Layer } from "../../src/model/layer.ts";
import { transformerBlock } from "../../src/model/layers/attention.ts";
import { embedding, flatten, layerNorm, linear, sequential, tanh } from "../../src/model/layers/basic.ts";
import { avgPool, convolution, maxPool } from "../../src/model/layers/convolution.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { adam } from "../../src/model/optimizer.ts";
import { type CompiledStep, compileTraining } from "../../src/partition/compile.ts";
import { addAlike, type Move, movesOf } from "../../src/plan/moves.ts";
import type { BufferKind, Program } from "../../src/program/program.ts";

/** The sizes that formulas name. */
export type Sizes = { readonly [name: string]: number };

interface Built {
  readonly groups: readonly string[];
  readonly layers: readonly Layer[];
  readonly inputs: readonly InputSpec[];
  readonly loss?: "cross-entropy";
}

export interface CountedModel {
  readonly title: string;
  readonly sizes: Sizes;
  /** Other sizes, for which the same formulas hold. */
  readonly others: Sizes;
  /** From its sizes. */
  readonly build: (size: (name: string) => number) => Built;
}

/** Inputs and targets of so many features. */
function pairOf(x: number, targets: number, dims: readonly ("time" | "batch")[]): readonly InputSpec[] {
  return [
    { name: "x", dtype: "f32", dims: [...dims, { size: x }] },
    { name: "targets", dtype: "f32", dims: [...dims, { size: targets }] },
  ];
}

function recurrentModel(title: string, layer: typeof lstm): CountedModel {
  return {
    title,
    sizes: { batch: 3, time: 6, inputs: 5, units: 8, unitsAbove: 4 },
    others: { batch: 5, time: 4, inputs: 3, units: 4, unitsAbove: 12 },
    build: (size) => ({
      groups: ["below", "above"],
      layers: [
        layer({ units: size("units"), group: "below" }),
        layer({ units: size("unitsAbove"), group: "above" }),
      ],
      inputs: pairOf(size("inputs"), size("unitsAbove"), ["time", "batch"]),
    }),
  };
}

function imageModel(
  title: string,
  more: readonly Sizes[],
  rest: (size: SizeOf) => Layer,
  made: string,
): CountedModel {
  return {
    title,
    sizes: { batch: 3, rows: 8, columns: 12, inputs: 2, channels: 4, kernel: 3, ...more[0] },
    others: { batch: 2, rows: 24, columns: 16, inputs: 3, channels: 8, kernel: 5, ...more[1] },
    build: (size) => {
      const layers = [
        convolution({ channels: size("channels"), kernel: 3, padding: "same", group: "stem" }),
        tanh({ group: "middle" }),
        rest(size),
      ];
      const inputs = ["inputs", made].map((channels, i): InputSpec => {
        const dims = [size(channels), size("rows"), size("columns")].map((dim) => ({ size: dim }));
        return { name: i === 0 ? "x" : "targets", dtype: "f32", dims: ["batch", ...dims] };
      });
      return { groups: ["stem", "middle", "head"], layers, inputs };
    },
  };
}

type SizeOf = (name: string) => number;

const pool = (kernel: number) => ({ kernel, stride: 1, padding: (kernel - 1) / 2, group: "head" });

export const models: readonly CountedModel[] = [
  {
    title: "two pairs of linear layers",
    sizes: { batch: 4, inputs: 10, hidden: 16, middle: 8, hidden2: 12, outputs: 6 },
    others: { batch: 6, inputs: 4, hidden: 8, middle: 12, hidden2: 20, outputs: 4 },
    build: (size) => ({
      groups: ["first", "second"],
      layers: [
        linear({ units: size("hidden"), group: "first", name: "up" }),
        tanh({ group: "first" }),
        linear({ units: size("middle"), group: "first", name: "down" }),
        linear({ units: size("hidden2"), group: "second", name: "up2" }),
        tanh({ group: "second" }),
        linear({ units: size("outputs"), group: "second", name: "down2" }),
      ],
      inputs: pairOf(size("inputs"), size("outputs"), ["batch"]),
    }),
  },
  {
    title: "linear, layer norm, linear",
    sizes: { batch: 4, inputs: 10, hidden: 16, outputs: 6 },
    others: { batch: 3, inputs: 2, hidden: 8, outputs: 5 },
    build: (size) => ({
      groups: ["all"],
      layers: [
        linear({ units: size("hidden"), group: "all", name: "up" }),
        layerNorm({ group: "all" }),
        linear({ units: size("outputs"), group: "all", name: "down" }),
      ],
      inputs: pairOf(size("inputs"), size("outputs"), ["batch"]),
    }),
  },
  {
    title: "transformer blocks",
    sizes: { batch: 4, time: 6, features: 16, blocks: 2 },
    others: { batch: 4, time: 12, features: 8, blocks: 1 },
    build: (size) => {
      const groups = Array.from({ length: size("blocks") }, (_, i) => `block${i}`);
      const layers = groups.map((group) => transformerBlock({ heads: 4, causal: true, group }));
      return { groups, layers, inputs: pairOf(size("features"), size("features"), ["batch", "time"]) };
    },
  },
  {
    title: "embedding, decoder",
    sizes: { batch: 3, time: 6, vocabulary: 12, features: 8 },
    others: { batch: 2, time: 5, vocabulary: 20, features: 6 },
    build: (size) => ({
      groups: ["embed", "decode"],
      layers: [
        embedding({ vocabulary: size("vocabulary"), dim: size("features"), group: "embed" }),
        tanh({ group: "embed" }),
        linear({ units: size("vocabulary"), group: "decode" }),
      ],
      inputs: ["tokens", "targets"].map((name) => ({ name, dtype: "i32", dims: ["batch", "time"] })),
      loss: "cross-entropy",
    }),
  },
  recurrentModel("two LSTM layers", lstm),
  recurrentModel("two GRU layers", gru),
  imageModel(
    "two convolutions",
    [
      { kernel: 5, channels2: 8 },
      { kernel: 3, channels2: 4 },
    ],
    (size) =>
      convolution({ channels: size("channels2"), kernel: size("kernel"), padding: "same", group: "head" }),
    "channels2",
  ),
  imageModel("convolution, max pooling", [], (size) => maxPool(pool(size("kernel"))), "channels"),
  imageModel("convolution, mean pooling", [], (size) => avgPool(pool(size("kernel"))), "channels"),
];

/** So many convolutions of 3x3 with a tanh after each, on images of `rows` x `columns`. */
export function convolutionChain(layers: number, channels: number): Pick<CountedModel, "build"> {
  const groups = Array.from({ length: layers }, (_, i) => `layer${i}`);
  return {
    build: (size) => ({
      groups,
      layers: groups.flatMap((group) => [
        convolution({ channels, kernel: 3, padding: "same", group }),
        tanh({ group }),
      ]),
      inputs: ["x", "targets"].map((name) => {
        const dims = [channels, size("rows"), size("columns")].map((dim) => ({ size: dim }));
        return { name, dtype: "f32", dims: ["batch", ...dims] };
      }),
    }),
  };
}

/** A convolution of 3x3 on images of one channel, and a linear layer over all its results. */
export function flattened(channels: number, outputs: number): Pick<CountedModel, "build"> {
  return {
    build: (size) => ({
      groups: ["stem", "head"],
      layers: [
        convolution({ channels, kernel: 3, padding: "same", group: "stem" }),
        tanh({ group: "stem" }),
        flatten({ group: "head" }),
        linear({ units: outputs, group: "head" }),
      ],
      inputs: [
        {
          name: "x",
          dtype: "f32",
          dims: ["batch", { size: 1 }, { size: size("rows") }, { size: size("columns") }],
        },
        { name: "targets", dtype: "f32", dims: ["batch", { size: outputs }] },
      ],
    }),
  };
}

export interface Split {
  readonly mesh?: Mesh;
  readonly replicas?: number;
  readonly rest?: Partial<Layout>;
}

/** All groups in one stage, split over a mesh, in so many replicas. */
function splitLayout(groups: readonly string[], { mesh = {}, replicas = 1, rest = {} }: Split): Layout {
  const names = Array.from({ length: meshSize({ mesh }) * replicas }, (_, i) => `cpu:${i}`);
  return {
    ...oneDevice(groups),
    devices: names.map((name) => ({ name, threads: 1 })),
    stages: [{ devices: names, mesh, groups }],
    ...rest,
  };
}

/** The programs of a model for Adam in float32, split. */
export function compileSplit(
  { build, sizes }: Pick<CountedModel, "build" | "sizes">,
  split: Split,
): CompiledStep {
  const { groups, layers, inputs, loss = "mean-squared-error" } = build((name) => sizes[name] as number);
  const { batch = 1, time } = sizes;
  const shape: BatchShape = { batch, ...(time !== undefined && { time }) };
  const source = {
    model: sequential(layers),
    loss,
    inputs,
    optimizer: adam({ rate: 0.1 }),
    dtype: "f32",
  } as const;
  return compileTraining(source, splitLayout(groups, split), shape);
}

/** What one device moves that is more than a scalar, kinds and phases apart; scalars are the loss and the norm of the gradient. */
export function movesOn({ programs }: CompiledStep, device: number): readonly Move[] {
  const moves = movesOf(programs[device] as Program, `cpu:${device}`);
  return addAlike(moves.filter(({ bytes }) => bytes > 4));
}

/** Bytes of all buffers of one kind on one device; views are part of others. */
export function bytesHeld({ programs }: CompiledStep, device: number, kind: BufferKind): number {
  return (programs[device] as Program).buffers.reduce(
    (sum, buffer) => sum + (buffer.kind === kind && !buffer.view ? bytesOfType(buffer.type) : 0),
    0,
  );
}
