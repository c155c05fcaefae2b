/** What a layout asks of a schedule. */

import type { StageCosts, StageWork } from "../cost/stage-work.ts";
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
 * What the stages of `layout` cost, by which the wavefront finds its order; `work` is theirs for one item. It is always estimated with
 * typical rates, never measured, so that a model runs in the same order under the same layout everywhere.
 */
export function orderingCosts(layout: Layout, work: readonly StageWork[]): readonly StageCosts[] {
  return layout.stages.map((stage, i) => {
    const { F, B, W } = (work[i] as StageWork).seconds;
    const threads = layout.devices.find(({ name }) => name === stage.devices[0])?.threads ?? 1;
    const speed = threads * meshSize(stage);
    return { F: F / speed, B: B / speed, W: W / speed };
  });
}
