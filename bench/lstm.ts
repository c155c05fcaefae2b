/** How close to the speed of a plain matrix product does the main job train on one thread? `npm run bench -- lstm --json` */

import { localCluster } from "../src/execute/local-cluster.ts";
import { Trainer } from "../src/execute/trainer.ts";
import { oneDevice } from "../src/layout/layout.ts";
import { buildForward } from "../src/model/forward.ts";
import { onnxRuntimeEngine } from "../src/node/onnxruntime/engine.ts";
import { groupsOf } from "../src/partition/compile.ts";
import { planMemory } from "../src/program/memory.ts";
import type { Program } from "../src/program/program.ts";
import { machine, median, medianRatio, referenceProduct, report, round, takeTurns } from "./measure.ts";
import { lstmWorkload } from "./workloads.ts";

const workload = lstmWorkload();
await using engine = onnxRuntimeEngine({ threads: 1 });
const now = () => performance.now() / 1000;
await using cluster = localCluster({ engine, deadline: 60, now });
const { source, data, shape } = workload;
const forward = buildForward(source, { shape: { item: shape, total: shape }, training: true, dtype: "f32" });
const trainer = await Trainer.create({
  source,
  data,
  layout: oneDevice(groupsOf(forward)),
  seed: 1,
  cluster,
  engine,
});
const product = await referenceProduct(engine);
let seed = 0;
const perTurn = 8;
const turns = await takeTurns(
  {
    step: { run: () => trainer.step(workload.batch(seed++)) },
    product: {
      run: async () => {
        for (let i = 0; i < perTurn; i++) await product.run();
      },
    },
  },
  20,
);
const [program] = [...trainer.compiled.values()].map(({ programs }) => programs[0] as Program);
const gflops = workload.flops / median(turns.step) / 1e9;
const matmulGflops = (perTurn * product.flops) / median(turns.product) / 1e9;
const fractions = medianRatio(
  turns.product.map((seconds) => seconds / (perTurn * product.flops)),
  turns.step.map((seconds) => seconds / workload.flops),
);
report({
  tokensPerSecond: Math.round(workload.units / median(turns.step)),
  gflops: round(gflops),
  matmulGflops: round(matmulGflops),
  fraction: round(fractions),
  peakBytes: program === undefined ? 0 : planMemory(program).peakBytes,
  residentBytes: process.memoryUsage().rss,
  stepSeconds: round(median(turns.step)),
  ...machine(),
});
