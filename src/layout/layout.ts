/** The full choice of how a training step is split, as one JSON document. */

/** One executor with its own memory. */
export interface LayoutDevice {
  /** `cpu:0`, `cpu:1`, ... */
  readonly name: string;
  /** Threads that one operation may use. */
  readonly threads: number;
}

/**
 * The axes of a mesh of devices, outermost first in the numbering of its ranks. `tensor` splits weights; `height`, `width` and `sequence`
 * are the domain axes: they split positions of images and sequences.
 */
export const meshAxisNames = ["height", "width", "sequence", "tensor"] as const;

export type MeshAxis = (typeof meshAxisNames)[number];

/** Devices along each axis; an axis that is left out has one. */
export type Mesh = { readonly [A in MeshAxis]?: number | undefined };

/** The groups that one device, or one mesh of devices, holds; work goes through the stages in their order. */
export interface LayoutStage {
  /** Replica by replica, each as many devices as its mesh has ranks; replicas (the data axis) hold the same for other samples. */
  readonly devices: readonly string[];
  /** Sizes of the axes that split the layers of this stage; default: no split. */
  readonly mesh?: Mesh | undefined;
  /** How much of what the tensor axis splits each device along it gets, beside the others: `[3, 1]`; default: all as much. */
  readonly shares?: readonly number[] | undefined;
  readonly groups: readonly string[];
}

/** The names of the schedules, as layouts and the command line spell them, simplest first. */
export const scheduleNames = [
  "naive",
  "gpipe",
  "1f1b",
  "interleaved-1f1b",
  "zero-bubble-h1",
  "wavefront",
] as const;

export type ScheduleName = (typeof scheduleNames)[number];

/** When the gradients of the weights are computed: with those of the inputs, for each item, joined for a micro-batch or for the step. */
export const weightTimings = ["fused", "per-item", "per-micro-batch", "deferred"] as const;

export type WeightTiming = (typeof weightTimings)[number];

export const zeroStages = [0, 1, 2] as const;

/** How much replicas share. */
export type ZeroStage = (typeof zeroStages)[number];

export interface Layout {
  readonly version: 1;
  readonly devices: readonly LayoutDevice[];
  readonly stages: readonly LayoutStage[];
  /** The dim of a parameter that the tensor axis splits, or "whole"; what is left out is as its layer does it by default. */
  readonly shardings?: { readonly [parameter: string]: number | "whole" } | undefined;
  /**
   * What replicas share instead of each having all of it (Rajbhandari et al. 2020, "ZeRO"): 1, the optimizer's state and the update;
   * 2, the gradients too, which are added up after every item; default 0, nothing.
   */
  readonly zero?: ZeroStage | undefined;
  /** Parts that the samples of a mini-batch are cut into; the last ones are smaller where they do not divide. */
  readonly microBatches: number;
  /** Parts that the time steps are cut into. */
  readonly chunks: number;
  /** Time steps that a chunk has at least, so that short sequences are cut into fewer; default 1. */
  readonly shortestChunk?: number | undefined;
  readonly schedule: ScheduleName;
  readonly weights: WeightTiming;
  /** Groups whose values are computed again in backward instead of being saved. */
  readonly recompute: "none" | "full" | readonly string[];
}

/** Parts that a sequence of `time` steps is cut into. */
export function chunksOf(
  { chunks, shortestChunk = 1 }: Pick<Layout, "chunks" | "shortestChunk">,
  time: number,
): number {
  return Math.max(1, Math.min(chunks, Math.floor(time / shortestChunk)));
}

/** One of the axes that split a stage. */
export interface StageAxis {
  readonly axis: MeshAxis;
  readonly size: number;
  /** What each device along it gets, beside the others; all as much without it. */
  readonly shares?: readonly number[];
}

/** The part of a stage that says how it is split. */
export type StageMesh = Pick<LayoutStage, "mesh" | "shares">;

/** The axes that split the layers of a stage, outermost first; those of size 1 are left out. */
export function meshAxes({ mesh = {}, shares }: StageMesh): readonly StageAxis[] {
  return meshAxisNames
    .map((axis) => ({ axis, size: mesh[axis] ?? 1, ...(axis === "tensor" && shares && { shares }) }))
    .filter(({ size }) => size > 1);
}

/** Devices that hold a stage together in each replica: the product of the sizes of its axes. */
export function meshSize(stage: StageMesh): number {
  return meshAxes(stage).reduce((product, { size }) => product * size, 1);
}

/** A mesh in words: `tensor 2`, `height 2 x tensor 4`, `tensor 2 as 3 : 1`; `no mesh` where nothing is split. */
export function showMesh(stage: StageMesh): string {
  return (
    meshAxes(stage)
      .map(({ axis, size, shares }) => `${axis} ${size}${shares ? ` as ${shares.join(" : ")}` : ""}`)
      .join(" x ") || "no mesh"
  );
}

/** By rank of a stage, the part that it gets of what the tensor axis splits. */
export function tensorShares(stage: StageMesh): readonly number[] {
  const tensor = meshAxes(stage).find(({ axis }) => axis === "tensor");
  const { size, shares = Array.from({ length: size }, () => 1) } = tensor ?? { size: 1 };
  const total = shares.reduce((sum, share) => sum + share);
  return Array.from({ length: meshSize(stage) }, (_, rank) => (shares[rank % size] ?? 0) / total);
}

/** Copies of the whole pipeline, each for a share of the samples: the size of the data axis of a sound layout. */
export function replicaCount({ stages }: Pick<Layout, "stages">): number {
  const [stage] = stages;
  return stage === undefined ? 1 : stage.devices.length / meshSize(stage);
}

/** The devices of all ranks of a stage in a replica, as indices into the devices of the layout. */
export function ranksAt(layout: Layout, stage: number, replica = 0): readonly number[] {
  return Array.from({ length: meshSize(layout.stages[stage] as LayoutStage) }, (_, rank) =>
    deviceAt(layout, stage, replica, rank),
  );
}

/** The device of one rank of a stage in a replica, as an index into the devices of the layout. */
export function deviceAt({ devices, stages }: Layout, stage: number, replica = 0, rank = 0): number {
  const held = stages[stage] as LayoutStage;
  const device = held.devices[replica * meshSize(held) + rank];
  return devices.findIndex(({ name }) => name === device);
}

/** The devices of one replica (all ranks of all stages), as indices into the devices of the layout, in their order. */
export function devicesOfReplica(layout: Layout, replica: number): readonly number[] {
  return positionsOf(layout, replica)
    .flat()
    .sort((a, b) => a - b);
}

/**
 * The positions of the pipeline in a replica: devices that hold the same stages, and so do the same actions, as indices into the devices
 * of the layout; by the first device. Without meshes every device is a position.
 */
export function positionsOf(layout: Layout, replica = 0): readonly (readonly number[])[] {
  const positions = new Map<string, number[]>();
  const ranks = layout.stages.map((_, stage) => ranksAt(layout, stage, replica));
  for (const device of layout.devices.keys()) {
    const held = ranks.flatMap((devices, stage) => (devices.includes(device) ? [stage] : []));
    if (held.length > 0) positions.set(held.join(), [...(positions.get(held.join()) ?? []), device]);
  }
  return [...positions.values()];
}

/** The positions of every stage in the first replica, as indices into `positionsOf`: several where it is split over them. */
export function positionsOfStages(layout: Layout): readonly (readonly number[])[] {
  const positions = positionsOf(layout);
  return layout.stages.map((_, stage) => {
    const ranks = ranksAt(layout, stage);
    return positions.flatMap(([first = -1], position) => (ranks.includes(first) ? [position] : []));
  });
}

/**
 * `layout`, whose stages are on one device each, with every stage split over a mesh: `ranks[i]` are the further devices of what was on
 * device i.
 */
export function withMesh(layout: Layout, mesh: Mesh, ranks: readonly (readonly LayoutDevice[])[]): Layout {
  const names = new Map(
    layout.devices.map(({ name }, i) => [name, (ranks[i] ?? []).map((device) => device.name)]),
  );
  return {
    ...layout,
    devices: layout.devices.flatMap((device, i) => [device, ...(ranks[i] ?? [])]),
    stages: layout.stages.map(({ devices, groups }) => ({
      devices: devices.flatMap((name) => [name, ...(names.get(name) ?? [])]),
      mesh,
      groups,
    })),
  };
}

/**
 * `layout`, which has one replica, with copies of its pipeline on further devices: `copies[r][i]` is the copy of device i in replica r + 1.
 */
export function withReplicas(layout: Layout, copies: readonly (readonly LayoutDevice[])[]): Layout {
  const position = (device: string): number => layout.devices.findIndex(({ name }) => name === device);
  return {
    ...layout,
    devices: [...layout.devices, ...copies.flat()],
    stages: layout.stages.map((stage) => ({
      ...stage,
      devices: [
        ...stage.devices,
        ...copies.flatMap((devices) => stage.devices.map((name) => devices[position(name)]?.name ?? "")),
      ],
    })),
  };
}

/** Everything on one device, one item: what all other layouts are compared with. */
export function oneDevice(groups: readonly string[], threads = 1): Layout {
  return {
    version: 1,
    devices: [{ name: "cpu:0", threads }],
    stages: [{ devices: ["cpu:0"], groups }],
    microBatches: 1,
    chunks: 1,
    schedule: "naive",
    weights: "fused",
    recompute: "none",
  };
}
