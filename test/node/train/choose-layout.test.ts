import { expect, test } from "vitest";
import { UserError } from "../../../src/base/errors.ts";
import { replicaCount } from "../../../src/layout/layout.ts";
import { parseLayout, printLayout } from "../../../src/layout/parse.ts";
import { sgd } from "../../../src/model/optimizer.ts";
import { chooseLayout, type LayoutOptions, naiveLayout } from "../../../src/node/train/choose-layout.ts";
import { languageModel } from "../../cost/models.ts";

const source = {
  ...languageModel({ vocabulary: 20, dim: 8, units: 8, layers: 2 }),
  dtype: "f32" as const,
  optimizer: sgd({ rate: 0.1 }),
};
const groups = ["embed", "layer0", "layer1", "decode"];

function choose(options: LayoutOptions) {
  return chooseLayout({ source, shapes: [{ batch: 4, time: 8 }], options, recompute: "none", threads: 1 });
}

/** Devices and mesh of every stage, in short. */
function placed(options: LayoutOptions): readonly (readonly unknown[])[] {
  return choose(options).layout.stages.map(({ devices, mesh }) => [devices.join(" "), mesh]);
}

const place = "embed=cpu:0,layer*=cpu:0,decode=cpu:1";

test("a mesh takes all devices for a single stage, and says so", () => {
  const { layout, reasons } = choose({ devices: "cpu:2", tensor: 2 });
  expect(layout.stages).toEqual([{ devices: ["cpu:0", "cpu:1"], mesh: { tensor: 2 }, groups }]);
  expect(reasons).toEqual(["Every layer is split over 2 devices (tensor 2): cpu:0 cpu:1."]);
  expect(parseLayout(printLayout(layout))).toEqual(layout);
  expect(placed({ devices: "cpu:4", tensor: 2, domain: "sequence=2" })).toEqual([
    ["cpu:0 cpu:1 cpu:2 cpu:3", { sequence: 2, tensor: 2 }],
  ]);
});

test("positions of the pipeline get consecutive devices in each replica, in the order of the list", () => {
  const { layout, reasons } = choose({
    devices: "cpu:8",
    data: 2,
    tensor: 2,
    place: "embed=cpu:0,layer*=cpu:0,decode=cpu:2",
  });
  expect(layout.stages).toEqual([
    { devices: ["cpu:0", "cpu:1", "cpu:4", "cpu:5"], mesh: { tensor: 2 }, groups: groups.slice(0, 3) },
    { devices: ["cpu:2", "cpu:3", "cpu:6", "cpu:7"], mesh: { tensor: 2 }, groups: groups.slice(3) },
  ]);
  expect(replicaCount(layout)).toBe(2);
  expect(reasons.slice(0, 3)).toEqual([
    "Every layer is split over 2 devices (tensor 2): cpu:0 cpu:1 | cpu:2 cpu:3.",
    "Where layers go was planned as if cpu:0, cpu:2 held them whole; so are the figures that follow. paraxis layout predicts the split.",
    "Every mini-batch is shared by 2 replicas (cpu:0 cpu:1 cpu:2 cpu:3 | cpu:4 cpu:5 cpu:6 cpu:7), at most 2 samples each; they add up their gradients before the update.",
  ]);
});

test("without a mesh, and with axes of size 1, stages are not split", () => {
  const plain = placed({ devices: "cpu:2", place });
  expect(plain).toEqual([
    ["cpu:0", undefined],
    ["cpu:1", undefined],
  ]);
  expect(placed({ devices: "cpu:2", place, tensor: 1, domain: "height=1" })).toEqual(plain);
  expect(placed({ devices: "cpu:4", place, data: 2 })).toEqual([
    ["cpu:0 cpu:2", undefined],
    ["cpu:1 cpu:3", undefined],
  ]);
});

test("a large output layer is shared by all devices, unless every layer is split or placed anyway", () => {
  const large = {
    ...source,
    ...languageModel({ vocabulary: 10_000, dim: 100, units: 200, layers: 4 }),
  };
  const stagesOf = (options: LayoutOptions) =>
    chooseLayout({
      source: large,
      shapes: [{ batch: 20, time: 32 }],
      options,
      recompute: "none",
      threads: 1,
    }).layout.stages.map(({ devices, mesh }) => `${devices.join(" ")} ${mesh?.tensor ?? 1}`);
  expect(stagesOf({ devices: "cpu:2" }).at(-1)).toBe("cpu:0 cpu:1 2");
  expect(stagesOf({ devices: "cpu:4", data: 2 }).at(-1)).toBe("cpu:0 cpu:1 cpu:2 cpu:3 2");
  expect(new Set(stagesOf({ devices: "cpu:4", tensor: 2 }))).toEqual(
    new Set(["cpu:0 cpu:1 2", "cpu:2 cpu:3 2"]),
  );
  expect(stagesOf({ devices: "cpu:2", place })).toEqual(["cpu:0 1", "cpu:1 1"]);
});

test("positions that the planner leaves out are left out with all their devices", () => {
  const { layout } = choose({ devices: "cpu:12", data: 1, tensor: 2 });
  const used = layout.stages.flatMap(({ devices }) => devices);
  expect(layout.devices.map(({ name }) => name).toSorted()).toEqual([...new Set(used)].toSorted());
  for (const { devices } of layout.stages) {
    const [first, second] = devices.map((name) => Number(name.slice(4)));
    expect([devices.length, (first as number) % 2, second]).toEqual([2, 0, (first as number) + 1]);
  }
});

test.for([
  [
    { devices: "cpu:3", tensor: 2 },
    "cannot share 3 devices (cpu:0, cpu:1, cpu:2) between meshes of 2 (tensor 2)",
  ],
  [{ devices: "cpu:2", data: 2, domain: "height=2" }, "between 2 replicas of meshes of 2 (height 2)"],
  [{ devices: "cpu:3", data: 2 }, "cannot share 3 devices (cpu:0, cpu:1, cpu:2) between 2 replicas:"],
  [{ tensor: 2 }, "give a number of devices that 2 divides, for example --devices cpu:2"],
  [{ devices: "cpu:4", tensor: 2, place }, 'unknown device "cpu:1"; the devices are cpu:0, cpu:2'],
] as const)("%o is refused", ([options, message]) => {
  expect(() => choose(options)).toThrow(UserError);
  expect(() => choose(options)).toThrow(message);
});

test("the naive layout for comparison splits no layer and leaves devices without groups out", () => {
  const { layout } = choose({ devices: "cpu:6", tensor: 6 });
  const naive = naiveLayout(layout, groups);
  expect(naive.stages).toEqual(groups.map((group, i) => ({ devices: [`cpu:${i}`], groups: [group] })));
  expect(naive.devices).toHaveLength(4);
});
