/** The ways to stream a mini-batch that the planner tries. */

import { UserError } from "../base/errors.ts";
import type { BatchShape } from "../data/dataset.ts";
import type { ScheduleName, WeightTiming } from "../layout/layout.ts";
import { recurrentGroups, type WorkBook } from "./item-work.ts";

/** How the items of a mini-batch stream through the stages. */
export interface Streaming {
  readonly chunks: number;
  /** Set where the planner chose the number of chunks. */
  readonly shortestChunk?: number;
  readonly schedule: ScheduleName;
  readonly weights: WeightTiming;
}

/** The plainest first: of equally fast ways the first is taken. */
const orders: readonly (readonly [ScheduleName, readonly WeightTiming[]])[] = [
  ["naive", ["fused"]],
  ["1f1b", ["fused", "per-micro-batch", "per-item", "deferred"]],
  ["gpipe", ["fused", "per-micro-batch", "per-item", "deferred"]],
  ["zero-bubble-h1", ["per-micro-batch", "per-item"]],
  ["wavefront", ["fused", "per-micro-batch", "per-item", "deferred"]],
  ["interleaved-1f1b", ["fused", "per-micro-batch", "per-item", "deferred"]],
];

const chunkCounts: readonly number[] = [1, 2, 4, 8];
/** Shorter chunks are not tried, and short sequences are cut into fewer chunks than the longest. */
const fewestSteps = 7;

/** Every way to stream, with what is `fixed` taken as given. */
export function streamings(chunkChoices: readonly number[], fixed: Partial<Streaming>): readonly Streaming[] {
  return chunkChoices.flatMap((chunks) =>
    orders.flatMap(([name, timings]) =>
      (fixed.weights === undefined ? timings : [fixed.weights])
        .filter(() => fixed.schedule === undefined || fixed.schedule === name)
        .map((weights) => ({ chunks, schedule: name, weights, ...shortest(chunks, fixed) })),
    ),
  );
}

function shortest(chunks: number, fixed: Partial<Streaming>): Pick<Streaming, "shortestChunk"> {
  return chunks > 1 && fixed.chunks === undefined ? { shortestChunk: fewestSteps } : {};
}

/** Numbers of chunks worth a trial: more than 1 only where a recurrent layer carries its state from chunk to chunk. */
export function chunkChoices(book: WorkBook, shapes: readonly BatchShape[]): readonly number[] {
  const times = shapes.map(({ time }) => time ?? 1);
  const longest = Math.max(...times);
  const [shape] = shapes;
  if (shape === undefined || recurrentGroups(book.item(shape, shape).step.item).size === 0) return [1];
  const counts = chunkCounts.filter((chunks) => chunks === 1 || longest / chunks >= fewestSteps);
  return counts.length > 1 && canBeChunked(book, shape) ? counts : [1];
}

/** Whether the model can be built for a part of its time steps; attention, for example, needs all of them. */
function canBeChunked(book: WorkBook, shape: BatchShape): boolean {
  try {
    book.item({ ...shape, time: 1 }, shape);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}
