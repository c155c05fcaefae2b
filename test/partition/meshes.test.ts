/** Layers split over meshes of devices: training gives what one device gives. */

import { expect, test } from "vitest";
import { type Layout, type Mesh, meshSize, oneDevice } from "../../src/layout/layout.ts";
import { type ExampleName, exampleNames, exampleOf } from "./models.ts";
import { expectSame, type Outcome, outcomeOf } from "./train.ts";

/** Stages with equal shares of the groups, each on a mesh of its own devices. */
function meshed(groups: readonly string[], meshes: readonly Mesh[], rest: Partial<Layout> = {}): Layout {
  const share = Math.ceil(groups.length / meshes.length);
  let next = 0;
  const stages = meshes.map((mesh, i) => {
    const count = meshSize({ mesh });
    const devices = Array.from({ length: count }, () => `cpu:${next++}`);
    return { devices, mesh, groups: groups.slice(i * share, (i + 1) * share) };
  });
  const devices = Array.from({ length: next }, (_, i) => ({ name: `cpu:${i}`, threads: 1 }));
  return { ...oneDevice(groups), devices, stages, ...rest };
}

const cases: { readonly [name: string]: readonly [readonly Mesh[], Partial<Layout>?] } = {
  "tensor 2": [[{ tensor: 2 }]],
  "tensor 3, micro-batches": [[{ tensor: 3 }], { microBatches: 3, schedule: "gpipe" }],
  "tensor 2, then tensor 2, 1F1B": [[{ tensor: 2 }, { tensor: 2 }], { microBatches: 2, schedule: "1f1b" }],
  "tensor 2, then one device, W per item": [
    [{ tensor: 2 }, {}],
    { microBatches: 2, schedule: "1f1b", weights: "per-item" },
  ],
  "one device, then tensor 3, W deferred": [
    [{}, { tensor: 3 }],
    { microBatches: 4, schedule: "gpipe", weights: "deferred" },
  ],
  "tensor 2, W delayed into bubbles": [
    [{ tensor: 2 }, { tensor: 2 }],
    { microBatches: 4, schedule: "zero-bubble-h1", weights: "per-item" },
  ],
  "sequence 2": [[{ sequence: 2 }]],
  "sequence 2 x tensor 2": [[{ sequence: 2, tensor: 2 }], { microBatches: 2, schedule: "gpipe" }],
  "height 2": [[{ height: 2 }]],
  "height 2 x width 2, then tensor 2": [[{ height: 2, width: 2 }, { tensor: 2 }], { schedule: "gpipe" }],
};

const sequences = ["lstm", "gru", "tied", "transformer"];
const images = ["convolution", "batch-norm"];
/** Their smallest layers have two units or channels; in the images' half without them there are three. */
const narrow = ["lstm", "gru", ...images];

/** What a model is told whose layers cannot be split as the case asks. */
function refusalOf(name: string, title: string): string | undefined {
  if (title.startsWith("height") && !images.includes(name)) return "is split along height";
  if (title.startsWith("sequence") && !sequences.includes(name)) return "the data have no time dim";
  const isNarrow = title.startsWith("tensor 3") ? narrow.includes(name) : ["lstm", "gru"].includes(name);
  if (title.includes("tensor 3") && isNarrow) return "has no weight for 3 devices";
  if (title.includes("then one device") && name === "tied") return "tied parameters need the same mesh";
  return undefined;
}

for (const name of exampleNames) {
  for (const [title, [meshes, rest]] of Object.entries(cases)) {
    const refusal = refusalOf(name, title);
    test(`${name} on ${title}${refusal === undefined ? "" : " is refused"}`, async () => {
      const example = exampleOf(name, { dtype: "f64" });
      const layout = meshed(example.groups, meshes, rest);
      const { microBatches } = layout;
      const plain: Layout = { ...oneDevice(example.groups), microBatches, schedule: "gpipe" };
      if (refusal !== undefined) await expect(outcomeOf(example, layout)).rejects.toThrow(refusal);
      else expectSame(await outcomeOf(example, layout), await outcomeOf(example, plain), 1e-9, title);
    });
  }
}

/** A layout that mixes axes, and the models that it is tried on. */
interface Mixed {
  readonly names: readonly ExampleName[];
  /** By stage; stages of one number are on the same devices. */
  readonly positions: readonly number[];
  /** By position. */
  readonly meshes: readonly Mesh[];
  readonly replicas?: number;
  readonly batch?: number;
  readonly rest?: Partial<Layout>;
  /** Where the devices stand in the list of the layout; default in their order. */
  readonly order?: (count: number, i: number) => number;
}

const trainable: readonly ExampleName[] = exampleNames.filter((name) => name !== "batch-norm");

const mixed: { readonly [title: string]: Mixed } = {
  "data 2 x tensor 2": { names: trainable, positions: [0], meshes: [{ tensor: 2 }], replicas: 2 },
  "data 2 x tensor 2, then tensor 2, 1F1B": {
    names: ["lstm", "transformer", "convolution"],
    positions: [0, 1],
    meshes: [{ tensor: 2 }, { tensor: 2 }],
    replicas: 2,
    rest: { microBatches: 2, schedule: "1f1b", weights: "per-item" },
  },
  "data 2 x tensor 2 with a shared update": {
    names: trainable,
    positions: [0],
    meshes: [{ tensor: 2 }],
    replicas: 2,
    rest: { zero: 1 },
  },
  "data 2 x tensor 2 with shared gradients, item by item": {
    names: ["lstm", "transformer", "convolution"],
    positions: [0, 1],
    meshes: [{ tensor: 2 }, { tensor: 2 }],
    replicas: 2,
    rest: { zero: 2, microBatches: 2, schedule: "1f1b" },
  },
  "tensor 2, then tensor 2, as a wavefront over chunks": {
    names: ["lstm", "gru", "tied"],
    positions: [0, 1],
    meshes: [{ tensor: 2 }, { tensor: 2 }],
    rest: { microBatches: 2, chunks: 2, schedule: "wavefront", weights: "deferred" },
  },
  "tensor 2 in three chunks, W per micro-batch": {
    names: ["lstm", "gru"],
    positions: [0],
    meshes: [{ tensor: 2 }],
    rest: { microBatches: 2, chunks: 3, schedule: "wavefront", weights: "per-micro-batch" },
  },
  "tensor 2 with weights split as the layout says": {
    names: ["skip-mlp"],
    positions: [0],
    meshes: [{ tensor: 2 }],
    rest: { shardings: { "a.weight": 1, "b.weight": 1, "c.weight": 0, "d.weight": "whole", "e.weight": 1 } },
  },
  "tensor 2, all linear layers by output features": {
    names: ["transformer"],
    positions: [0],
    meshes: [{ tensor: 2 }],
    rest: {
      shardings: { "block0.down.weight": 1, "block1.attention.output.weight": 1, "block1.down.weight": 1 },
    },
  },
  "tensor 2 with everything computed again": {
    names: ["lstm", "transformer", "convolution", "skip-mlp"],
    positions: [0],
    meshes: [{ tensor: 2 }],
    rest: { microBatches: 2, schedule: "gpipe", recompute: "full" },
  },
  "height 2 with everything computed again": {
    names: ["convolution", "batch-norm"],
    positions: [0],
    meshes: [{ height: 2 }],
    rest: { microBatches: 2, schedule: "gpipe", recompute: "full" },
  },
  "tensor 2 with 5 samples in 2 micro-batches": {
    names: exampleNames,
    positions: [0],
    meshes: [{ tensor: 2 }],
    batch: 5,
    rest: { microBatches: 2, schedule: "gpipe" },
  },
  "two meshes of tensor 2 with two stages each, interleaved": {
    names: ["lstm", "skip-mlp", "tied", "transformer"],
    positions: [0, 1, 0, 1],
    meshes: [{ tensor: 2 }, { tensor: 2 }],
    rest: { microBatches: 2, schedule: "interleaved-1f1b" },
  },
  "data 2 x height 2 x tensor 2": {
    names: ["convolution"],
    positions: [0],
    meshes: [{ height: 2, tensor: 2 }],
    replicas: 2,
    rest: { microBatches: 2, schedule: "1f1b" },
  },
  "data 2 x sequence 2 x tensor 2": {
    names: ["transformer"],
    positions: [0],
    meshes: [{ sequence: 2, tensor: 2 }],
    replicas: 2,
    rest: { microBatches: 2, schedule: "1f1b" },
  },
  "tensor 2, then tensor 2, with the devices the other way round": {
    names: ["lstm", "transformer", "convolution"],
    positions: [0, 1],
    meshes: [{ tensor: 2 }, { tensor: 2 }],
    rest: { microBatches: 2, schedule: "gpipe" },
    order: (count, i) => count - 1 - i,
  },
  "data 2 x tensor 2, with the devices of replicas in turn": {
    names: ["lstm", "transformer", "convolution"],
    positions: [0],
    meshes: [{ tensor: 2 }],
    replicas: 2,
    order: (count, i) => (i % 2) * (count / 2) + Math.floor(i / 2),
  },
};

function mixedLayout(
  groups: readonly string[],
  { positions, meshes, replicas = 1, rest, order }: Mixed,
): Layout {
  const counts = meshes.map((mesh) => replicas * meshSize({ mesh }));
  const starts = counts.map((_, i) => counts.slice(0, i).reduce((sum, count) => sum + count, 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const share = groups.length / positions.length;
  const names = Array.from({ length: total }, (_, i) => `cpu:${order?.(total, i) ?? i}`);
  return {
    ...oneDevice(groups),
    devices: names.toSorted().map((name) => ({ name, threads: 1 })),
    stages: positions.map((position, stage) => ({
      devices: names.slice(starts[position], (starts[position] as number) + (counts[position] as number)),
      mesh: meshes[position],
      groups: groups.filter((_, i) => Math.floor(i / share) === stage),
    })),
    ...rest,
  };
}

/** Replicas that share the update keep the gradients of their own samples; only parts of them are added up. */
function comparable(outcome: Outcome, { rest = {} }: Pick<Mixed, "rest">): Outcome {
  return rest.zero !== undefined
    ? new Map([...outcome].filter(([name]) => !name.startsWith("grad:")))
    : outcome;
}

for (const [title, how] of Object.entries(mixed)) {
  test.each(how.names)(`%s on ${title}`, async (name) => {
    const example = exampleOf(name, { dtype: "f64", batch: how.batch ?? 4 });
    const layout = mixedLayout(example.groups, how);
    const { microBatches } = layout;
    const plain: Layout = { ...oneDevice(example.groups), microBatches, schedule: "gpipe" };
    const [got, expected] = [await outcomeOf(example, layout), await outcomeOf(example, plain)];
    expectSame(comparable(got, how), comparable(expected, how), 1e-9, title);
  });
}

/** Layouts whose stages share some of their devices: by stage its devices in the first replica, and its mesh. */
const overlapping: {
  readonly [title: string]: Pick<Mixed, "names" | "replicas" | "rest"> & {
    readonly stages: readonly (readonly [
      devices: readonly number[],
      mesh?: Mesh,
      shares?: readonly number[],
    ])[];
  };
} = {
  "one device each, then both, as a wavefront over chunks": {
    names: ["lstm", "gru"],
    stages: [[[0]], [[1]], [[0, 1], { tensor: 2 }]],
    rest: { microBatches: 2, chunks: 2, schedule: "wavefront", weights: "per-item" },
  },
  "one device each in turn, then 3 : 1 of both, as a wavefront over chunks": {
    names: ["lstm", "gru"],
    stages: [[[0]], [[1]], [[0]], [[0, 1], { tensor: 2 }, [3, 1]]],
    rest: { chunks: 2, schedule: "wavefront", weights: "per-micro-batch" },
  },
  "1 : 2 of both, then 2 : 1 of both": {
    names: ["lstm", "skip-mlp", "transformer"],
    stages: [
      [[0, 1], { tensor: 2 }, [1, 2]],
      [[0, 1], { tensor: 2 }, [2, 1]],
    ],
    rest: { microBatches: 2, schedule: "gpipe", weights: "per-item" },
  },
  "data 2 of 1 : 3 of both, with a shared update": {
    names: ["lstm", "skip-mlp", "transformer"],
    stages: [[[0, 1], { tensor: 2 }, [1, 3]]],
    replicas: 2,
    rest: { microBatches: 2, schedule: "1f1b", zero: 2 },
  },
  "one device each in turn, then both the other way round": {
    names: ["lstm", "skip-mlp", "transformer"],
    stages: [[[0]], [[1]], [[0]], [[1, 0], { tensor: 2 }]],
    rest: { microBatches: 3, schedule: "wavefront", weights: "per-micro-batch" },
  },
  "both, then one device each, then both again": {
    names: ["skip-mlp", "tied", "transformer"],
    stages: [[[0, 1], { tensor: 2 }], [[0]], [[1]], [[0, 1], { tensor: 2 }]],
    rest: { microBatches: 2, schedule: "gpipe", weights: "deferred" },
  },
  "one of three, the others, then all": {
    names: ["skip-mlp", "transformer"],
    stages: [[[0]], [[1, 2], { tensor: 2 }], [[0, 1, 2], { tensor: 3 }]],
    rest: { microBatches: 2, schedule: "wavefront", weights: "fused" },
  },
  "two pairs that share a device, one item at a time": {
    names: ["lstm", "skip-mlp", "transformer"],
    stages: [
      [[0, 1], { tensor: 2 }],
      [[1, 2], { tensor: 2 }],
    ],
    rest: { microBatches: 2, schedule: "naive" },
  },
  "data 2 of one device each, then both": {
    names: ["lstm", "skip-mlp", "transformer"],
    stages: [[[0]], [[1]], [[0, 1], { tensor: 2 }]],
    replicas: 2,
    rest: { microBatches: 2, schedule: "wavefront", weights: "per-item", zero: 1 },
  },
};

for (const [title, { names, stages, replicas = 1, rest }] of Object.entries(overlapping)) {
  test.each(names)(`%s on ${title}`, async (name) => {
    const example = exampleOf(name, { dtype: "f64", batch: 6 });
    const { groups } = example;
    const used = new Set(stages.flatMap(([devices]) => devices)).size;
    const share = groups.length / stages.length;
    const layout: Layout = {
      ...oneDevice(groups),
      devices: Array.from({ length: replicas * used }, (_, i) => ({ name: `cpu:${i}`, threads: 1 })),
      stages: stages.map(([devices, mesh, shares], stage) => ({
        ...(shares && { shares }),
        devices: Array.from({ length: replicas }, (_, r) => devices.map((i) => `cpu:${r * used + i}`)).flat(),
        mesh,
        groups: groups.filter((_, i) => Math.floor(i / share) === stage),
      })),
      ...rest,
    };
    const { microBatches } = layout;
    const plain: Layout = { ...oneDevice(groups), microBatches, schedule: "gpipe" };
    const [got, expected] = [await outcomeOf(example, layout), await outcomeOf(example, plain)];
    const how = { rest: rest ?? {} };
    expectSame(comparable(got, how), comparable(expected, how), 1e-9, title);
    expect(await outcomeOf(example, layout)).toEqual(got);
  });
}

test.each(["lstm", "transformer", "convolution"] as const)(
  "%s: two runs on the same mesh agree in every bit",
  async (name) => {
    const { groups } = exampleOf(name);
    const layout = mixedLayout(groups, mixed["data 2 x tensor 2"] as Mixed);
    expect(await outcomeOf(exampleOf(name), layout)).toEqual(await outcomeOf(exampleOf(name), layout));
  },
);
