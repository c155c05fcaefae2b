/** Trains one workload under several layouts in turns, and says how fast each is beside one device. */

import { Trainer } from "../src/execute/trainer.ts";
import type { Layout } from "../src/layout/layout.ts";
import { threadCluster } from "../src/node/devices/thread-cluster.ts";
import { onnxRuntimeEngine } from "../src/node/onnxruntime/engine.ts";
import { median, medianRatio, round, takeTurns } from "./measure.ts";
import type { Workload } from "./workloads.ts";

const rounds = Number(process.env["ROUNDS"] ?? 12);
/** A turn is several steps: in a run, too, a step follows another, with its threads awake and its tensors in the caches. */
const stepsOfTurn = 3;

async function contestants(workload: Workload, layouts: { readonly [name: string]: Layout }) {
  const engine = onnxRuntimeEngine({ threads: 1 });
  const { source, data } = workload;
  const made = await Promise.all(
    Object.entries(layouts).map(async ([name, chosen]) => {
      const cluster = threadCluster({ devices: chosen.devices, engine: "onnxruntime", deadline: 120 });
      const trainer = await Trainer.create({ source, data, layout: chosen, seed: 1, cluster, engine });
      let step = 0;
      const run = async () => {
        for (let i = 0; i < stepsOfTurn; i++) await trainer.step(workload.batch(step++));
      };
      return { name, cluster, run };
    }),
  );
  return {
    turns: Object.fromEntries(made.map(({ name, run }) => [name, run])),
    close: () => Promise.all(made.map(({ cluster }) => cluster[Symbol.asyncDispose]())),
  };
}

/**
 * Speed of every layout, and as `speedUp` the ratio to that called `oneDevice`. `ceiling` is what two trainings that know nothing of each
 * other reach together at this moment: no two devices can do more.
 */
export async function compare(workload: Workload, layouts: { readonly [name: string]: Layout }) {
  const { turns, close } = await contestants(workload, layouts);
  const other = await contestants(workload, { copy: layouts["oneDevice"] as Layout });
  const both = () => Promise.all([turns["oneDevice"]?.(), other.turns["copy"]?.()]);
  const { twoCopies, ...seconds } = await takeTurns<string>({ ...turns, twoCopies: both }, rounds);
  await close();
  await other.close();
  const base = seconds["oneDevice"] as number[];
  const ceiling = 2 * medianRatio(base, twoCopies ?? base);
  return { ceiling: round(ceiling), contestants: results(workload, seconds, base) };
}

function results(
  workload: Workload,
  seconds: { readonly [name: string]: readonly number[] },
  base: readonly number[],
) {
  return Object.fromEntries(
    Object.entries(seconds).map(([name, values]) => [
      name,
      {
        unitsPerSecond: Math.round((stepsOfTurn * workload.units) / median(values)),
        speedUp: round(medianRatio(base, values)),
      },
    ]),
  );
}
