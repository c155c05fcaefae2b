/** Random models that can be split along the axes of a mesh: images, sequences with attention, sequences with recurrent layers. */

import fc from "fast-check";
import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import type { MeshAxis } from "../../src/layout/layout.ts";
import type { Layer } from "../../src/model/layer.ts";
import { transformerBlock } from "../../src/model/layers/attention.ts";
import {
  batchNorm,
  dropout,
  embedding,
  flatten,
  layerNorm,
  linear,
  residual,
  sequential,
  tanh,
} from "../../src/model/layers/basic.ts";
import { avgPool, convolution, maxPool } from "../../src/model/layers/convolution.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { adam, sgd } from "../../src/model/optimizer.ts";
import type { Example } from "./models.ts";

export interface RandomExample extends Example {
  /** The axes that some layer can carry. */
  readonly axes: readonly MeshAxis[];
  /** Whether it keeps statistics of its samples, which replicas may not have. */
  readonly hasStatistics: boolean;
}

/** What decides on one group. */
interface Draw {
  readonly kind: number;
  readonly size: number;
  readonly numbers: readonly [number, number, number, number];
  readonly isDropped: boolean;
}

const draws: fc.Arbitrary<readonly Draw[]> = fc.array(
  fc.record({
    kind: fc.nat(99),
    size: fc.integer({ min: 2, max: 6 }),
    numbers: fc.tuple(fc.nat(5), fc.nat(5), fc.nat(5), fc.nat(5)),
    isDropped: fc.boolean(),
  }),
  { minLength: 1, maxLength: 4 },
);

const optimizers = fc.constantFrom(
  sgd({ rate: 0.2, momentum: 0.9, clipNorm: 0.1 }),
  adam({ rate: 0.01, epsilon: 1e-3, clipNorm: 0.3 }),
);

const vocabulary = 7;

/** [C, H, W] */
type ImageShape = readonly [number, number, number];

interface Slide {
  readonly kernel: readonly [number, number];
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
}

/** Windows that fit into an image, and the rows and columns of what they make. */
function slideOf([a, b, c, d]: Draw["numbers"], [, height, width]: ImageShape) {
  const kernel = [1 + (a % Math.min(3, height)), 1 + (b % Math.min(3, width))] as const;
  const stride = [1 + (Math.floor(a / 3) % 2), 1 + (Math.floor(b / 3) % 2)] as const;
  const padding = [c % (1 + Math.floor(kernel[0] / 2)), d % (1 + Math.floor(kernel[1] / 2))] as const;
  const made = ([height, width] as const).map(
    (size, i) =>
      1 + Math.floor((size + 2 * (padding[i] as number) - (kernel[i] as number)) / (stride[i] as number)),
  ) as [number, number];
  return { slide: { kernel, stride, padding } satisfies Slide, made };
}

function imageLayer(
  { kind, size, numbers }: Draw,
  group: string,
  shape: ImageShape,
): { readonly layer: Layer; readonly shape: ImageShape; readonly hasStatistics?: boolean } {
  const { slide, made } = slideOf(numbers, shape);
  const [channels] = shape;
  switch (kind % 6) {
    case 0:
      return { layer: maxPool({ ...slide, group }), shape: [channels, ...made] };
    case 1:
      return { layer: avgPool({ ...slide, group }), shape: [channels, ...made] };
    case 2:
      return { layer: batchNorm({ group }), shape, hasStatistics: true };
    default: {
      const layer = sequential([convolution({ channels: size, ...slide, group }), tanh({ group })]);
      return { layer, shape: [size, ...made] };
    }
  }
}

/** Convolutions and pooling of any kernel, stride and padding; classes, or numbers for every pixel, at the end. */
export const imageExamples: fc.Arbitrary<RandomExample> = fc
  .record({
    list: draws,
    batch: fc.integer({ min: 2, max: 4 }),
    image: fc.tuple(
      fc.integer({ min: 1, max: 3 }),
      fc.integer({ min: 5, max: 9 }),
      fc.integer({ min: 5, max: 9 }),
    ),
    isClassified: fc.boolean(),
    optimizer: optimizers,
  })
  .map(({ list, batch, image, isClassified, optimizer }): RandomExample => {
    const groups = ["stem", ...list.map((_, i) => `g${i}`)];
    let shape: ImageShape = [4, image[1], image[2]];
    const layers: Layer[] = [convolution({ channels: 4, kernel: 3, padding: "same", group: "stem" })];
    let hasStatistics = false;
    for (const [i, draw] of list.entries()) {
      const made = imageLayer(draw, `g${i}`, shape);
      layers.push(...withDropout(made.layer, draw, `g${i}`));
      shape = made.shape;
      hasStatistics ||= made.hasStatistics === true;
    }
    const head = isClassified ? ["head"] : [];
    const classes = () =>
      sequential([flatten({ group: "head" }), linear({ units: vocabulary, group: "head" })]);
    const sizes = (dims: ImageShape) => dims.map((size) => ({ size }));
    return {
      name: "random images",
      source: {
        model: sequential(isClassified ? [...layers, classes()] : layers),
        loss: isClassified ? "cross-entropy" : "mean-squared-error",
        inputs: [
          { name: "x", dtype: "f32", dims: ["batch", ...sizes(image)] },
          isClassified
            ? { name: "targets", dtype: "i32", dims: ["batch"] }
            : { name: "targets", dtype: "f32", dims: ["batch", ...sizes(shape)] },
        ],
        optimizer,
        dtype: "f64",
      },
      groups: [...groups, ...head],
      shapes: [{ batch }],
      hasChunks: false,
      vocabulary,
      axes: ["height", "width", "tensor"],
      hasStatistics,
    };
  });

function withDropout(layer: Layer, { isDropped }: Draw, group: string): readonly Layer[] {
  return isDropped ? [layer, dropout({ rate: 0.3, group, name: `${group}.drop` })] : [layer];
}

/** A layer over [batch, time, features] and the features of its result. */
function positionLayer({ kind, size, numbers }: Draw, group: string, features: number) {
  switch (kind % 5) {
    case 0:
      return { layer: layerNorm({ group }), features };
    case 1:
      return { layer: residual(linear({ units: features, group }), { group }), features };
    case 2: {
      const heads = 1 + (numbers[0] % 3);
      const wide = linear({ units: 2 * heads, group, name: `${group}.wide` });
      const block = transformerBlock({ heads, causal: numbers[1] > 2, expansion: 2, group });
      return { layer: sequential([wide, block]), features: 2 * heads };
    }
    default:
      return { layer: sequential([linear({ units: size, group }), tanh({ group })]), features: size };
  }
}

/** A layer over [time, batch, features] and the features of its result. */
function recurrentLayer({ kind, size, numbers }: Draw, group: string, features: number) {
  switch (kind % 4) {
    case 0:
      return { layer: layerNorm({ group }), features };
    case 1:
      return { layer: sequential([linear({ units: size, group }), tanh({ group })]), features: size };
    default:
      return { layer: (numbers[0] > 2 ? lstm : gru)({ units: size, group }), features: size };
  }
}

interface SequenceKind {
  readonly name: string;
  readonly dims: readonly ("batch" | "time")[];
  readonly layer: typeof positionLayer;
  readonly hasChunks: boolean;
  readonly axes: readonly MeshAxis[];
}

const kinds: readonly SequenceKind[] = [
  {
    name: "random positions",
    dims: ["batch", "time"],
    layer: positionLayer,
    hasChunks: false,
    axes: ["sequence", "tensor"],
  },
  {
    name: "random recurrences",
    dims: ["time", "batch"],
    layer: recurrentLayer,
    hasChunks: true,
    axes: ["tensor"],
  },
];

/** Words or numbers, then layers over positions, attention or recurrences, then a decoder. */
export const sequenceExamples: fc.Arbitrary<RandomExample> = fc
  .record({
    list: draws,
    kind: fc.constantFrom(...kinds),
    batch: fc.integer({ min: 2, max: 4 }),
    time: fc.integer({ min: 2, max: 5 }),
    width: fc.integer({ min: 2, max: 5 }),
    isText: fc.boolean(),
    optimizer: optimizers,
  })
  .map(({ list, kind, batch, time, width, isText, optimizer }): RandomExample => {
    const first = isText
      ? embedding({ vocabulary, dim: width, group: "first" })
      : linear({ units: width, group: "first" });
    const layers: Layer[] = [first];
    let features = width;
    for (const [i, draw] of list.entries()) {
      const made = kind.layer(draw, `g${i}`, features);
      layers.push(...withDropout(made.layer, draw, `g${i}`));
      features = made.features;
    }
    const word: Omit<InputSpec, "name"> = { dtype: "i32", dims: kind.dims };
    const numbers = (size: number): Omit<InputSpec, "name"> => ({
      dtype: "f32",
      dims: [...kind.dims, { size }],
    });
    const shape: BatchShape = { batch, time };
    return {
      name: kind.name,
      source: {
        model: sequential([...layers, linear({ units: vocabulary, group: "last" })]),
        loss: isText ? "cross-entropy" : "mean-squared-error",
        inputs: [
          { name: "x", ...(isText ? word : numbers(3)) },
          { name: "targets", ...(isText ? word : numbers(vocabulary)) },
        ],
        optimizer,
        dtype: "f64",
      },
      groups: ["first", ...list.map((_, i) => `g${i}`), "last"],
      shapes: [shape],
      hasChunks: kind.hasChunks,
      vocabulary,
      axes: kind.axes,
      hasStatistics: false,
    };
  });
