/** What a layout asks of a schedule. */

import { type Layout, positionOfStages, positionsOf } from "../layout/layout.ts";
import type { ScheduleSpec } from "./schedule.ts";

/** The schedule of one replica of `layout`, over so many items; its devices are `positionsOf(layout)`, whose devices all do the same. */
export function scheduleSpec(layout: Layout, microBatches: number, chunks: number): ScheduleSpec {
  return {
    kind: layout.schedule,
    devices: positionsOf(layout).length,
    stages: layout.stages.length,
    microBatches,
    chunks,
    weights: layout.weights,
    placement: positionOfStages(layout),
  };
}
