/**
 * What do two devices bring over one? The main job's step (bucket 32) in turns: one device with one and with two threads, two devices
 * placed naively, two devices pipelined. (a) one mini-batch of 20, cut in time chunks; (b) four sentence batches of 20 per update.
 * `npm run bench -- pipeline --json`
 */

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Layout } from "../src/layout/layout.ts";
import { choosePipeline } from "../src/plan/pipeline.ts";
import { compare } from "./contest.ts";
import { machine, report, round } from "./measure.ts";
import { lstmWorkload, type Workload } from "./workloads.ts";

const layers = Array.from({ length: 8 }, (_, i) => `layer${i}`);
const groups = ["embed", ...layers, "decode"];

type Shape = Pick<Layout, "microBatches" | "chunks" | "schedule" | "weights">;

function layout(threads: readonly number[], split: number, shape: Shape): Layout {
  const devices = threads.map((count, i) => ({ name: `cpu:${i}`, threads: count }));
  const cuts = threads.length === 1 ? [groups] : [groups.slice(0, split), groups.slice(split)];
  return {
    version: 1,
    devices,
    stages: cuts.map((held, i) => ({ devices: [`cpu:${i}`], groups: held })),
    recompute: "none",
    ...shape,
  };
}

const whole: Shape = { microBatches: 1, chunks: 1, schedule: "naive", weights: "fused" };

/** The planner's own choice for two equal devices. */
function automatic(workload: Workload, microBatches: number): Layout {
  const { source, data } = workload;
  const devices = [0, 1].map((i) => ({ name: `cpu:${i}`, threads: 1 }));
  const choice = choosePipeline({ source, shapes: data.shapes, devices, microBatches });
  console.error(choice.reasons.join("\n"));
  return choice.layout;
}

const one = lstmWorkload(20);
const a = await compare(one, {
  oneDevice: layout([1], 0, whole),
  oneDeviceTwoThreads: layout([2], 0, whole),
  naive: layout([1, 1], 5, whole),
  pipelined: automatic(one, 1),
  pipelinedByHand: layout([1, 1], 6, {
    microBatches: 1,
    chunks: 4,
    schedule: "wavefront",
    weights: "deferred",
  }),
});
const four = lstmWorkload(80);
const b = await compare(four, {
  oneDevice: layout([1], 0, { ...whole, microBatches: 4 }),
  oneDeviceOneItem: layout([1], 0, whole),
  oneDeviceTwoThreads: layout([2], 0, { ...whole, microBatches: 4 }),
  naive: layout([1, 1], 5, { ...whole, microBatches: 4 }),
  pipelined: automatic(four, 4),
  pipelinedByHand: layout([1, 1], 7, {
    microBatches: 4,
    chunks: 1,
    schedule: "wavefront",
    weights: "per-item",
  }),
});
const torch = program(process.env["PYTHON"] ?? "python3", [
  "peers/torch_pipeline.py",
  "--schedule",
  "1f1b",
  "--steps",
  "5",
  "--json",
]);
const torchSpeed = Number(torch["tokensPerSecond"]);
const pytorch = Number.isFinite(torchSpeed)
  ? { ...torch, timesAsFast: round((b.contestants["pipelined"]?.unitsPerSecond ?? 0) / torchSpeed) }
  : torch;
const transport = program(process.execPath, ["../node_modules/tsx/dist/cli.mjs", "transport.ts", "--json"]);
report({ oneBatch: a, fourBatches: b, pytorchPipelining: pytorch, transport, ...machine() });

/** The JSON object that a program of this folder prints last; why there is none, where there is none. */
function program(
  command: string,
  [file = "", ...args]: readonly string[],
): { readonly [name: string]: unknown } {
  const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
  const words = args[0]?.endsWith(".ts") ? [here(args[0]), ...args.slice(1)] : args;
  const done = spawnSync(command, [here(file), ...words], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  const line = done.stdout?.trim().split("\n").at(-1) ?? "";
  if (line.startsWith("{")) return JSON.parse(line);
  const said = done.error?.message ?? done.stderr.trim().split("\n").at(-1);
  return { skipped: said || `${command} printed no result` };
}
