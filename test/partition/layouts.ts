/** Layouts for tests: every combination of schedule, time of weight gradients, items and devices that is legal. */

import { type Layout, type ScheduleName, type WeightTiming, withReplicas } from "../../src/layout/layout.ts";
import { scheduleSpec } from "../../src/schedule/layout-spec.ts";
import { scheduleKinds, specProblems } from "../../src/schedule/schedule.ts";

export interface LayoutChoice {
  readonly groups: readonly string[];
  readonly devices: number;
  /** Default: as many as there are devices. */
  readonly stages?: number;
  readonly microBatches?: number;
  readonly chunks?: number;
  readonly schedule?: ScheduleName;
  readonly weights?: WeightTiming;
  readonly recompute?: Layout["recompute"];
}

/** Groups in order, about equally many on every stage; stage s on device s mod devices. */
export function layoutOf(choice: LayoutChoice): Layout {
  const { groups, devices, stages = devices } = choice;
  return {
    version: 1,
    devices: Array.from({ length: devices }, (_, i) => ({ name: `cpu:${i}`, threads: 1 })),
    stages: Array.from({ length: stages }, (_, stage) => ({
      devices: [`cpu:${stage % devices}`],
      groups: groups.filter((_group, i) => Math.floor((i * stages) / groups.length) === stage),
    })),
    microBatches: choice.microBatches ?? 1,
    chunks: choice.chunks ?? 1,
    schedule: choice.schedule ?? "gpipe",
    weights: choice.weights ?? "fused",
    recompute: choice.recompute ?? "none",
  };
}

const weightTimings: readonly WeightTiming[] = ["fused", "per-item", "per-micro-batch", "deferred"];

/** What a layout is in one line. */
export function nameLayout(layout: Layout): string {
  const { devices, stages, microBatches, chunks, schedule, weights } = layout;
  return `${schedule} ${weights}, ${devices.length} devices, ${stages.length} stages, ${microBatches} x ${chunks} items`;
}

export interface GridOptions {
  readonly groups: readonly string[];
  /** Whether time can be cut. */
  readonly hasChunks: boolean;
}

/**
 * For every legal pair of schedule and time of weight gradients four layouts, in which each number of devices (1 to 4), of micro-batches
 * (1, 2, 4 and 3, which is ragged) and of chunks (the same) comes once; over the pairs of the grid, every two numbers come together: an
 * orthogonal array over the field with four elements, where addition is the exclusive or.
 */
export function layoutGrid({ groups, hasChunks }: GridOptions): readonly Layout[] {
  const parts = [1, 2, 4, 3];
  const pairs = scheduleKinds.flatMap((schedule) => weightTimings.map((weights) => ({ schedule, weights })));
  const legal = pairs.filter((pair) => isLegal(layoutOf({ groups, devices: 1, ...pair })));
  return legal.flatMap(({ schedule, weights }, pair) =>
    [0, 1, 2, 3].map((row) => {
      const devices = row + 1;
      const inTurn = schedule === "interleaved-1f1b" || (schedule === "wavefront" && row % 2 === 1);
      const isDouble = inTurn && 2 * devices <= groups.length;
      const chunks = parts[row ^ twice(row ^ (pair % 4))] as number;
      return layoutOf({
        groups,
        devices,
        stages: isDouble ? 2 * devices : devices,
        schedule,
        weights,
        microBatches: parts[row ^ (pair % 4)] as number,
        chunks: hasChunks && schedule !== "naive" ? chunks : 1,
      });
    }),
  );
}

/** Twice an element of the field with four elements. */
function twice(element: number): number {
  return [0, 2, 3, 1][element] as number;
}

export function isLegal(layout: Layout): boolean {
  return specProblems(scheduleSpec(layout, layout.microBatches, layout.chunks)).length === 0;
}

/** The layout with so many replicas: the copy of `cpu:i` in replica r is `cpu:(i + r · devices)`. */
export function replicated(layout: Layout, replicas: number): Layout {
  const count = layout.devices.length;
  const copies = Array.from({ length: replicas - 1 }, (_, r) =>
    layout.devices.map((_device, i) => ({ name: `cpu:${(r + 1) * count + i}`, threads: 1 })),
  );
  return withReplicas(layout, copies);
}
