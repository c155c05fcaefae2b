/** The full choice of how a training step is split, as one JSON document. */

/** One executor with its own memory. */
export interface LayoutDevice {
  /** `cpu:0`, `cpu:1`, ... */
  readonly name: string;
  /** Threads that one operation may use. */
  readonly threads: number;
}

/** The groups that one device holds; work goes through the stages in their order. */
export interface LayoutStage {
  readonly device: string;
  /** Devices that hold the same groups for other samples of every mini-batch (the data axis); as many in every stage; default none. */
  readonly replicas?: readonly string[] | undefined;
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

export interface Layout {
  readonly version: 1;
  readonly devices: readonly LayoutDevice[];
  readonly stages: readonly LayoutStage[];
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

/** Copies of the whole pipeline, each for a share of the samples: the size of the data axis. */
export function replicaCount({ stages }: Pick<Layout, "stages">): number {
  return 1 + (stages[0]?.replicas?.length ?? 0);
}

/** The device of a stage in a replica, as an index into the devices of the layout. */
export function deviceAt({ devices, stages }: Layout, stage: number, replica = 0): number {
  const { device, replicas = [] } = stages[stage] as LayoutStage;
  return devices.findIndex(({ name }) => name === [device, ...replicas][replica]);
}

/** The devices of one replica, as indices into the devices of the layout, in their order. */
export function devicesOfReplica(layout: Layout, replica: number): readonly number[] {
  const used = new Set(layout.stages.map((_, stage) => deviceAt(layout, stage, replica)));
  return [...used].sort((a, b) => a - b);
}

/** `layout` with copies of its pipeline on further devices: `copies[r][i]` is the copy of device i in replica r + 1. */
export function withReplicas(layout: Layout, copies: readonly (readonly LayoutDevice[])[]): Layout {
  const position = (device: string): number => layout.devices.findIndex(({ name }) => name === device);
  return {
    ...layout,
    devices: [...layout.devices, ...copies.flat()],
    stages: layout.stages.map(({ device, groups }) => ({
      device,
      replicas: copies.map((devices) => devices[position(device)]?.name ?? ""),
      groups,
    })),
  };
}

/** Everything on one device, one item: what all other layouts are compared with. */
export function oneDevice(groups: readonly string[], threads = 1): Layout {
  return {
    version: 1,
    devices: [{ name: "cpu:0", threads }],
    stages: [{ device: "cpu:0", groups }],
    microBatches: 1,
    chunks: 1,
    schedule: "naive",
    weights: "fused",
    recompute: "none",
  };
}
