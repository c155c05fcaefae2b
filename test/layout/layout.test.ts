import { expect, test } from "vitest";
import {
  deviceAt,
  devicesOfReplica,
  type Layout,
  meshAxes,
  meshSize,
  oneDevice,
  positionsOf,
  positionsOfStages,
  ranksAt,
  replicaCount,
  showMesh,
  withMesh,
  withReplicas,
} from "../../src/layout/layout.ts";
import { scheduleSpec } from "../../src/schedule/layout-spec.ts";

const device = (i: number) => ({ name: `cpu:${i}`, threads: 1 });

/** Stages a and c on one position, b on another. */
const pipeline: Layout = {
  ...oneDevice([]),
  devices: [device(0), device(1)],
  stages: [
    { devices: ["cpu:0"], groups: ["a"] },
    { devices: ["cpu:1"], groups: ["b"] },
    { devices: ["cpu:0"], groups: ["c"] },
  ],
};
const split = withMesh(pipeline, { tensor: 2, height: 1 }, [[device(2)], [device(3)]]);
const both = withReplicas(split, [[4, 5, 6, 7].map(device)]);

test("a mesh lists its axes outermost first, without those of size 1", () => {
  const stage = { mesh: { tensor: 2, width: 1, height: 3 } };
  expect(meshAxes(stage)).toEqual([
    { axis: "height", size: 3 },
    { axis: "tensor", size: 2 },
  ]);
  expect(meshSize(stage)).toBe(6);
  expect(showMesh(stage)).toBe("height 3 x tensor 2");
  expect([meshSize({}), showMesh({})]).toEqual([1, "no mesh"]);
});

test("splitting stages and copying the pipeline list devices replica by replica, rank by rank", () => {
  expect(split.devices.map(({ name }) => name)).toEqual(["cpu:0", "cpu:2", "cpu:1", "cpu:3"]);
  expect(both.stages.map(({ devices }) => devices.join(" "))).toEqual([
    "cpu:0 cpu:2 cpu:4 cpu:5",
    "cpu:1 cpu:3 cpu:6 cpu:7",
    "cpu:0 cpu:2 cpu:4 cpu:5",
  ]);
  expect([pipeline, split, both].map(replicaCount)).toEqual([1, 1, 2]);
});

test("devices are found by stage, replica and rank", () => {
  const nameAt = (stage: number, replica: number, rank: number) =>
    both.devices[deviceAt(both, stage, replica, rank)]?.name;
  expect([nameAt(1, 0, 0), nameAt(1, 0, 1), nameAt(1, 1, 0), nameAt(2, 1, 1)]).toEqual([
    "cpu:1",
    "cpu:3",
    "cpu:6",
    "cpu:5",
  ]);
  expect(ranksAt(both, 1, 1).map((at) => both.devices[at]?.name)).toEqual(["cpu:6", "cpu:7"]);
  expect(devicesOfReplica(both, 1).map((at) => both.devices[at]?.name)).toEqual([
    "cpu:4",
    "cpu:5",
    "cpu:6",
    "cpu:7",
  ]);
});

test("the schedule sees a mesh as one device, also where a stage lists its devices in another order", () => {
  const [a, b, c] = split.stages as readonly [Layout["stages"][0], Layout["stages"][0], Layout["stages"][0]];
  const turned = { ...split, stages: [a, b, { ...c, devices: c.devices.toReversed() }] };
  expect(positionsOf(turned)).toEqual([
    [0, 1],
    [2, 3],
  ]);
  expect(positionsOfStages(turned)).toEqual([[0], [1], [0]]);
  expect(scheduleSpec(turned, 2, 1)).toEqual(scheduleSpec(pipeline, 2, 1));
});
