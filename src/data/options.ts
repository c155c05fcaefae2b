/** Options of the data sets, checked once at the border: every wrong, unknown or missing one is listed at once. */
import * as z from "zod";
import { UserError } from "../base/errors.ts";

/** What to do with samples that do not fill a batch: leave out, fill with ignored ones, or a smaller batch. */
export type LastBatch = "drop" | "pad" | "keep";

/** The checked options with their defaults; UserError lists all problems of the options of `subject`. */
export function parseOptions<Options>(schema: z.ZodType<Options>, given: unknown, subject: string): Options {
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  throw new UserError(`cannot use the options of ${subject}`, result.error.issues.map(describeIssue));
}

/** A whole number of at least 1. */
export const positiveInteger: z.ZodType<number> = custom(
  (value) => Number.isSafeInteger(value) && Number(value) >= 1,
  "a positive whole number",
);

/** A whole number of at least 0. */
export const wholeNumber: z.ZodType<number> = custom(
  (value) => Number.isSafeInteger(value) && Number(value) >= 0,
  "a whole number of at least 0",
);

/** The part held out for validation: 0 ≤ share < 1. */
export const validationShare: z.ZodType<number> = custom(
  (value) => typeof value === "number" && value >= 0 && value < 1,
  "a number of at least 0 and below 1",
);

export const flag: z.ZodType<boolean> = custom((value) => typeof value === "boolean", "true or false");

export const text: z.ZodType<string> = custom((value) => typeof value === "string", "a text");

/** A list of at least one column name. */
export const names: z.ZodType<readonly string[]> = custom(
  (value) =>
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((name) => typeof name === "string") &&
    new Set(value).size === value.length,
  "a list of different names",
);

/** One of the given words. */
export function oneOf<const Word extends string | boolean>(...words: readonly Word[]): z.ZodType<Word> {
  const expected = words.map((word) => JSON.stringify(word)).join(" or ");
  return custom((value) => words.some((word) => word === value), expected);
}

/** Any value for which `accepts` holds; the message is "must be `expected`, got ...". */
export function custom<Value>(accepts: (value: unknown) => boolean, expected: string): z.ZodType<Value> {
  return z.custom<Value>(accepts, { error: (issue) => `must be ${expected}, got ${show(issue.input)}` });
}

function describeIssue(issue: z.core.$ZodIssue): string {
  if (issue.code === "unrecognized_keys") {
    return `unknown option ${issue.keys.map((key) => JSON.stringify(key)).join(", ")}`;
  }
  return issue.path.length === 0 ? issue.message : `option "${issue.path.join(".")}" ${issue.message}`;
}

function show(value: unknown): string {
  if (typeof value === "number" || value === undefined) return String(value);
  const shown = JSON.stringify(value) ?? typeof value;
  return shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
}
