/** `paraxis layout JOB`: how every layer would be split, without training. */

import type { BatchShape } from "../../data/dataset.ts";
import { type Layout, oneDevice } from "../../layout/layout.ts";
import type { Job } from "../../model/job.ts";
import { type CompileSource, compileTraining } from "../../partition/compile.ts";
import { speedOf } from "../../plan/balance.ts";
import { describeSplit } from "../../plan/describe-split.ts";
import { predictStep } from "../../plan/predict-step.ts";
import { awaitData, checkJob } from "../train/check-job.ts";
import type { LayoutOptions } from "../train/choose-layout.ts";
import { planRun } from "../train/plan-run.ts";
import { describeLayout, type LayoutReport } from "./describe-layout.ts";
import { jobName, loadJob } from "./load-job.ts";
import type { Terminal } from "./terminal.ts";

/** The options of the command as they come from the command line. */
export interface LayoutCommandOptions extends LayoutOptions {
  readonly threads?: number;
  readonly json?: boolean;
}

/** Runs the command and returns its exit code. */
export async function layoutCommand(
  path: string,
  { json = false, ...options }: LayoutCommandOptions,
  terminal: Terminal,
): Promise<number> {
  const job = checkJob((await loadJob(path)) as Job);
  const data = await awaitData(job.data);
  const { source, layout, reasons, name } = planRun(job, data, { ...options, name: jobName(path) });
  const shape = largest(data.shapes);
  const compiled = compileTraining(source, layout, shape);
  const split = describeSplit(compiled, layout);
  const predicted = {
    ...predictStep(compiled.programs, { speeds: layout.devices.map(speedOf) }),
    oneDeviceSeconds: oneDeviceSeconds(source, layout, shape),
  };
  const report: LayoutReport = { job: name, layout, shape, reasons, ...split, predicted };
  terminal.out.write(`${json ? JSON.stringify(report) : describeLayout(report)}\n`);
  return 0;
}

/** Seconds of the same step on the first device alone. */
function oneDeviceSeconds(source: CompileSource, layout: Layout, shape: BatchShape): number {
  const { stages, microBatches, recompute, devices } = layout;
  const alone = oneDevice(
    stages.flatMap(({ groups }) => groups),
    devices[0]?.threads,
  );
  const { programs } = compileTraining(source, { ...alone, microBatches, recompute }, shape);
  return predictStep(programs, { speeds: alone.devices.map(speedOf) }).seconds;
}

/** The mini-batch that moves most. */
function largest(shapes: readonly BatchShape[]): BatchShape {
  const size = ({ batch, time = 1 }: BatchShape) => batch * time;
  return shapes.reduce((most, shape) => (size(shape) > size(most) ? shape : most));
}
