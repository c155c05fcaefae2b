/**
 * What does each distribution axis bring on two devices of one thread, beside one device of one thread? Data axis: the main job at
 * batch 40 (bucket 32), 20 samples on each of two replicas; and at its own batch of 20, where the shares are small.
 * `npm run bench -- axes --json`
 */

import { type Layout, oneDevice, withReplicas } from "../src/layout/layout.ts";
import { compare } from "./contest.ts";
import { machine, report } from "./measure.ts";
import { lstmWorkload } from "./workloads.ts";

const groups = ["embed", ...Array.from({ length: 8 }, (_, i) => `layer${i}`), "decode"];
const alone: Layout = oneDevice(groups);
const layouts = {
  oneDevice: alone,
  oneDeviceTwoThreads: oneDevice(groups, 2),
  twoReplicas: withReplicas(alone, [[{ name: "cpu:1", threads: 1 }]]),
};

report({
  data: {
    batch40: await compare(lstmWorkload(40), layouts),
    batch20: await compare(lstmWorkload(20), layouts),
  },
  ...machine(),
});
