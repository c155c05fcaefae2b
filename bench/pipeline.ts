/**
 * What do two devices bring over one? The main job's step (bucket 32) in turns: one device with one and with two threads, two devices
 * placed naively, two devices pipelined. (a) one mini-batch of 20, cut in time chunks; (b) four sentence batches of 20 per update.
 * `npm run bench -- pipeline --json`
 */

import { Trainer } from "../src/execute/trainer.ts";
import type { Layout } from "../src/layout/layout.ts";
import { threadCluster } from "../src/node/devices/thread-cluster.ts";
import { onnxRuntimeEngine } from "../src/node/onnxruntime/engine.ts";
import { machine, median, medianRatio, report, round, takeTurns } from "./measure.ts";
import { lstmWorkload, type Workload } from "./workloads.ts";

const layers = Array.from({ length: 8 }, (_, i) => `layer${i}`);
const groups = ["embed", ...layers, "decode"];
const rounds = Number(process.env["ROUNDS"] ?? 12);

type Shape = Pick<Layout, "microBatches" | "chunks" | "schedule" | "weights">;

function layout(threads: readonly number[], split: number, shape: Shape): Layout {
  const devices = threads.map((count, i) => ({ name: `cpu:${i}`, threads: count }));
  const cuts = threads.length === 1 ? [groups] : [groups.slice(0, split), groups.slice(split)];
  return {
    version: 1,
    devices,
    stages: cuts.map((held, i) => ({ device: `cpu:${i}`, groups: held })),
    recompute: "none",
    ...shape,
  };
}

const whole: Shape = { microBatches: 1, chunks: 1, schedule: "naive", weights: "fused" };

async function contestants(workload: Workload, layouts: { readonly [name: string]: Layout }) {
  const engine = onnxRuntimeEngine({ threads: 1 });
  const { source, data } = workload;
  const made = await Promise.all(
    Object.entries(layouts).map(async ([name, chosen]) => {
      const cluster = threadCluster({ devices: chosen.devices, engine: "onnxruntime", deadline: 120 });
      const trainer = await Trainer.create({ source, data, layout: chosen, seed: 1, cluster, engine });
      let step = 0;
      return { name, cluster, run: () => trainer.step(workload.batch(step++)) };
    }),
  );
  return {
    turns: Object.fromEntries(made.map(({ name, run }) => [name, run])),
    close: () => Promise.all(made.map(({ cluster }) => cluster[Symbol.asyncDispose]())),
  };
}

async function compare(workload: Workload, layouts: { readonly [name: string]: Layout }) {
  const { turns, close } = await contestants(workload, layouts);
  const seconds = await takeTurns(turns, rounds);
  await close();
  const base = seconds["oneDevice"] as number[];
  return Object.fromEntries(
    Object.entries(seconds).map(([name, values]) => [
      name,
      {
        tokensPerSecond: Math.round(workload.units / median(values)),
        speedUp: round(medianRatio(base, values)),
      },
    ]),
  );
}

const split = Number(process.env["SPLIT"] ?? 6);
const chunks = Number(process.env["CHUNKS"] ?? 4);
const a = await compare(lstmWorkload(20), {
  oneDevice: layout([1], 0, whole),
  oneDeviceTwoThreads: layout([2], 0, whole),
  naive: layout([1, 1], 5, whole),
  pipelined: layout([1, 1], split, { microBatches: 1, chunks, schedule: "wavefront", weights: "deferred" }),
});
const b = await compare(lstmWorkload(80), {
  oneDevice: layout([1], 0, { ...whole, microBatches: 4 }),
  oneDeviceOneItem: layout([1], 0, whole),
  oneDeviceTwoThreads: layout([2], 0, { ...whole, microBatches: 4 }),
  naive: layout([1, 1], 5, { ...whole, microBatches: 4 }),
  pipelined: layout([1, 1], split, {
    microBatches: 4,
    chunks: 1,
    schedule: "wavefront",
    weights: "per-item",
  }),
});
report({ oneBatch: a, fourBatches: b, ...machine() });
