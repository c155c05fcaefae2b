/**
 * Layouts as JSON text. `parseLayout(printLayout(layout))` equals `layout` without axes of size 1, meshes without axes and empty shardings;
 * equal layouts have equal texts. A stage on one device has a short form: `"device": "cpu:0"` for `"devices": ["cpu:0"]`.
 */

import * as z from "zod";
import { UserError } from "../base/errors.ts";
import { custom, oneOf, positiveInteger, text } from "../data/options.ts";
import { layoutProblems } from "./check.ts";
import { type LayoutParts, unknownAxes } from "./check-devices.ts";
import {
  type Layout,
  type LayoutStage,
  type Mesh,
  meshAxes,
  scheduleNames,
  weightTimings,
  type ZeroStage,
  zeroStages,
} from "./layout.ts";

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
  /** Both find faulty meshes, in the same words. */
  const problems = [
    ...new Set([
      ...(parsed.error?.issues.map(describeIssue) ?? []),
      ...(parts === undefined ? [] : layoutProblems(parts)),
    ]),
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
  const stages = layout.stages.map(printStage);
  const { zero, microBatches, chunks, shortestChunk, schedule, weights, recompute } = layout;
  const shortest = shortestChunk === undefined ? {} : { shortestChunk };
  const shared = zero === undefined ? {} : { zero };
  const counts = Object.entries({
    ...shared,
    microBatches,
    chunks,
    ...shortest,
    schedule,
    weights,
    recompute,
  }).map(([field, value]) => `  ${JSON.stringify(field)}: ${printValue(value)}`);
  const fields = [
    `  "version": ${layout.version}`,
    `  "devices": ${printLines(devices)}`,
    `  "stages": ${printLines(stages)}`,
    ...printShardings(layout.shardings),
    ...counts,
  ];
  return `{\n${fields.join(",\n")}\n}\n`;
}

type Value = string | number | readonly (string | number)[] | { readonly [field: string]: string | number };

function printStage(stage: LayoutStage): string {
  const { devices, shares, groups } = stage;
  const [device] = devices;
  const mesh = Object.fromEntries(meshAxes(stage).map(({ axis, size }) => [axis, size]));
  return printRecord({
    ...(device !== undefined && devices.length === 1 ? { device } : { devices }),
    ...(meshAxes(stage).length > 0 && { mesh }),
    ...(shares && { shares }),
    groups,
  });
}

/** By name, so that equal shardings have equal texts. */
function printShardings(shardings: Layout["shardings"] = {}): readonly string[] {
  const entries = Object.entries(shardings).toSorted(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length === 0) return [];
  const lines = entries.map(([name, dim]) => `    ${JSON.stringify(name)}: ${JSON.stringify(dim)}`);
  return [`  "shardings": {\n${lines.join(",\n")}\n  }`];
}

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
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item) => JSON.stringify(item)).join(", ")}]`;
  return printRecord(value as { readonly [field: string]: string | number });
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

const axis = positiveInteger.optional();

/** Without axes of size 1. */
const meshSchema = z
  .strictObject(
    { height: axis, width: axis, sequence: axis, tensor: axis },
    {
      error: (issue) =>
        issue.code === "unrecognized_keys"
          ? unknownAxes(issue.keys)
          : `must be an object with sizes of axes such as { "tensor": 2 }, got ${kindOf(issue.input)}`,
    },
  )
  .transform((mesh): Mesh => Object.fromEntries(meshAxes({ mesh }).map(({ axis, size }) => [axis, size])));

/** How many of the two ways to name devices a stage uses. */
function placings(stage: unknown): number {
  return ["device", "devices"].filter((field) => field in (stage as object)).length;
}

const stageSchema = record({
  device: text.optional(),
  devices: listOf(text).optional(),
  mesh: meshSchema.optional(),
  shares: listOf(positiveInteger).optional(),
  groups: listOf(text),
})
  .refine((stage) => placings(stage) === 1, {
    when: ({ value }) => typeof value === "object" && value !== null,
    error: ({ input }) =>
      placings(input) === 0
        ? `must name its "device", or its "devices": replica by replica, one for each rank of its mesh`
        : `has "device" and "devices", but the one is short for the other: leave out "device"`,
  })
  .transform(
    ({ device = "", devices = [device], mesh = {}, shares, groups }): LayoutStage => ({
      devices,
      ...(meshAxes({ mesh }).length > 0 && { mesh }),
      ...(shares && { shares }),
      groups,
    }),
  );

const layoutSchema: z.ZodType<Layout> = record({
  version: custom<1>((value) => value === 1, "1, the only version there is"),
  devices: listOf(record({ name: text, threads: positiveInteger })),
  stages: listOf(stageSchema),
  shardings: z
    .object(
      {},
      {
        error: (issue) => `must be an object from parameters to dims or "whole", got ${kindOf(issue.input)}`,
      },
    )
    .catchall(
      custom<number | "whole">(
        (value) => value === "whole" || (Number.isSafeInteger(value) && Number(value) >= 0),
        `a dim counted from 0, or "whole"`,
      ),
    )
    .optional(),
  zero: custom<ZeroStage>(
    (value) => zeroStages.some((stage) => stage === value),
    "0, 1 (replicas share the optimizer's state and the update) or 2 (gradients too)",
  ).optional(),
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

const unreadable: { readonly [axis: string]: unknown } = {};

/** Reads whatever is in its place, so that the names are checked also in a document with other faults. */
const partsSchema: z.ZodType<LayoutParts> = z.object({
  devices: z.array(z.object({ name: z.string().optional().catch(undefined) }).catch({})),
  stages: z.array(
    z
      .object({
        device: z.string().optional().catch(undefined),
        devices: z.array(z.string()).optional().catch(undefined),
        mesh: z.looseObject({}).optional().catch(unreadable),
        shares: z.array(z.unknown()).optional().catch(undefined),
        groups: z.array(z.string().optional().catch(undefined)).catch([undefined]),
      })
      .transform(({ device, devices = device === undefined ? undefined : [device], mesh, shares, groups }) =>
        mesh === unreadable ? { groups } : { devices, mesh, shares, groups },
      )
      .catch({ groups: [undefined] }),
  ),
});

function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  const place = path.startsWith(".") ? path.slice(1) : path;
  return place === "" ? issue.message : `${place}: ${issue.message}`;
}
