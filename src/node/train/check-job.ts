/** A job as it comes from a job file, in which everything can be wrong: every fault is listed at once. */

import * as z from "zod";
import { UserError } from "../../base/errors.ts";
import type { DataSet } from "../../data/dataset.ts";
import { custom, positiveInteger } from "../../data/options.ts";
import type { Job } from "../../model/job.ts";

function isRecord(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasKind(value: unknown): boolean {
  return isRecord(value) && typeof value["kind"] === "string";
}

function isOptimizer(value: unknown): boolean {
  return isRecord(value) && typeof value["update"] === "function" && typeof value["scalars"] === "function";
}

function isDataSet(value: unknown): boolean {
  return (
    isRecord(value) &&
    Array.isArray(value["inputs"]) &&
    Array.isArray(value["shapes"]) &&
    typeof value["training"] === "function" &&
    typeof value["validation"] === "function"
  );
}

function isPromise(value: unknown): boolean {
  return isRecord(value) && typeof value["then"] === "function";
}

const dataSetText = 'a data set, such as words("moby-dick") from "paraxis/node", or a promise of one';

/** In the order in which people write them; also what an unknown field is told. */
const fields: { readonly [K in keyof Required<Job>]: z.ZodType<unknown> } = {
  model: custom(
    (value) => typeof value === "function",
    "a layer, such as nn.sequential([ ... ]), or a function of the inputs",
  ),
  loss: custom(
    (value) => value === "cross-entropy" || value === "mean-squared-error" || typeof value === "function",
    '"cross-entropy", "mean-squared-error" or a function',
  ),
  metrics: custom(
    (value) => isRecord(value) && Object.values(value).every((metric) => typeof metric === "function"),
    "a record from name to function, such as { accuracy }",
  ).optional(),
  optimizer: custom(isOptimizer, "an optimizer, such as sgd({ rate: 0.1 })"),
  data: custom((value) => isDataSet(value) || isPromise(value), dataSetText),
  name: custom((value) => typeof value === "string" && value !== "", "a text").optional(),
  initializer: custom(hasKind, "an initialiser, such as uniformWithin(0.1)").optional(),
  recompute: custom(
    (value) =>
      value === "none" ||
      value === "full" ||
      (Array.isArray(value) && value.every((group) => typeof group === "string")),
    '"none", "full" or a list of groups',
  ).optional(),
  place: custom(
    (value) => isRecord(value) && Object.values(value).every((device) => typeof device === "string"),
    'a record from group to device, such as { embed: "cpu:0", "layer*": "cpu:1" }',
  ).optional(),
  epochs: positiveInteger.optional(),
  steps: positiveInteger.optional(),
  seed: custom((value) => Number.isSafeInteger(value), "a whole number").optional(),
};

const schema = z.strictObject(fields);

/** The job itself, unchanged; UserError lists every unknown field and every value of a wrong type. */
export function checkJob(given: unknown): Job {
  if (!isRecord(given)) {
    throw new UserError("this is not a job", [`expected defineJob({ ... }), got ${showKind(given)}`]);
  }
  const result = schema.safeParse(given);
  if (result.success) return given as unknown as Job;
  throw new UserError("the job is not valid", result.error.issues.flatMap(describeIssue));
}

/** The data of a job once they are there; UserError where they are none, or hold no full batch. */
export async function awaitData(data: Job["data"]): Promise<DataSet> {
  const arrived: unknown = await data;
  if (!isDataSet(arrived)) {
    throw new UserError("the job is not valid", [
      `data must be ${dataSetText}, got a promise of ${showKind(arrived)}`,
    ]);
  }
  const checked = arrived as DataSet;
  if (checked.shapes.length === 0 || checked.batchesPerEpoch === 0) {
    throw new UserError("the job's data hold no full training batch", [
      'give more data, a smaller batch, or lastBatch: "keep"',
    ]);
  }
  return checked;
}

function describeIssue(issue: z.core.$ZodIssue): string[] {
  if (issue.code === "unrecognized_keys") {
    const known = Object.keys(fields).join(", ");
    return issue.keys.map((key) => `unknown field "${key}"; a job has ${known}`);
  }
  return [`${issue.path.join(".")} ${issue.message}`];
}

function showKind(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "a list";
  return typeof value === "function"
    ? "a function"
    : `${typeof value === "object" ? "an" : "a"} ${typeof value}`;
}
