/** Trains one workload under several layouts in turns, and says how fast each is beside one device. */

import { Trainer } from "../src/execute/trainer.ts";
import type { Layout } from "../src/layout/layout.ts";
import { threadCluster } from "../src/node/devices/thread-cluster.ts";
import { onnxRuntimeEngine } from "../src/node/onnxruntime/engine.ts";
import { median, medianRatio, round, type Turn, takeTurns } from "./measure.ts";
import type { Workload } from "./workloads.ts";

const rounds = Number(process.env["ROUNDS"] ?? 12);
/**
 * A turn is several steps: in a run, too, a step follows another, with its threads awake and its tensors in the caches. One more step comes
 * before, which is not timed: it finds what the contestant before has left (two devices 7 % slower, two threads 4 %, one 1 %).
 */
const stepsOfTurn = 3;

async function contestants(workload: Workload, layouts: { readonly [name: string]: Layout }) {
  const engine = onnxRuntimeEngine({ threads: 1 });
  const { source, data } = workload;
  const made = await Promise.all(
    Object.entries(layouts).map(async ([name, chosen]) => {
      const cluster = threadCluster({ devices: chosen.devices, engine: "onnxruntime", deadline: 120 });
      const trainer = await Trainer.create({ source, data, layout: chosen, seed: 1, cluster, engine });
      let step = 0;
      const before = () => trainer.step(workload.batch(step++));
      const run = async () => {
        for (let i = 0; i < stepsOfTurn; i++) await trainer.step(workload.batch(step++));
      };
      return { name, cluster, turn: { before, run } };
    }),
  );
  return {
    turns: Object.fromEntries(made.map(({ name, turn }) => [name, turn])),
    close: () => Promise.all(made.map(({ cluster }) => cluster[Symbol.asyncDispose]())),
  };
}

/**
 * Speed of every layout, as `speedUp` the ratio to that called `oneDevice`, and as `overTwoThreads` to that called `oneDeviceTwoThreads`,
 * where there is one: what a user would do instead. `ceiling` is what two trainings that know nothing of each
 * other reach together at this moment: no two devices can do more. `shareCeiling` is what two trainings reach that each do one `share`, the
 * samples of a replica, and never add anything up: no two replicas can do more.
 */
export async function compare(
  workload: Workload,
  layouts: { readonly [name: string]: Layout },
  share?: Workload,
) {
  const alone = { copy: layouts["oneDevice"] as Layout };
  const own = await contestants(workload, layouts);
  const other = await contestants(workload, alone);
  const shares = await Promise.all((share ? [share, share] : []).map((one) => contestants(one, alone)));
  const twoCopies = together([own.turns["oneDevice"], other.turns["copy"]]);
  const twoShares = together(shares.map(({ turns }) => turns["copy"]));
  const seconds = await takeTurns<string>({ ...own.turns, twoCopies, ...(share && { twoShares }) }, rounds);
  await Promise.all([own, other, ...shares].map(({ close }) => close()));
  const base = seconds["oneDevice"] as number[];
  const { twoCopies: copies = base, twoShares: halves, ...measured } = seconds;
  return {
    ceiling: round(2 * medianRatio(base, copies)),
    ...(halves && { shareCeiling: round(medianRatio(base, halves)) }),
    contestants: results(workload, measured, base),
  };
}

/** All of these at the same time. */
function together(turns: readonly (Turn | undefined)[]): Turn {
  return {
    before: () => Promise.all(turns.map((turn) => turn?.before?.())),
    run: () => Promise.all(turns.map((turn) => turn?.run())),
  };
}

function results(
  workload: Workload,
  seconds: { readonly [name: string]: readonly number[] },
  base: readonly number[],
) {
  const { oneDeviceTwoThreads: threads } = seconds;
  return Object.fromEntries(
    Object.entries(seconds).map(([name, values]) => [
      name,
      {
        unitsPerSecond: Math.round((stepsOfTurn * workload.units) / median(values)),
        speedUp: round(medianRatio(base, values)),
        ...(threads && { overTwoThreads: round(medianRatio(threads, values)) }),
      },
    ]),
  );
}
