/** Data that are already in memory: named arrays whose first dim counts the samples. */
import * as z from "zod";
import { UserError } from "../base/errors.ts";
import { allocate } from "../graph/dtype.ts";
import type { DataSet, InputSpec, TensorData } from "./dataset.ts";
import { type LastBatch, oneOf, parseOptions, positiveInteger, text, validationShare } from "./options.ts";
import { copyElements, type SampleSource, samplesDataSet } from "./samples.ts";
import { type SplitMode, splitSamples } from "./split.ts";

export interface ArraysOptions {
  /** Samples in a batch; default 32. */
  readonly batch?: number;
  /** Samples that do not fill a training batch; default "drop"; "pad" needs i32 "targets". */
  readonly lastBatch?: LastBatch;
  /** Part of the samples held out; default 0.05. */
  readonly validationShare?: number;
  /** Which samples are held out: "seeded" choice (default), or the end ("position"). */
  readonly split?: SplitMode;
  /** What messages call the data; default "the arrays". */
  readonly source?: string;
}

const arraysSchema = z.strictObject({
  batch: positiveInteger.default(32),
  lastBatch: oneOf("drop", "pad", "keep").default("drop"),
  validationShare: validationShare.default(0.05),
  split: oneOf("seeded", "position").default("seeded"),
  source: text.default("the arrays"),
});

/**
 * The data set of the arrays: an input [batch, ...rest] for each array [samples, ...rest], by its name; the
 * labels are called "targets". UserError where sizes do not agree.
 */
export function arrays(
  inputs: { readonly [name: string]: TensorData },
  options: ArraysOptions = {},
): DataSet {
  const checked = parseOptions(arraysSchema, options, "arrays");
  const entries = Object.entries(inputs);
  const problems = entries.flatMap(([name, tensor]) => tensorProblems(name, tensor));
  const counts = new Set(entries.map(([, { shape }]) => shape[0]));
  if (entries.length === 0) problems.push("there is no array");
  if (counts.size > 1) {
    const sizes = entries.map(([name, { shape }]) => `"${name}" ${shape[0]}`).join(", ");
    problems.push(`all arrays must have the same number of samples in their first dim, got ${sizes}`);
  }
  if (problems.length > 0) throw new UserError(`cannot use ${checked.source}`, problems);
  const [samples = 0] = counts;
  const split = splitSamples(samples, checked.validationShare, checked.split);
  return samplesDataSet(entries.map(arraySource), {
    ...checked,
    ...split,
    description: { data: checked.source },
  });
}

function arraySource([name, tensor]: readonly [string, TensorData]): SampleSource {
  const rest = tensor.shape.slice(1);
  const size = rest.reduce((product, dim) => product * dim, 1);
  const spec: InputSpec = {
    name,
    dtype: tensor.dtype,
    dims: ["batch", ...rest.map((dim) => ({ size: dim }))],
  };
  return {
    spec,
    copy: (sample, into, lane) => copyElements(tensor.data, sample * size, into, lane * size, size),
  };
}

function tensorProblems(name: string, { dtype, shape, data }: TensorData): string[] {
  const problems: string[] = [];
  const expected = allocate(dtype, 0).constructor;
  if (data.constructor !== expected) {
    problems.push(
      `"${name}" is ${dtype}, which is stored in a ${expected.name}, got a ${data.constructor.name}`,
    );
  }
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (shape.length === 0) {
    problems.push(`"${name}" needs a first dim that counts the samples, got a scalar`);
  } else if (size !== data.length) {
    problems.push(`"${name}" has shape [${shape.join(", ")}], ${size} elements, but ${data.length} values`);
  }
  return problems;
}
