/**
 * What does each distribution axis bring on two devices of one thread, beside one device of one thread?
 *
 *  - data: the main job at batch 40 (bucket 32), 20 samples on each of two replicas; and at its own batch of 20, where the shares are small
 *  - tensor: a transformer block of width 1024 over 256 positions; and the main job with the units of every layer split
 *  - domain: a stack of 3x3 convolutions with 64 to 256 channels on images of 64 x 64, split by rows
 *
 * `npm run bench -- axes --json`; `ONLY=tensor` for one axis.
 */

import { type Layout, type Mesh, oneDevice, withMesh, withReplicas } from "../src/layout/layout.ts";
import { compare } from "./contest.ts";
import { machine, report } from "./measure.ts";
import { convolutionStackWorkload, lstmWorkload, transformerWorkload } from "./workloads.ts";

const lstmGroups = ["embed", ...Array.from({ length: 8 }, (_, i) => `layer${i}`), "decode"];
const second = { name: "cpu:1", threads: 1 };

/** One device with one thread, one with two, and two devices that split every layer along one axis. */
function layoutsFor(groups: readonly string[], mesh: Mesh): { readonly [name: string]: Layout } {
  const alone = oneDevice(groups);
  return {
    oneDevice: alone,
    oneDeviceTwoThreads: oneDevice(groups, 2),
    twoDevices: withMesh(alone, mesh, [[second]]),
  };
}

const alone = oneDevice(lstmGroups);
const twoReplicas = withReplicas(alone, [[second]]);
const replicas: { readonly [name: string]: Layout } = {
  oneDevice: alone,
  oneDeviceTwoThreads: oneDevice(lstmGroups, 2),
  twoDevices: twoReplicas,
  twoDevicesSharedUpdate: { ...twoReplicas, zero: 1 },
};

const contests: { readonly [axis: string]: { readonly [name: string]: () => Promise<unknown> } } = {
  data: {
    batch40: () => compare(lstmWorkload(40), replicas, lstmWorkload(20)),
    batch20: () => compare(lstmWorkload(20), replicas, lstmWorkload(10)),
  },
  tensor: {
    transformer: () =>
      compare(transformerWorkload(2, 256, 1024, 1), layoutsFor(["embed", "block0", "decode"], { tensor: 2 })),
    lstmBatch20: () => compare(lstmWorkload(20), layoutsFor(lstmGroups, { tensor: 2 })),
    lstmBatch40: () => compare(lstmWorkload(40), layoutsFor(lstmGroups, { tensor: 2 })),
  },
  domain: {
    convolution: () =>
      compare(convolutionStackWorkload(), layoutsFor(["conv0", "conv1", "conv2", "classify"], { height: 2 })),
    sequence: () =>
      compare(
        transformerWorkload(2, 256, 1024, 1),
        layoutsFor(["embed", "block0", "decode"], { sequence: 2 }),
      ),
  },
};

const only = process.env["ONLY"];
const results: { [axis: string]: { [name: string]: unknown } } = {};
for (const [axis, cases] of Object.entries(contests)) {
  if (only !== undefined && only !== axis) continue;
  const own: { [name: string]: unknown } = {};
  for (const [name, contest] of Object.entries(cases)) own[name] = await contest();
  results[axis] = own;
}
report({ ...results, ...machine() });
