/** Whether a layout can run: sound by itself, for its model, and under its schedule. Every problem at once. */

import { UserError } from "../base/errors.ts";
import { flowsOf } from "../cost/flow.ts";
import type { BatchShape } from "../data/dataset.ts";
import { type LayoutModel, layoutProblems, modelProblems } from "../layout/check.ts";
import { type Layout, positionsOf } from "../layout/layout.ts";
import type { LayoutCheck } from "../layout/parse.ts";
import { buildForward } from "../model/forward.ts";
import { type CompileSource, groupsOf } from "../partition/compile.ts";
import { scheduleSpec } from "../schedule/layout-spec.ts";
import { specProblems } from "../schedule/schedule.ts";

/** What layouts are checked against: the groups and flows of `source`, and the shapes of the mini-batches to train on. */
export function layoutModel(
  source: Pick<CompileSource, "model" | "loss" | "inputs" | "dtype">,
  shapes: readonly BatchShape[],
): LayoutModel {
  const [shape = { batch: 1, time: 1 }] = shapes;
  const { dtype } = source;
  const { graph } = buildForward(source, { shape: { item: shape, total: shape }, training: true, dtype });
  return { groups: groupsOf({ graph }), shapes, flows: flowsOf(graph) };
}

/** Checks for `parseLayout`, so that a document's problems are listed together. */
export function layoutChecks(model: LayoutModel): readonly LayoutCheck[] {
  return [(layout) => modelProblems(layout, model), scheduleProblems];
}

/** Throws a `UserError` that lists everything that keeps `layout` from running `model`. */
export function checkLayout(layout: Layout, model: LayoutModel): void {
  const own = layoutProblems(layout);
  const problems = own.length > 0 ? own : layoutChecks(model).flatMap((check) => check(layout));
  if (problems.length > 0) throw new UserError("the layout cannot be used", problems);
}

/** Why the schedule of a sound layout refuses its stages, items or weights. */
export function scheduleProblems(layout: Layout): readonly string[] {
  const problems = specProblems(scheduleSpec(layout, layout.microBatches, layout.chunks)).map(
    (problem) => `schedule: ${problem}`,
  );
  if (layout.schedule === "interleaved-1f1b" && layout.stages.length === positionsOf(layout).length)
    problems.push("schedule: interleaved-1f1b needs several stages on each device: use 1f1b, or more stages");
  return problems;
}
