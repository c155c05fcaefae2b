/** What a layout asks of a schedule. */

import type { StageWork } from "../cost/stage-work.ts";
import { type Layout, positionsOf, positionsOfStages, ranksAt, tensorShares } from "../layout/layout.ts";
import type { StateSpec } from "../model/model-builder.ts";
import type { Loads, Meets } from "./action.ts";
import type { ScheduleSpec } from "./schedule.ts";

/** What a schedule may know of the stages beyond their number. */
export type StageFacts = Pick<ScheduleSpec, "costs" | "loads" | "carries" | "meets" | "lateness">;

/** Durations vary by some percent from step to step, and estimates of them are that wrong. */
const expectedLateness = 0.2;

/**
 * The schedule of one replica of `layout`, over so many items; its devices are `positionsOf(layout)`. All devices of a position do the
 * same.
 */
export function scheduleSpec(
  layout: Layout,
  microBatches: number,
  chunks: number,
  facts: StageFacts = {},
): ScheduleSpec {
  return {
    kind: layout.schedule,
    devices: positionsOf(layout).length,
    stages: layout.stages.length,
    microBatches,
    chunks,
    weights: layout.weights,
    placement: positionsOfStages(layout),
    ...facts,
  };
}

/**
 * By what the wavefront finds its order for `layout`: what stages cost (`work` is theirs for one item), which of them have one of
 * `states` that is carried from chunk to chunk, and in which phases their devices meet. Costs are always
 * estimated with typical rates, never measured, so that a model runs in the same order under the same layout everywhere.
 */
export function stageFacts(
  layout: Layout,
  work: readonly StageWork[],
  states: readonly StateSpec[],
  meets: readonly Meets[],
): StageFacts {
  const carrying = states.flatMap(({ kind, group }) => (kind === "carried" ? [group] : []));
  return {
    costs: work.map(({ seconds }) => seconds),
    loads: loadsOf(layout, (device) => layout.devices[device]?.threads ?? 1),
    carries: layout.stages.map(({ groups }) => carrying.some((group) => groups.includes(group))),
    meets,
    lateness: expectedLateness,
  };
}

/**
 * By stage and position, how long the devices there take for what the rank with the largest share does in time 1 at speed 1; `speedOf` gets
 * the index of a device.
 */
export function loadsOf(layout: Layout, speedOf: (device: number) => number): Loads {
  const positions = positionsOf(layout);
  const places = positionsOfStages(layout);
  return layout.stages.map((stage, i) => {
    const ranks = ranksAt(layout, i);
    const shares = tensorShares(stage);
    const largest = Math.max(...shares);
    const loadOf = (device: number): number =>
      (shares[ranks.indexOf(device)] as number) / largest / speedOf(device);
    return (places[i] ?? []).map((position) => Math.max(...(positions[position] ?? []).map(loadOf)));
  });
}
