/** What a graph is split by, and the split graph. */

import type { InputSpec } from "../data/dataset.ts";
import type { Graph } from "../graph/graph.ts";
import type { Layout } from "../layout/layout.ts";
import type { Block } from "./block.ts";
import { type Mesh, noMesh } from "./mesh.ts";
import type { Sharding } from "./sharding.ts";

/** The stage of a group and the mesh of its devices. */
export interface StageMesh {
  readonly stage: number;
  readonly mesh: Mesh;
}

/** What a layout and the data say of every split. */
export interface SplitChoices {
  readonly inputs: readonly InputSpec[];
  /** Which dim of a parameter the tensor axis splits, where the layout says so. */
  readonly shardings: NonNullable<Layout["shardings"]>;
}

export interface SplitSource {
  readonly graph: Graph;
  readonly meshOf: (group: string) => StageMesh;
  /** How inputs lie for which that is settled already, by name; the others are settled by their first use. */
  readonly given: ReadonlyMap<string, GivenInput>;
  /** Which dim the tensor axis splits of parameters for which the layout says so. */
  readonly chosen: ReadonlyMap<string, number | "whole">;
  /** Dims of data inputs that run over time steps. */
  readonly timeDims: (input: string) => readonly number[];
  /** Outputs whose sums over ranks are left to the caller, and for gradients the parameter whose sharding they get. */
  readonly pending: ReadonlyMap<string, string | undefined>;
}

/** What is the same for all graphs of a step. */
export type SplitOptions = Pick<SplitSource, "meshOf" | "chosen" | "timeDims">;

/** An input or output of the split graph as what a rank has of one of the whole graph; without a block all of it. */
export interface Part {
  readonly of: string;
  readonly rank: number;
  readonly block?: Block;
}

/** How an input or output lies on the mesh of its stage. */
export interface Spread extends StageMesh {
  readonly sharding: Sharding;
}

export interface GivenInput extends Spread {
  /** The group whose devices have it. */
  readonly group: string;
  /** The sharding that it is brought into before anything uses it. */
  readonly summed?: Sharding;
  /** Whether the devices of other stages get it by a message, because it was made by the devices of its group. */
  readonly isMade: boolean;
}

export interface SplitGraph {
  readonly graph: Graph;
  /** By name in the split graph; what is not here is whole and has kept its name. */
  readonly parts: ReadonlyMap<string, Part>;
  /** By name in the whole graph. What rank r has is called `partName(name, mesh, r)`. */
  readonly inputs: ReadonlyMap<string, Spread>;
  readonly outputs: ReadonlyMap<string, Spread>;
}

/** How graphs are split whose groups are in such stages, which have such meshes. */
export function splitOptions({
  stageOf,
  meshes,
  shardings,
  inputs,
}: SplitChoices & {
  readonly stageOf: (group: string) => number;
  readonly meshes: readonly Mesh[];
}): SplitOptions {
  return {
    meshOf: (group) => {
      const stage = stageOf(group);
      return { stage, mesh: meshes[stage] ?? noMesh };
    },
    chosen: new Map(Object.entries(shardings)),
    timeDims: (name) =>
      (inputs.find((input) => input.name === name)?.dims ?? []).flatMap((dim, i) =>
        dim === "time" ? [i] : [],
      ),
  };
}

/** What an input or output of the split graph is a part of. */
export function partOf({ parts }: SplitGraph, name: string): Part {
  return parts.get(name) ?? { of: name, rank: 0 };
}
