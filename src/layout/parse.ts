/** Layouts as JSON text. `parseLayout(printLayout(layout))` equals `layout`; equal layouts have equal texts. */

import * as z from "zod";
import { UserError } from "../base/errors.ts";
import { custom, oneOf, positiveInteger, text } from "../data/options.ts";
import { type LayoutParts, layoutProblems } from "./check.ts";
import { type Layout, scheduleNames, weightTimings } from "./layout.ts";

/** A further check of a layout that is sound by itself, against a model or a schedule; one sentence for each problem. */
export type LayoutCheck = (layout: Layout) => readonly string[];

/**
 * The layout of a JSON document that also passes `checks`. Throws a `UserError` that lists every problem with its place in the
 * document, such as `stages[1].groups[0]`.
 */
export function parseLayout(source: string, ...checks: readonly LayoutCheck[]): Layout {
  const value = parseJson(source);
  const parsed = layoutSchema.safeParse(value);
  const parts: LayoutParts | undefined = partsSchema.safeParse(value).data;
  const problems = [
    ...(parsed.error?.issues.map(describeIssue) ?? []),
    ...(parts === undefined ? [] : layoutProblems(parts)),
  ];
  if (parsed.data !== undefined && problems.length === 0)
    problems.push(...checks.flatMap((check) => check(parsed.data)));
  if (parsed.data === undefined || problems.length > 0)
    throw new UserError("the layout cannot be used", problems);
  return parsed.data;
}

/** The layout as JSON with its fields in a fixed order, one line for each device and stage; ends with a line break. */
export function printLayout(layout: Layout): string {
  const devices = layout.devices.map(({ name, threads }) => printRecord({ name, threads }));
  const stages = layout.stages.map(({ device, replicas, groups }) =>
    printRecord({ device, ...(replicas && { replicas }), groups }),
  );
  const { microBatches, chunks, shortestChunk, schedule, weights, recompute } = layout;
  const shortest = shortestChunk === undefined ? {} : { shortestChunk };
  const counts = Object.entries({ microBatches, chunks, ...shortest, schedule, weights, recompute }).map(
    ([field, value]) => `  ${JSON.stringify(field)}: ${printValue(value)}`,
  );
  const fields = [
    `  "version": ${layout.version}`,
    `  "devices": ${printLines(devices)}`,
    `  "stages": ${printLines(stages)}`,
    ...counts,
  ];
  return `{\n${fields.join(",\n")}\n}\n`;
}

type Value = string | number | readonly string[];

function printLines(records: readonly string[]): string {
  return `[\n${records.map((record) => `    ${record}`).join(",\n")}\n  ]`;
}

function printRecord(record: { readonly [field: string]: Value }): string {
  const fields = Object.entries(record).map(
    ([field, value]) => `${JSON.stringify(field)}: ${printValue(value)}`,
  );
  return `{ ${fields.join(", ")} }`;
}

function printValue(value: Value): string {
  return typeof value === "object"
    ? `[${value.map((item) => JSON.stringify(item)).join(", ")}]`
    : JSON.stringify(value);
}

function parseJson(source: string): unknown {
  try {
    return JSON.parse(source);
  } catch (error) {
    throw new UserError("the layout is not JSON", [(error as Error).message]);
  }
}

/** An object with exactly the fields of `shape`. */
function record<Shape extends z.ZodRawShape>(shape: Shape): z.ZodObject<Shape, z.core.$strict> {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? `unknown field ${issue.keys.map((key) => JSON.stringify(key)).join(", ")}; the fields are ${Object.keys(shape).join(", ")}`
        : `must be an object with ${Object.keys(shape).join(", ")}, got ${kindOf(issue.input)}`,
  });
}

function listOf<Item>(item: z.ZodType<Item>): z.ZodType<readonly Item[]> {
  return z.array(item, { error: (issue) => `must be a list, got ${kindOf(issue.input)}` });
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  return Array.isArray(value) ? "a list" : `${JSON.stringify(value)}`.slice(0, 60);
}

const layoutSchema: z.ZodType<Layout> = record({
  version: custom<1>((value) => value === 1, "1, the only version there is"),
  devices: listOf(record({ name: text, threads: positiveInteger })),
  stages: listOf(record({ device: text, replicas: listOf(text).optional(), groups: listOf(text) })),
  microBatches: positiveInteger,
  chunks: positiveInteger,
  shortestChunk: positiveInteger.optional(),
  schedule: oneOf(...scheduleNames),
  weights: oneOf(...weightTimings),
  recompute: custom<Layout["recompute"]>(
    (value) =>
      value === "none" ||
      value === "full" ||
      (Array.isArray(value) && value.every((group) => typeof group === "string")),
    `"none", "full" or a list of groups`,
  ),
});

/** Reads whatever is in its place, so that the names are checked also in a document with other faults. */
const partsSchema: z.ZodType<LayoutParts> = z.object({
  devices: z.array(z.object({ name: z.string().optional().catch(undefined) }).catch({})),
  stages: z.array(
    z
      .object({
        device: z.string().optional().catch(undefined),
        replicas: z.array(z.string()).optional().catch(undefined),
        groups: z.array(z.string().optional().catch(undefined)).catch([undefined]),
      })
      .catch({ groups: [undefined] }),
  ),
});

function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  const place = path.startsWith(".") ? path.slice(1) : path;
  return place === "" ? issue.message : `${place}: ${issue.message}`;
}
