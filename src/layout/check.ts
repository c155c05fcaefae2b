/** What is wrong with a layout: by itself, and for the model it is to place. Every problem names its place in the document. */

import type { Flow } from "../cost/flow.ts";
import { type BatchShape, shapeKey } from "../data/dataset.ts";
import { deviceProblems, type LayoutParts } from "./check-devices.ts";
import { type Layout, replicaCount } from "./layout.ts";

/** What a layout must know of the model and its data. */
export interface LayoutModel {
  /** All groups. */
  readonly groups: readonly string[];
  /** Shapes of the mini-batches that are trained on. */
  readonly shapes: readonly BatchShape[];
  /** The values that groups give each other; only those of phase F decide. */
  readonly flows: readonly Flow[];
}

/** Problems that the document has whatever the model is; one sentence each. */
export function layoutProblems(layout: LayoutParts): readonly string[] {
  return [...deviceProblems(layout), ...stageProblems(layout), ...groupProblems(layout)];
}

/** Problems of a layout without `layoutProblems` as a placement of `model`; one sentence each. */
export function modelProblems(layout: Layout, model: LayoutModel): readonly string[] {
  return [
    ...placementProblems(layout, model.groups),
    ...itemProblems(layout, model.shapes),
    ...recomputeProblems(layout, model.groups),
    ...flowProblems(layout, model.flows),
    ...sharingProblems(layout, model.shapes),
  ];
}

/** Sharing needs somebody to share with; to add up gradients item by item, replicas need items of the same sizes. */
function sharingProblems(layout: Layout, shapes: readonly BatchShape[]): string[] {
  const { zero = 0 } = layout;
  const replicas = replicaCount(layout);
  if (zero === 0) return [];
  if (replicas === 1)
    return [
      `zero: ${zero} shares the update among replicas, but there is one: give every stage devices for several, or leave out "zero"`,
    ];
  const uneven = zero === 2 ? shapes.find(({ batch }) => batch % replicas !== 0) : undefined;
  return uneven === undefined
    ? []
    : [
        `zero: 2 adds up gradients item by item, but ${uneven.batch} samples of a mini-batch (${shapeKey(uneven)}) do not make equal items for ${replicas} replicas: use 1, or mini-batches that ${replicas} divides`,
      ];
}

function stageProblems({ stages }: LayoutParts): string[] {
  if (stages.length === 0) return ["stages: must list at least one stage"];
  return stages.flatMap(({ groups }, i) =>
    groups.length === 0 ? [`stages[${i}].groups: a stage must hold at least one group`] : [],
  );
}

function groupProblems({ stages }: LayoutParts): string[] {
  const places = new Map<string, string>();
  return stages.flatMap(({ groups }, i) =>
    groups.flatMap((group, j) => {
      const place = `stages[${i}].groups[${j}]`;
      if (group === undefined) return [];
      const first = places.get(group);
      if (first !== undefined) return [`${place}: group "${group}" is placed already by ${first}`];
      places.set(group, place);
      return [];
    }),
  );
}

function placementProblems({ stages }: Layout, groups: readonly string[]): string[] {
  const placed = new Set(stages.flatMap((stage) => stage.groups));
  const unknown = stages.flatMap((stage, i) =>
    stage.groups.flatMap((group, j) =>
      groups.includes(group)
        ? []
        : [`stages[${i}].groups[${j}]: the model has no group "${group}"; its groups are ${list(groups)}`],
    ),
  );
  const missing = groups.filter((group) => !placed.has(group));
  const tooMany = stages.length > groups.length;
  return [
    ...(tooMany
      ? [`stages: ${stages.length} stages are more than the ${groups.length} groups of the model`]
      : []),
    ...unknown,
    ...missing.map((group) => `stages: group "${group}" of the model is in no stage`),
  ];
}

/** Parts may differ in size by 1, but none may be empty. */
function itemProblems(
  { stages, microBatches, chunks, shortestChunk }: Layout,
  shapes: readonly BatchShape[],
): string[] {
  const replicas = replicaCount({ stages });
  const problems: string[] = [];
  const smallest = shapes.toSorted((a, b) => a.batch - b.batch)[0];
  if (smallest !== undefined && replicas * microBatches > smallest.batch) {
    const most = Math.floor(smallest.batch / replicas);
    const parts = replicas === 1 ? "" : ` for each of ${replicas} replicas`;
    problems.push(
      most === 0
        ? `stages[0].devices: ${replicas} replicas, but a mini-batch (${shapeKey(smallest)}) has ${smallest.batch} samples: use at most ${smallest.batch}`
        : `microBatches: ${microBatches} micro-batches${parts}, but a mini-batch (${shapeKey(smallest)}) has ${smallest.batch} samples: use at most ${most}`,
    );
  }
  if (chunks === 1) return problems;
  const shortest = shapes.toSorted((a, b) => (a.time ?? 0) - (b.time ?? 0))[0];
  const fits = shortestChunk === undefined ? chunks <= (shortest?.time ?? 0) : shortest?.time !== undefined;
  if (shortest === undefined || fits) return problems;
  problems.push(
    shortest.time === undefined
      ? `chunks: ${chunks} chunks of time, but the data has no time dim: use 1`
      : `chunks: ${chunks} chunks, but the shortest sequences (${shapeKey(shortest)}) have ${shortest.time} time steps: use at most ${shortest.time}`,
  );
  return problems;
}

function recomputeProblems({ recompute }: Layout, groups: readonly string[]): string[] {
  if (typeof recompute === "string") return [];
  return recompute.flatMap((group, i) =>
    groups.includes(group)
      ? []
      : [`recompute[${i}]: the model has no group "${group}"; its groups are ${list(groups)}`],
  );
}

/** One problem for each pair of groups between which a value would have to go back to an earlier stage. */
function flowProblems({ stages }: Layout, flows: readonly Flow[]): string[] {
  const places = new Map(
    stages.flatMap(({ groups }, stage) =>
      groups.map((group, i) => [group, { stage, text: `stages[${stage}].groups[${i}]` }] as const),
    ),
  );
  const problems = new Map<string, string>();
  for (const { from, to, tensor, phase } of flows) {
    const [maker, user] = [places.get(from), places.get(to)];
    if (phase !== "F" || maker === undefined || user === undefined || maker.stage <= user.stage) continue;
    const pair = `${from}\n${to}`;
    if (problems.has(pair)) continue;
    problems.set(
      pair,
      `${maker.text}: group "${from}" gives ${tensor} to group "${to}" in the earlier stage ${user.stage}, but values flow to later stages only: put "${from}" first`,
    );
  }
  return [...problems.values()];
}

function list(names: readonly string[]): string {
  return names.join(", ") || "none";
}
