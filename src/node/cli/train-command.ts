/** `paraxis train JOB`: a training run with its progress, its report, and an orderly end at Ctrl-C. */

import type { Job } from "../../model/job.ts";
import type { EngineName } from "../devices/messages.ts";
import type { LayoutOptions } from "../train/choose-layout.ts";
import type { StartEvent, TrainEvent, TrainSummary } from "../train/events.ts";
import type { TrainOptions } from "../train/plan-run.ts";
import { TrainError, trainJob } from "../train/train-job.ts";
import { describeEnd, describeStart } from "./describe-run.ts";
import { plural } from "./format.ts";
import { jobName, loadJob } from "./load-job.ts";
import { openProgress, type Progress, silentProgress } from "./progress.ts";
import { stoppedByUser, type Terminal } from "./terminal.ts";

/** The options of the command as they come from the command line. */
export interface TrainCommandOptions extends LayoutOptions {
  readonly steps?: number;
  readonly epochs?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly engine?: EngineName;
  readonly compare?: number;
  readonly validation: boolean;
  readonly runFolder: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Runs the command and returns its exit code. */
export async function trainCommand(
  path: string,
  options: TrainCommandOptions,
  terminal: Terminal,
): Promise<number> {
  const { json = false, quiet = false } = options;
  const stopping = new AbortController();
  using progress = quiet ? silentProgress() : openProgress(terminal.err);
  using _ = onInterrupt(stopping, progress, terminal);
  const job = (await loadJob(path)) as Job;
  let unit: StartEvent["unit"] = "samples";
  const show = (event: TrainEvent): void => {
    if (event.kind === "start") unit = event.unit;
    if (json) terminal.out.write(`${JSON.stringify(event)}\n`);
    if (event.kind === "start" && !quiet)
      (json ? terminal.err : terminal.out).write(`${describeStart(event)}\n`);
    progress.show(event);
  };
  try {
    const summary = await trainJob(job, trainOptions(path, options, terminal, stopping.signal), show);
    if (!quiet) (json ? terminal.err : terminal.out).write(`\n${describeEnd(summary, unit)}`);
    return exitCode(summary, quiet, terminal);
  } catch (error) {
    if (error instanceof TrainError) {
      progress[Symbol.dispose]();
      if (json) terminal.out.write(`${JSON.stringify(failureEvent(error))}\n`);
      terminal.err.write(describeFailure(error));
      return 1;
    }
    throw error;
  }
}

function exitCode(summary: TrainSummary, quiet: boolean, terminal: Terminal): number {
  if (summary.reason !== "stopped") return 0;
  if (quiet && summary.parameters !== undefined) {
    terminal.err.write(`stopped after ${plural(summary.steps, "step")}; saved ${summary.parameters}\n`);
  }
  return stoppedByUser;
}

function trainOptions(
  path: string,
  { runFolder, json: _, quiet: __, ...options }: TrainCommandOptions,
  terminal: Terminal,
  signal: AbortSignal,
): TrainOptions {
  return {
    ...options,
    runs: runFolder,
    name: jobName(path),
    jobFile: path,
    command: ["paraxis", ...terminal.args],
    signal,
  };
}

/** The first Ctrl-C lets the step finish; the second ends the process at once. */
function onInterrupt(stopping: AbortController, progress: Progress, terminal: Terminal): Disposable {
  return terminal.onInterrupt(() => {
    if (stopping.signal.aborted) {
      progress[Symbol.dispose]();
      terminal.exit(stoppedByUser);
      return;
    }
    progress.note("stopping after this step and saving; press Ctrl-C again to end at once");
    stopping.abort();
  });
}

function failureEvent({ message, steps, runFolder, parameters }: TrainError): object {
  return { kind: "failed", message, steps, runFolder, parameters };
}

function describeFailure({ message, steps, runFolder, parameters, cause }: TrainError): string {
  const lines = [`error: ${message}`];
  if (runFolder !== undefined) {
    lines.push(`The metrics of ${plural(steps, "step")} are in ${runFolder}/metrics.jsonl.`);
  }
  if (parameters !== undefined) lines.push(`The last good parameters are in ${parameters}.`);
  if (cause instanceof TypeError || cause instanceof RangeError) lines.push(`${cause.stack}`);
  return `${lines.join("\n")}\n`;
}
