/** What is decided before a run starts: the layout, how long it lasts, and what it is called. */

import { UserError } from "../../base/errors.ts";
import type { BatchShape, DataSet } from "../../data/dataset.ts";
import type { Layout } from "../../layout/layout.ts";
import { buildForward } from "../../model/forward.ts";
import type { Job } from "../../model/job.ts";
import type { Metric } from "../../model/metric.ts";
import { type CompileSource, groupsOf } from "../../partition/compile.ts";
import type { EngineName } from "../devices/messages.ts";
import { chooseLayout, type LayoutOptions, naiveLayout } from "./choose-layout.ts";

/** Choices that override the job's or that the job does not make. */
export interface TrainOptions extends LayoutOptions {
  /** Steps to do; the job's own `steps` and `epochs` are then ignored. */
  readonly steps?: number;
  /** Passes over the training data; the job's own `steps` and `epochs` are then ignored. With `steps`, what comes first ends the run. */
  readonly epochs?: number;
  readonly seed?: number;
  /** Threads that one operation may use; default 1; more pay where processors are idle and operations large. */
  readonly threads?: number;
  /** Default "onnxruntime". */
  readonly engine?: EngineName;
  /** Steps to do first with the groups placed by count and one item at a time, to see what streaming brings; default 0. */
  readonly compare?: number;
  /** Whether to validate after each epoch and at the end; default true. */
  readonly validation?: boolean;
  /** Folder in which the run's own folder is made; default "runs"; false for no files at all. */
  readonly runs?: string | false;
  /** Name of the run where the job has none. */
  readonly name?: string;
  /** Path of the job file, for run.json. */
  readonly jobFile?: string;
  /** The words of the command line, for run.json. */
  readonly command?: readonly string[];
  /** Ends the run after the step that is being done; it then returns with the reason "stopped". */
  readonly signal?: AbortSignal;
}

/** Steps that are done under one layout. */
export interface RunPhase {
  readonly name: string;
  readonly layout: Layout;
  /** The step after which the next phase begins. */
  readonly until: number;
}

export interface RunPlan {
  readonly source: CompileSource;
  readonly data: DataSet;
  /** What validation tells beside the loss. */
  readonly metrics: { readonly [name: string]: Metric };
  readonly groups: readonly string[];
  /** The layout that was asked for or chosen. */
  readonly layout: Layout;
  readonly reasons: readonly string[];
  readonly phases: readonly RunPhase[];
  readonly seed: number;
  readonly engine: EngineName;
  readonly name: string;
  readonly steps: number;
  readonly validates: boolean;
}

/** The plan of a run; UserError where the model does not fit the data or a choice is not possible. */
export function planRun(job: Job, data: DataSet, options: TrainOptions): RunPlan {
  checkOptions(options);
  const source: CompileSource = {
    model: job.model,
    loss: job.loss,
    optimizer: job.optimizer,
    inputs: data.inputs,
    dtype: "f32",
    ...(job.initializer && { initializer: job.initializer }),
  };
  const groups = groupsIn(source, data.shapes[0] as BatchShape);
  checkRecompute(job, groups);
  const { layout, reasons } = chooseLayout({
    source,
    shapes: data.shapes,
    options,
    ...(job.place && { place: job.place }),
    recompute: job.recompute ?? "none",
    threads: options.threads ?? 1,
  });
  const steps = stepsOf(job, data, options);
  return {
    source,
    data,
    metrics: job.metrics ?? {},
    groups,
    layout,
    reasons,
    phases: phasesOf(layout, groups, steps, options.compare ?? 0),
    seed: options.seed ?? job.seed ?? 1,
    engine: options.engine ?? "onnxruntime",
    name: job.name ?? options.name ?? "job",
    steps,
    validates: options.validation ?? true,
  };
}

function phasesOf(
  layout: Layout,
  groups: readonly string[],
  steps: number,
  compare: number,
): readonly RunPhase[] {
  if (compare === 0) return [{ name: layout.schedule, layout, until: steps }];
  if (layout.devices.length === 1) {
    throw new UserError("cannot compare placements on one device; give more, for example --devices cpu:2");
  }
  return [
    { name: "naive", layout: naiveLayout(layout, groups), until: Math.min(compare, steps) },
    { name: layout.schedule === "naive" ? "as placed" : "pipelined", layout, until: steps },
  ];
}

function groupsIn(source: CompileSource, shape: BatchShape): readonly string[] {
  const { dtype, initializer } = source;
  const item = { item: shape, total: shape };
  return groupsOf(
    buildForward(source, { shape: item, training: true, dtype, ...(initializer && { initializer }) }),
  );
}

function checkOptions(options: TrainOptions): void {
  const problems = (
    ["steps", "epochs", "threads", "compare", "data", "tensor", "microBatches", "chunks"] as const
  ).flatMap((name) => {
    const value = options[name];
    return value === undefined || (Number.isSafeInteger(value) && value > 0)
      ? []
      : [`${name} must be a positive whole number, got ${value}`];
  });
  if (options.seed !== undefined && !Number.isSafeInteger(options.seed)) {
    problems.push(`seed must be a whole number, got ${options.seed}`);
  }
  if (problems.length > 0) throw new UserError("cannot train with these options", problems);
}

function checkRecompute({ recompute }: Job, groups: readonly string[]): void {
  if (recompute === undefined || typeof recompute === "string") return;
  const unknown = recompute.filter((group) => !groups.includes(group));
  if (unknown.length === 0) return;
  throw new UserError(
    "the job is not valid",
    unknown.map((group) => `recompute names the group "${group}"; the model has ${groups.join(", ")}`),
  );
}

function stepsOf(job: Job, data: DataSet, options: TrainOptions): number {
  const isGiven = options.steps !== undefined || options.epochs !== undefined;
  const { steps, epochs } = isGiven ? options : job;
  const inEpochs = (epochs ?? (steps === undefined ? 1 : Number.POSITIVE_INFINITY)) * data.batchesPerEpoch;
  return Math.min(steps ?? Number.POSITIVE_INFINITY, inEpochs);
}
