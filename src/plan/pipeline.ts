/**
 * Automatic placement: which groups go to which device, and how the mini-batch streams through them. Every way to stream is tried on
 * paper for every shape of mini-batch; the fastest that fits in memory is taken, of nearly equal ones the plainest.
 */

import { UserError } from "../base/errors.ts";
import { type Rates, typicalRates } from "../cost/node-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import { modelProblems } from "../layout/check.ts";
import type { Layout, LayoutStage } from "../layout/layout.ts";
import type { CompileSource } from "../partition/compile.ts";
import { type PlanDevice, speedOf } from "./balance.ts";
import {
  chunkChoices,
  type Placement,
  placer,
  type Streaming,
  streamings,
  usedDevices,
} from "./candidates.ts";
import { layoutModel, scheduleProblems } from "./check-layout.ts";
import { explain, showBytes } from "./explain.ts";
import { type MeasuredCosts, type WorkBook, workBook } from "./item-work.ts";
import {
  type Overheads,
  oneDeviceSeconds,
  type Prediction,
  predict,
  threadOverheads,
  totalBytes,
} from "./predict.ts";

export interface PipelineRequest {
  readonly source: CompileSource;
  /** Shapes of the mini-batches to train on. */
  readonly shapes: readonly BatchShape[];
  /** How often each shape comes, in any unit; default all equally. */
  readonly frequencies?: readonly number[];
  readonly devices: readonly PlanDevice[];
  /** Default 1: how many samples are averaged is the job's choice, not the planner's. */
  readonly microBatches?: number;
  readonly recompute?: Layout["recompute"];
  /** Stages placed by hand; default: balanced. */
  readonly stages?: readonly LayoutStage[];
  /** What is not left to the planner. */
  readonly fixed?: Partial<Streaming>;
  /** Measured seconds by group for one shape, instead of estimates. */
  readonly measured?: { readonly shape: BatchShape; readonly costs: MeasuredCosts };
  readonly rates?: Rates;
  readonly overheads?: Overheads;
}

export interface PipelineChoice {
  readonly layout: Layout;
  /** Plain sentences: what was chosen and why. */
  readonly reasons: readonly string[];
  /** Seconds of a step, averaged over the shapes. */
  readonly seconds: number;
  /** The same on the fastest of the devices alone. */
  readonly oneDeviceSeconds: number;
  /** For the largest shape. */
  readonly prediction: Prediction;
}

/** A layout tried on paper. */
interface Trial {
  readonly layout: Layout;
  readonly seconds: number;
  readonly prediction: Prediction;
}

/** Of ways that differ by less, the plainest is taken. */
const worthwhile = 0.01;

/**
 * The layout for `request`, and why. Throws a `UserError` when no way to stream is legal, or when no placement fits the devices' memory;
 * it says by how much.
 */
export function choosePipeline(request: PipelineRequest): PipelineChoice {
  const {
    source,
    shapes,
    devices,
    recompute = "none",
    rates = typicalRates,
    overheads = threadOverheads,
  } = request;
  const largest = largestOf(shapes);
  if (devices.length === 0 || largest === undefined)
    throw new UserError("planning needs at least one device and one shape of mini-batch");
  const { measured } = request;
  const book = workBook({ source, recompute, rates, ...(measured && { measured }) });
  const paper = { book, rates, overheads, devices };
  const average = averageOver(shapes, request.frequencies);
  const refusals = new Refusals();
  const trials = legalLayouts(request, book, largest, refusals).flatMap((layout): Trial[] => {
    const prediction = predict(paper, layout, largest);
    const lack = lackOf(layout, devices, prediction);
    if (lack !== undefined) refusals.lacking(lack.device, lack.needs);
    if (lack !== undefined) return [];
    return [{ layout, prediction, seconds: average((shape) => predict(paper, layout, shape).seconds) }];
  });
  const best = plainest(trials);
  if (best === undefined) throw refusals.error(devices);
  const fastest = Math.max(...devices.map(speedOf));
  const alone = average((shape) => oneDeviceSeconds(book, shape, fastest));
  const facts = { ...best, oneDeviceSeconds: alone, devices, book, shape: largest };
  return { ...best, oneDeviceSeconds: alone, reasons: explain(facts) };
}

/** Every layout worth a trial. */
function legalLayouts(
  request: PipelineRequest,
  book: WorkBook,
  shape: BatchShape,
  refusals: Refusals,
): readonly Layout[] {
  const { source, shapes, microBatches = 1, recompute = "none" } = request;
  const model = layoutModel(source, shapes);
  const { place, ways } = optionsOf(request, book, shape);
  return ways.flatMap((way) => {
    const placements = place(way);
    if ("fits" in placements) {
      refusals.lacking(placements.stage.device, placements.needs);
      return [];
    }
    return placements
      .map((placement) => layoutOf(placement, way, microBatches, recompute))
      .filter((layout) => {
        const problems = [...modelProblems(layout, model), ...scheduleProblems(layout)];
        if (problems.length > 0) refusals.illegal(problems);
        return problems.length === 0;
      });
  });
}

function optionsOf(
  { devices, stages, fixed = {}, microBatches = 1, shapes }: PipelineRequest,
  book: WorkBook,
  shape: BatchShape,
): { readonly place: ReturnType<typeof placer>; readonly ways: readonly Streaming[] } {
  const byHand = stages && [{ stages, devices: usedDevices(stages, devices) }];
  const names = stages?.map((stage) => stage.devices[0]) ?? devices.map(({ name }) => name);
  const alone = new Set(names).size === 1;
  const chunks = fixed.chunks === undefined ? (alone ? [1] : chunkChoices(book, shapes)) : [fixed.chunks];
  return {
    place: byHand === undefined ? placer({ book, devices, microBatches, shape }) : () => byHand,
    ways: streamings(chunks, fixed),
  };
}

function layoutOf(
  { stages, devices }: Placement,
  way: Streaming,
  microBatches: number,
  recompute: Layout["recompute"],
): Layout {
  return {
    version: 1,
    devices: devices.map(({ name, threads }) => ({ name, threads })),
    stages,
    microBatches,
    chunks: way.chunks,
    ...(way.shortestChunk !== undefined && { shortestChunk: way.shortestChunk }),
    schedule: way.schedule,
    weights: way.weights,
    recompute,
  };
}

function plainest(trials: readonly Trial[]): Trial | undefined {
  const fastest = Math.min(...trials.map(({ seconds }) => seconds));
  return trials.find(({ seconds }) => seconds <= fastest * (1 + worthwhile));
}

function lackOf(
  layout: Layout,
  devices: readonly PlanDevice[],
  { memory }: Prediction,
): { readonly device: PlanDevice; readonly needs: number } | undefined {
  const lacks = layout.devices.flatMap(({ name }, i) => {
    const device = devices.find((candidate) => candidate.name === name);
    const held = memory[i];
    const needs = held === undefined ? 0 : totalBytes(held);
    return device?.memory !== undefined && needs > device.memory
      ? [{ device, needs, lack: needs - device.memory }]
      : [];
  });
  return lacks.toSorted((a, b) => b.lack - a.lack)[0];
}

/** Why nothing was found: the least that memory lacks, or what makes every way to stream illegal. */
class Refusals {
  #least: { readonly device: PlanDevice; readonly needs: number; readonly lack: number } | undefined;
  #problems: readonly string[] = [];

  lacking(device: PlanDevice, needs: number): void {
    const lack = needs - (device.memory ?? 0);
    if (lack < (this.#least?.lack ?? Number.POSITIVE_INFINITY)) this.#least = { device, needs, lack };
  }

  illegal(problems: readonly string[]): void {
    this.#problems = problems;
  }

  error(devices: readonly PlanDevice[]): UserError {
    if (this.#least === undefined) return new UserError("no layout was found", this.#problems);
    const { device, needs, lack } = this.#least;
    return new UserError(
      `the model does not fit on ${devices.length === 1 ? "1 device" : `${devices.length} devices`}: the best placement found needs ${showBytes(needs)} on ${device.name}, which has ${showBytes(device.memory ?? 0)}; ${showBytes(lack)} are lacking. More micro-batches, recompute, or another device would need less on each`,
    );
  }
}

function largestOf(shapes: readonly BatchShape[]): BatchShape | undefined {
  const size = ({ batch, time = 1 }: BatchShape): number => batch * time;
  return shapes.toSorted((a, b) => size(b) - size(a))[0];
}

function averageOver(
  shapes: readonly BatchShape[],
  frequencies: readonly number[] = shapes.map(() => 1),
): (value: (shape: BatchShape) => number) => number {
  const total = frequencies.reduce((sum, frequency) => sum + frequency, 0);
  return (value) => shapes.reduce((sum, shape, i) => sum + value(shape) * (frequencies[i] ?? 0), 0) / total;
}
