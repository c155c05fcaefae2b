/**
 * The same models and data shapes against PyTorch and TensorFlow.js, on the CPU with the same number of threads, step by step in turns.
 * A peer that is not installed is named and left out. `npm run bench -- versus --json [lstm|transformer|conv] [--threads N] [--fast-mkl]`
 */

import { fileURLToPath } from "node:url";
import { localCluster } from "../src/execute/local-cluster.ts";
import { Trainer } from "../src/execute/trainer.ts";
import { oneDevice } from "../src/layout/layout.ts";
import { buildForward } from "../src/model/forward.ts";
import { onnxRuntimeEngine } from "../src/node/onnxruntime/engine.ts";
import { groupsOf } from "../src/partition/compile.ts";
import { machine, median, report, round } from "./measure.ts";
import { type Peer, startPeer } from "./peer.ts";
import { convolutionWorkload, lstmWorkload, transformerWorkload, type Workload } from "./workloads.ts";

const workloads = { lstm: lstmWorkload, transformer: transformerWorkload, conv: convolutionWorkload };
type Name = keyof typeof workloads;

const option = (name: string) => process.argv[process.argv.indexOf(name) + 1];
const threads = process.argv.includes("--threads") ? Number(option("--threads")) : 1;
const rounds = process.argv.includes("--rounds") ? Number(option("--rounds")) : 6;
const named = (Object.keys(workloads) as Name[]).filter((name) => process.argv.includes(name));
const chosen = named.length > 0 ? named : (Object.keys(workloads) as Name[]);
/** Lets MKL use its best kernels on a CPU that is not Intel's; see peers/README.md. */
const fastMkl = process.argv.includes("--fast-mkl") ? ["--fast-mkl"] : [];
const python = process.env["PYTHON"] ?? "python3";

const results: { [name: string]: unknown } = {};
for (const name of chosen) results[name] = await versus(name, workloads[name]());
report({ threads, ...results, ...machine() });

async function versus(name: Name, workload: Workload) {
  const here = (file: string) => fileURLToPath(new URL(`./peers/${file}`, import.meta.url));
  const common = [name, "--threads", `${threads}`];
  const peers = {
    pytorch: await startPeer(python, [here("pytorch_train.py"), ...common, ...fastMkl]),
    tensorflowjs: await startPeer(process.execPath, [here("tfjs_train.mjs"), ...common]),
  };
  const ours = await startOurs(workload);
  const seconds: { [who: string]: number[] } = {};
  const keep = (who: string, values: readonly number[]) => {
    seconds[who] = [...(seconds[who] ?? []), ...values];
  };
  for (let turn = 0; turn < rounds; turn++) {
    keep("paraxis", await ours(3));
    for (const [who, peer] of Object.entries(peers))
      if ("run" in peer) keep(who, await peer.run(who === "pytorch" ? 3 : 1));
  }
  for (const peer of Object.values(peers)) if ("close" in peer) peer.close();
  const own = median(seconds["paraxis"] ?? []);
  return {
    [`${workload.unit}PerSecond`]: Math.round(workload.units / own),
    ...Object.fromEntries(
      Object.entries(peers).map(([who, peer]) => [who, summary(peer, seconds[who], workload, own)]),
    ),
  };
}

function summary(
  peer: Peer | { readonly skipped: string },
  seconds: readonly number[] | undefined,
  workload: Workload,
  own: number,
) {
  if ("skipped" in peer || seconds === undefined) return peer;
  const time = median(seconds);
  return {
    [`${workload.unit}PerSecond`]: round(workload.units / time, 4),
    timesAsFast: round(time / own),
    ...peer.facts,
  };
}

/** Seconds of each of our steps. */
async function startOurs(workload: Workload): Promise<(steps: number) => Promise<readonly number[]>> {
  const engine = onnxRuntimeEngine({ threads });
  const cluster = localCluster({ engine, deadline: 600, now: () => performance.now() / 1000 });
  const { source, data, shape } = workload;
  const forward = buildForward(source, {
    shape: { item: shape, total: shape },
    training: true,
    dtype: "f32",
  });
  const trainer = await Trainer.create({
    source,
    data,
    layout: oneDevice(groupsOf(forward), threads),
    seed: 1,
    cluster,
    engine,
  });
  let step = 0;
  const run = async (steps: number) => {
    const seconds: number[] = [];
    for (let i = 0; i < steps; i++) {
      const batch = workload.batch(step++);
      const start = performance.now();
      await trainer.step(batch);
      seconds.push((performance.now() - start) / 1000);
    }
    return seconds;
  };
  await run(3);
  return run;
}
