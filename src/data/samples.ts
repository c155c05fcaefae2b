/** A data set of numbered samples: arrays and time series share how samples become batches. */
import { invariant, UserError } from "../base/errors.ts";
import { deriveKey, permutation } from "../base/random.ts";
import type { DType, TypedArray } from "../graph/dtype.ts";
import { allocate } from "../graph/dtype.ts";
import {
  type Batch,
  type BatchShape,
  type DataSet,
  distinctShapes,
  type InputSpec,
  ignoredTarget,
  inputShape,
  shapeKey,
  type TensorData,
} from "./dataset.ts";
import type { LastBatch } from "./options.ts";

/** One input of numbered samples, and how to copy one sample into a batch. */
export interface SampleSource {
  readonly spec: InputSpec;
  /** Writes `sample` into lane `lane` of `into`, whose shape is the spec's with `batch` lanes. */
  copy(sample: number, into: TypedArray, lane: number, batch: number): void;
}

export interface SamplesOptions {
  readonly training: readonly number[];
  readonly validation: readonly number[];
  readonly batch: number;
  /** Size of the time dims, where there are any. */
  readonly time?: number;
  readonly lastBatch: LastBatch;
  readonly description: DataSet["description"];
  /** What messages call the data. */
  readonly source: string;
}

/**
 * Seeded, shuffled training batches and ordered validation batches. "pad" fills the last batch with zeros and
 * targets that the loss ignores, for i32 "targets" only; validation is padded where it can be, else kept short.
 */
export function samplesDataSet(sources: readonly SampleSource[], options: SamplesOptions): DataSet {
  const { training, validation, batch, lastBatch, source } = options;
  const padding = sources.some(({ spec }) => spec.name === "targets" && spec.dtype === "i32");
  if (lastBatch === "pad" && !padding) {
    throw new UserError(`cannot pad the last batch of ${source}`, [
      'only i32 "targets" can be ignored by the loss; say lastBatch: "drop" or "keep"',
    ]);
  }
  const shape = (size: number): BatchShape =>
    options.time === undefined ? { batch: size } : { batch: size, time: options.time };
  const trainingSizes = batchSizes(training.length, batch, lastBatch);
  if (trainingSizes.length === 0) {
    throw new UserError(`${source} is too short`, [
      `its ${training.length} training samples do not fill one batch of ${batch}; choose a smaller batch or ` +
        'say lastBatch: "keep"',
    ]);
  }
  const validationSizes = batchSizes(
    validation.length,
    batch,
    padding && lastBatch !== "keep" ? "pad" : "keep",
  );
  return {
    inputs: sources.map(({ spec }) => spec),
    shapes: distinctShapes([...trainingSizes, ...validationSizes].map(shape)),
    training: (seed, epoch) => {
      const order = permutation(deriveKey("samples", seed, epoch), training.length);
      const shuffled = Array.from(order, (i) => training[i] as number);
      return gather(sources, shuffled, trainingSizes.map(shape));
    },
    validation: () => gather(sources, validation, validationSizes.map(shape)),
    batchesPerEpoch: trainingSizes.length,
    description: {
      ...options.description,
      "training samples": training.length,
      "validation samples": validation.length,
    },
  };
}

function batchSizes(samples: number, batch: number, last: LastBatch): number[] {
  const sizes = new Array<number>(Math.floor(samples / batch)).fill(batch);
  const rest = samples % batch;
  if (rest > 0 && last !== "drop") sizes.push(last === "pad" ? batch : rest);
  return sizes;
}

async function* gather(
  sources: readonly SampleSource[],
  order: readonly number[],
  shapes: readonly BatchShape[],
): AsyncGenerator<Batch> {
  let done = 0;
  for (const shape of shapes) {
    const taken = order.slice(done, done + shape.batch);
    done += taken.length;
    const tensors = sources.map((source) => [source.spec.name, tensor(source, taken, shape)] as const);
    const inputs: Record<string, TensorData> = Object.fromEntries(tensors);
    const key = shapeKey(shape);
    const targets = inputs["targets"];
    const valid = targets?.data instanceof Int32Array ? { validTargets: countValid(targets.data) } : {};
    yield { inputs, shapeKey: key, samples: taken.length, ...valid };
  }
}

function tensor({ spec, copy }: SampleSource, samples: readonly number[], shape: BatchShape): TensorData {
  const dims = inputShape(spec, shape);
  const data = emptyTensor(spec.name, spec.dtype, dims);
  for (const [lane, sample] of samples.entries()) copy(sample, data, lane, shape.batch);
  return { dtype: spec.dtype, shape: dims, data };
}

function emptyTensor(name: string, dtype: DType, dims: readonly number[]): TypedArray {
  const data = allocate(
    dtype,
    dims.reduce((product, dim) => product * dim, 1),
  );
  if (name === "targets" && data instanceof Int32Array) data.fill(ignoredTarget);
  return data;
}

function countValid(targets: Int32Array): number {
  return targets.reduce((count, target) => count + (target === ignoredTarget ? 0 : 1), 0);
}

/** Copies `length` elements between arrays of the same type. */
export function copyElements(
  from: TypedArray,
  start: number,
  into: TypedArray,
  at: number,
  length: number,
): void {
  const sameType = from.constructor === into.constructor;
  invariant(sameType, `copying ${from.constructor.name} into ${into.constructor.name}`);
  // The union of typed arrays has no common `set`; the types were just compared.
  (into as Float32Array).set((from as Float32Array).subarray(start, start + length), at);
}
