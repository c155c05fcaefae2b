/** Reads back what `printChromeTrace` wrote, so that a run can be looked at again without running it. */
import * as z from "zod";
import { UserError } from "../base/errors.ts";
import type { NamedTrace, SliceArgs } from "./chrome.ts";
import type { MemorySample, Trace, TraceEvent } from "./trace.ts";

/** The traces of a file of ours, to the nanosecond; throws a `UserError` for any other text. */
export function parseChromeTrace(text: string): readonly NamedTrace[] {
  const parsed = fileSchema.safeParse(parseJson(text));
  if (!parsed.success)
    throw new UserError(
      "cannot read the trace",
      parsed.error.issues.slice(0, 10).map(({ path, message }) => `${path.join(".")}: ${message}`),
    );
  const { otherData, traceEvents } = parsed.data;
  return otherData.runs.map(({ pid, name, origin, devices }) => {
    const own = traceEvents.filter((event) => event.pid === pid);
    const trace: Trace = {
      origin,
      devices,
      events: own.flatMap((event) => (event.ph === "X" ? [eventOf(event)] : [])),
      memory: own.flatMap((event) => (event.ph === "C" ? [sampleOf(event, devices)] : [])),
    };
    return { name, trace };
  });
}

const count = z.int().nonnegative();

const argsSchema = z.strictObject({
  device: count,
  stream: z.enum(["compute", "send", "receive", "collective"]),
  kind: z.enum(["run", "send", "receive", "collective", "wait"]),
  step: count,
  name: z.string().exactOptional(),
  phase: z.enum(["F", "B", "W", "U"]).exactOptional(),
  stage: count.exactOptional(),
  replica: count.exactOptional(),
  microBatch: count.exactOptional(),
  chunk: count.exactOptional(),
  bytes: z.number().nonnegative().exactOptional(),
  peer: count.exactOptional(),
  tag: z.int().exactOptional(),
});

const sliceSchema = z.object({
  ph: z.literal("X"),
  pid: z.int(),
  ts: z.number(),
  dur: z.number().nonnegative(),
  args: argsSchema,
});

const counterSchema = z.object({
  ph: z.literal("C"),
  name: z.string(),
  pid: z.int(),
  ts: z.number(),
  args: z.object({ bytes: z.number() }),
});

const fileSchema = z.object({
  otherData: z.object({
    format: z.literal("paraxis-trace"),
    version: z.literal(1),
    runs: z.array(
      z.object({
        pid: z.int(),
        name: z.string(),
        origin: z.enum(["measured", "predicted"]),
        devices: z.array(z.string()),
      }),
    ),
  }),
  traceEvents: z.array(
    z.discriminatedUnion("ph", [
      sliceSchema,
      counterSchema,
      z.object({ ph: z.enum(["M", "s", "f"]), pid: z.int() }),
    ]),
  ),
});

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError("cannot read the trace", [error instanceof Error ? error.message : String(error)]);
  }
}

function eventOf({ ts, dur, args }: { ts: number; dur: number; args: SliceArgs }): TraceEvent {
  const { microBatch, chunk, ...rest } = args;
  const start = Math.round(ts * 1000);
  const times = { start: start / 1e9, end: (start + Math.round(dur * 1000)) / 1e9 };
  return microBatch === undefined || chunk === undefined
    ? { ...rest, ...times }
    : { ...rest, ...times, item: { microBatch, chunk } };
}

function sampleOf(event: z.infer<typeof counterSchema>, devices: readonly string[]): MemorySample {
  const device = devices.findIndex((name) => event.name === `memory ${name}`);
  return { device, time: Math.round(event.ts * 1000) / 1e9, bytes: event.args.bytes };
}
