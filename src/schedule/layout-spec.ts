/** What a layout asks of a schedule. */

import { type ItemWork, type StageCosts, stageWork } from "../cost/stage-work.ts";
import { type Layout, meshSize, positionOfStages, positionsOf } from "../layout/layout.ts";
import type { ScheduleSpec } from "./schedule.ts";

/** The schedule of one replica of `layout`, over so many items; its devices are `positionsOf(layout)`, whose devices all do the same. */
export function scheduleSpec(
  layout: Layout,
  microBatches: number,
  chunks: number,
  costs?: readonly StageCosts[],
): ScheduleSpec {
  return {
    kind: layout.schedule,
    devices: positionsOf(layout).length,
    stages: layout.stages.length,
    microBatches,
    chunks,
    weights: layout.weights,
    placement: positionOfStages(layout),
    ...(costs && { costs }),
  };
}

/**
 * Seconds of the stages of `layout` for an item whose work is estimated, by which the wavefront finds its order. The estimates are always
 * those of typical rates, never measured, so that a model runs in the same order under the same layout everywhere.
 */
export function orderingCosts(item: ItemWork, layout: Layout): readonly StageCosts[] {
  const stageOf = new Map(
    layout.stages.flatMap(({ groups }, stage) => groups.map((group) => [group, stage])),
  );
  const work = stageWork(
    item,
    layout.stages.length,
    (group) => stageOf.get(group) ?? -1,
    layout.weights === "fused",
  );
  return work.map(({ seconds: { F, B, W } }, stage) => {
    const held = layout.stages[stage];
    const threads = layout.devices.find(({ name }) => name === held?.devices[0])?.threads ?? 1;
    const speed = threads * (held === undefined ? 1 : meshSize(held));
    return { F: F / speed, B: B / speed, W: W / speed };
  });
}
