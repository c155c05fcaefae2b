/** What a layout asks of a schedule. */

import { deviceAt, devicesOfReplica, type Layout } from "../layout/layout.ts";
import type { ScheduleSpec } from "./schedule.ts";

/** The schedule of one replica of `layout`, over so many items; its devices are those of `devicesOfReplica`, in order. */
export function scheduleSpec(layout: Layout, microBatches: number, chunks: number): ScheduleSpec {
  const devices = devicesOfReplica(layout, 0);
  return {
    kind: layout.schedule,
    devices: devices.length,
    stages: layout.stages.length,
    microBatches,
    chunks,
    weights: layout.weights,
    placement: layout.stages.map((_, stage) => devices.indexOf(deviceAt(layout, stage))),
  };
}
