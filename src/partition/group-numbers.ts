/** Numbers for groups of devices. The same devices have the same number in all programs of a run: it follows from the layout alone. */

import { invariant } from "../base/errors.ts";
import {
  type Layout,
  type LayoutStage,
  type MeshAxis,
  meshAxes,
  ranksAt,
  replicaCount,
} from "../layout/layout.ts";
import { ranksAlong } from "../shard/mesh.ts";

/** The number of a list of devices; throws for a list that no stage has. */
export type GroupNumbers = (ranks: readonly number[]) => number;

/** Numbers every list of devices that may meet, by its place in dictionary order. */
export function groupNumbers(layout: Layout): GroupNumbers {
  const sorted = meetingsOf(layout).toSorted((a, b) => {
    const differs = a.findIndex((rank, i) => rank !== b[i]);
    return differs < 0 ? a.length - b.length : (a[differs] ?? -1) - (b[differs] ?? -1);
  });
  const distinct = [...new Set(sorted.map((ranks) => ranks.join()))];
  const numbers = new Map(distinct.map((key, number) => [key, number]));
  return (ranks) => {
    const number = numbers.get(ranks.join());
    invariant(number !== undefined, `devices ${ranks.join(", ")} are no group of the layout`);
    return number;
  };
}

/** For every stage and choice of its axes: the ranks along them, in one replica and in all. */
function meetingsOf(layout: Layout): readonly (readonly number[])[] {
  const replicas = Array.from({ length: replicaCount(layout) }, (_, replica) => replica);
  return layout.stages.flatMap((stage, index) => {
    const devices = replicas.map((replica) => ranksAt(layout, index, replica));
    return choicesOf(stage).flatMap((axes) =>
      ranksAlong({ axes: meshAxes(stage) }, axes).flatMap((ranks) => {
        const inReplicas = devices.map((own) => ranks.map((rank) => own[rank] as number));
        return [...inReplicas, inReplicas.flat()];
      }),
    );
  });
}

/** Every choice of axes, none among them. */
function choicesOf(stage: LayoutStage): readonly (readonly MeshAxis[])[] {
  const axes = meshAxes(stage).map(({ axis }) => axis);
  return Array.from({ length: 2 ** axes.length }, (_, choice) =>
    axes.filter((_axis, i) => Math.floor(choice / 2 ** i) % 2 === 1),
  );
}
