/** What the partitioner works from. */

import type { TrainingStep } from "../autodiff/training-step.ts";
import type { Graph } from "../graph/graph.ts";
import type { ZeroStage } from "../layout/layout.ts";
import type { Schedule, Weights } from "../schedule/action.ts";
import type { Mesh } from "../shard/mesh.ts";
import type { SplitChoices, SplitGraph } from "../shard/split-source.ts";
import type { GroupNumbers } from "./group-numbers.ts";

/** One item of the mini-batch: which of the steps' graphs it uses, and the samples and time steps it covers (from, to). */
export interface ItemSlice {
  readonly step: number;
  readonly batch: readonly [number, number];
  readonly time: readonly [number, number];
}

/** A training step, or for evaluation one without the update. */
export type PartitionStep = Pick<TrainingStep, "item" | "states" | "gradients"> & { readonly update?: Graph };

/** One copy of the pipeline with its share of the samples. */
export interface Replica {
  /** One step for each distinct item shape; they differ in shapes only. */
  readonly steps: readonly PartitionStep[];
  /** Items by micro-batch and chunk. */
  readonly items: readonly (readonly ItemSlice[])[];
  /** The actions of every device of the step; those of other replicas have none. */
  readonly schedule: Schedule;
  readonly deviceOf: (stage: number, rank: number) => number;
}

/** What is the same in all replicas. */
export interface Shared extends SplitChoices {
  readonly weights: Weights;
  readonly stageOf: (group: string) => number;
  /** The mesh of each stage. */
  readonly meshes: readonly Mesh[];
  /** The number of a group of devices, the same in all programs of a run. */
  readonly numberOf: GroupNumbers;
  /** A split that has settled how parameters and statistics lie, in training and in evaluation, for items of any shape. */
  readonly settled: SplitGraph;
}

/** What one replica's writers work from. */
export type ReplicaSource = Replica & Shared;

export interface PartitionSource extends Shared {
  /** Number of devices of the step. */
  readonly devices: number;
  /** What the replicas share; 0 where there is one. */
  readonly zero: ZeroStage;
  /** At least one; no two share a device. */
  readonly replicas: readonly Replica[];
}
