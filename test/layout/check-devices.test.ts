import fc from "fast-check";
import { expect, test } from "vitest";
import { layoutProblems } from "../../src/layout/check.ts";
import { type Layout, type LayoutStage, type Mesh, oneDevice } from "../../src/layout/layout.ts";

interface StageSpec {
  /** Numbers of devices. */
  readonly on: readonly number[];
  readonly mesh?: Mesh;
}

/** A layout on as many devices as are named, one group on each stage. */
function layoutOf(...specs: readonly StageSpec[]): Layout {
  const stages = specs.map(
    ({ on, mesh }, i): LayoutStage => ({
      devices: on.map((device) => `cpu:${device}`),
      ...(mesh && { mesh }),
      groups: [`g${i}`],
    }),
  );
  const count = Math.max(...specs.flatMap(({ on }) => on)) + 1;
  const devices = Array.from({ length: count }, (_, i) => ({ name: `cpu:${i}`, threads: 1 }));
  return { ...oneDevice([]), devices, stages };
}

const problemsOf = (...specs: readonly StageSpec[]) => layoutProblems(layoutOf(...specs));
const tensor: Mesh = { tensor: 2 };

test("stages with meshes of their own, with replicas, and together on the same devices in any order are sound", () => {
  expect(problemsOf({ on: [0, 1], mesh: tensor })).toEqual([]);
  expect(problemsOf({ on: [0, 1, 2, 3], mesh: { height: 2, tensor: 2 } }, { on: [4] })).toEqual([]);
  expect(problemsOf({ on: [0, 1, 2, 3], mesh: tensor }, { on: [4, 5] })).toEqual([]);
  expect(problemsOf({ on: [0, 1], mesh: tensor }, { on: [1, 0], mesh: { sequence: 2, width: 1 } })).toEqual(
    [],
  );
});

test("devices that make no whole meshes are refused with both numbers", () => {
  expect(problemsOf({ on: [0] }, { on: [1, 2, 3], mesh: tensor })).toEqual([
    "stages[1].devices: 3 devices for a mesh of 2 (tensor 2): list 2 for each replica",
  ]);
  expect(problemsOf({ on: [0], mesh: { width: 3, height: 2 } })).toEqual([
    "stages[0].devices: 1 device for a mesh of 6 (height 2 x width 3): list 6 for each replica",
  ]);
});

test("sizes that are no counts, and axes that a mesh does not have, are refused with what came", () => {
  const mesh = { tensor: 1.5, height: 0, rows: 2 } as Mesh;
  expect(problemsOf({ on: [0], mesh })).toEqual([
    "stages[0].mesh.tensor: must be a positive whole number, got 1.5",
    "stages[0].mesh.height: must be a positive whole number, got 0",
    'stages[0].mesh: unknown axis "rows"; the axes are height, width, sequence, tensor (the devices beyond one mesh are replicas: the data axis)',
  ]);
});

test("stages with different numbers of replicas are refused with the devices of both", () => {
  expect(problemsOf({ on: [0, 1, 2, 3], mesh: tensor }, { on: [4, 5], mesh: tensor }, { on: [6] })).toEqual([
    "stages[1].devices: 1 replica (2 devices, a mesh of tensor 2), but stages[0] has 2 (4 devices, a mesh of tensor 2): every stage needs as many",
    "stages[2].devices: 1 replica (1 device, no mesh), but stages[0] has 2 (4 devices, a mesh of tensor 2): every stage needs as many",
  ]);
});

test("a device twice in a stage, and one in two replicas, are refused with both places", () => {
  expect(problemsOf({ on: [0, 0], mesh: tensor })).toEqual([
    'stages[0].devices[1]: device "cpu:0" is listed already in stages[0].devices[0]: a stage needs different devices',
  ]);
  expect(problemsOf({ on: [0, 1] }, { on: [1, 0] })).toEqual([
    'stages[1].devices[0]: device "cpu:1" is in replica 0 here and in replica 1 by stages[0].devices[1]: replicas share no device',
    'stages[1].devices[1]: device "cpu:0" is in replica 1 here and in replica 0 by stages[0].devices[0]: replicas share no device',
  ]);
});

test("stages may share some of their devices", () => {
  expect(problemsOf({ on: [0] }, { on: [1] }, { on: [0, 1], mesh: tensor })).toEqual([]);
  expect(problemsOf({ on: [0] }, { on: [1, 2], mesh: tensor }, { on: [2, 3], mesh: tensor })).toEqual([]);
});

test("replicas that are placed in another way than the first are refused with the places", () => {
  expect(problemsOf({ on: [0, 1] }, { on: [0, 2] })).toEqual([
    'stages[1].devices[1]: device "cpu:2", but the copy of cpu:0 is "cpu:1" by stages[0].devices[1]: use the same',
  ]);
  expect(problemsOf({ on: [0, 2] }, { on: [1, 2] })).toEqual([
    'stages[1].devices[1]: device "cpu:2" is the copy of cpu:0 by stages[0].devices[1], here of cpu:1: stages that share a device share its copies',
  ]);
});

test("an unknown device is named, whether it has company or not", () => {
  const [stage] = layoutOf({ on: [0] }).stages as readonly [LayoutStage];
  const problems = (devices: readonly string[]) =>
    layoutProblems({ ...layoutOf({ on: [0] }), stages: [{ ...stage, devices }] });
  expect(problems(["cpu:7"])).toContain('stages[0].device: unknown device "cpu:7"; the devices are cpu:0');
  expect(problems(["cpu:0", "cpu:7"])).toEqual([
    'stages[0].devices[1]: unknown device "cpu:7"; the devices are cpu:0',
  ]);
});

test("whatever stages are made of, sound layouts have whole replicas that share no device", () => {
  const specs = fc.array(
    fc.record({
      on: fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }),
      mesh: fc.constantFrom<Mesh>({}, { tensor: 2 }, { height: 2 }, { height: 2, tensor: 2 }),
    }),
    { minLength: 1, maxLength: 3 },
  );
  fc.assert(
    fc.property(specs, (chosen) => {
      const layout = layoutOf(...chosen);
      const used = new Set(chosen.flatMap(({ on }) => on));
      const known = { ...layout, devices: layout.devices.filter((_, i) => used.has(i)) };
      const sizes = chosen.map(({ mesh: { height = 1, tensor: ranks = 1 } }) => height * ranks);
      const counts = chosen.map(({ on }, i) => on.length / (sizes[i] as number));
      const [count = 1] = counts;
      const isEven = Number.isInteger(count) && counts.every((other) => other === count);
      const held = chosen.map(({ on }, i) =>
        Array.from({ length: Math.ceil(count) }, (_, r) =>
          on.slice(r * (sizes[i] as number), (r + 1) * (sizes[i] as number)),
        ),
      );
      const isSound = isEven && isCopied(held);
      expect(layoutProblems(known).length === 0, JSON.stringify(chosen)).toBe(isSound);
    }),
    { numRuns: 2000 },
  );
});

/** By definition: the replicas are disjoint, each the image of the first one under a bijection. */
function isCopied(held: readonly (readonly (readonly number[])[])[]): boolean {
  const first = held.map(([devices = []]) => devices);
  const isWhole = first.every((devices) => new Set(devices).size === devices.length);
  const replicas = (held[0] ?? []).map((_, r) => held.map((stage) => stage[r] ?? []));
  const isBijective = replicas.every((stages) => {
    const pairs = new Set(stages.flatMap((devices, s) => devices.map((d, i) => `${first[s]?.[i]}>${d}`)));
    const ends = [...pairs].map((pair) => pair.split(">") as [string, string]);
    return [0, 1].every((end) => new Set(ends.map((pair) => pair[end])).size === pairs.size);
  });
  const all = replicas.flatMap((stages) => [...new Set(stages.flat())]);
  return isWhole && isBijective && new Set(all).size === all.length;
}
