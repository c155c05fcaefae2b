/**
 * What a training run asks of its data: named tensors in batches whose shapes are known before the run starts,
 * with the role of every dim, so that work can be cut over samples (micro-batches) and over time (chunks).
 *
 *     shapes  [{ batch: 20, time: 8 }, { batch: 20, time: 16 }, ...]     one program set for each
 *     inputs  tokens  i32 [time, batch]      targets  i32 [time, batch]
 */
import type { DType, TypedArray } from "../graph/dtype.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** The target that the loss ignores: padding. */
export const ignoredTarget = -1;

/** A tensor in C order; `data` holds exactly the product of `shape` elements of `dtype`. */
export interface TensorData {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: TypedArray;
}

/** The role of one dim: samples, time steps, or a fixed size. */
export type DimSpec = "batch" | "time" | { readonly size: number };

/** One named input of the model or the loss; the loss's is called "targets", a text's "tokens". */
export interface InputSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly DimSpec[];
}

/** The sizes of the variable dims of one batch; `time` is absent where no input has a time dim. */
export interface BatchShape {
  readonly batch: number;
  readonly time?: number;
}

/** One mini-batch; its arrays are freshly allocated and belong to the receiver. */
export interface Batch {
  readonly inputs: { readonly [name: string]: TensorData };
  /** Equal for batches of equal shape: `shapeKey` of one of the data set's `shapes`. */
  readonly shapeKey: string;
  /** Number of targets that are not ignored, over the whole batch; absent where targets cannot be ignored. */
  readonly validTargets?: number;
  /** Number of samples (for text: sentences, pieces or lanes), without padding. */
  readonly samples: number;
  /** Number of input tokens, without padding. */
  readonly tokens?: number;
}

/** Batches for training and validation; every number in them is a function of the data, seed and epoch. */
export interface DataSet {
  readonly inputs: readonly InputSpec[];
  /** Every shape that a batch can have, training first, without duplicates. */
  readonly shapes: readonly BatchShape[];
  /** The batches of one epoch, in an order that is a function of seed and epoch; may be iterated again. */
  training(seed: number, epoch: number): AsyncIterable<Batch>;
  /** The validation batches, always the same ones in the same order; none where nothing is held out. */
  validation(): AsyncIterable<Batch>;
  /** Number of training batches, the same in every epoch. */
  readonly batchesPerEpoch: number;
  /** Facts for people: label → number or text. */
  readonly description: { readonly [label: string]: string | number };
  /**
   * The perplexity on `validation()` of predicting each target by its frequency in training, with add-one
   * smoothing over the vocabulary: what a language model must beat. Absent where nothing is held out.
   */
  readonly unigramPerplexity?: number;
  readonly vocabulary?: Vocabulary;
}

/** A text that is equal for equal shapes, such as "batch=20 time=32". */
export function shapeKey(shape: BatchShape): string {
  return shape.time === undefined ? `batch=${shape.batch}` : `batch=${shape.batch} time=${shape.time}`;
}

/** The shape of an input in a batch of the given shape; a time dim without a time has size 1. */
export function inputShape(input: InputSpec, shape: BatchShape): number[] {
  return input.dims.map((dim) => {
    if (dim === "batch") return shape.batch;
    return dim === "time" ? (shape.time ?? 1) : dim.size;
  });
}

/** The shapes without duplicates, in order of first appearance. */
export function distinctShapes(shapes: readonly BatchShape[]): BatchShape[] {
  return [...new Map(shapes.map((shape) => [shapeKey(shape), shape])).values()];
}
