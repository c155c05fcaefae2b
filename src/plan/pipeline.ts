/**
 * Automatic placement: which groups go to which device, and how the mini-batch streams through them. Every way to stream is tried on
 * paper for every shape of mini-batch; the fastest that fits in memory is taken, of nearly equal ones the plainest.
 */

import { showBytes } from "../base/bytes.ts";
import { UserError } from "../base/errors.ts";
import { type Rates, typicalRates } from "../cost/node-work.ts";
import type { BatchShape } from "../data/dataset.ts";
import { modelProblems } from "../layout/check.ts";
import type { Layout, LayoutStage } from "../layout/layout.ts";
import type { CompileSource } from "../partition/compile.ts";
import { type PlanDevice, speedOf } from "./balance.ts";
import { layoutModel, scheduleProblems } from "./check-layout.ts";
import { explain } from "./explain.ts";
import { type MeasuredCosts, type WorkBook, workBook } from "./item-work.ts";
import { type Placement, type Placements, placements, usedDevices } from "./placements.ts";
import { type Overheads, oneDeviceSeconds, type Prediction, predict, threadOverheads } from "./predict.ts";
import { type DeviceMemory, predictMemory, totalBytes } from "./predict-memory.ts";
import { type Moves, otherCuts, otherShares, refine } from "./refine.ts";
import { chunkChoices, type Streaming, streamings } from "./streaming.ts";

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
  /** Whether devices may split the last layers between them; default true. */
  readonly sharesTail?: boolean;
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
  /** For the largest shape, as is the memory of each device. */
  readonly prediction: Prediction;
  readonly memory: readonly DeviceMemory[];
}

/** A layout tried on paper. */
interface Trial {
  readonly layout: Layout;
  readonly seconds: number;
}

/** How near the best one a trial must be for other shares of a mesh to be tried on it. */
const worthShares = 0.02;
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
  const options = optionsOf(request, book, largest);
  const isLegal = legality(request, refusals);
  const isLimited = devices.some(({ memory }) => memory !== undefined);
  const attempt = (layout: Layout): Trial | undefined => {
    if (!isLegal(layout)) return undefined;
    const lack = isLimited ? lackOf(layout, devices, predictMemory(paper, layout, largest)) : undefined;
    if (lack !== undefined) {
      refusals.lacking(lack.device, lack.needs);
      return undefined;
    }
    return { layout, seconds: average((shape) => predict(paper, layout, shape).seconds) };
  };
  const trials = layoutsOf(request, options, refusals).flatMap((layout) => attempt(layout) ?? []);
  const refineBy = (moves: Moves) => (trial: Trial) =>
    refine(trial, moves, (stages) => attempt({ ...trial.layout, stages }));
  const cutAnew: Moves = (stages) => otherCuts(stages, options.units);
  const fastest = fastestOfEach(trials);
  const cut = fastest.map(refineBy(cutAnew));
  const isByHand = request.stages !== undefined;
  const shared = near(isByHand ? [] : [...new Set([...fastest, ...cut])], worthShares).map(
    refineBy((stages) => [...cutAnew(stages), ...otherShares(stages)]),
  );
  const best = plainest([...shared, ...cut, ...trials], options.ways);
  if (best === undefined) throw refusals.error(devices);
  const speed = Math.max(...devices.map(speedOf));
  const alone = average((shape) => oneDeviceSeconds(book, shape, speed));
  const memory = predictMemory(paper, best.layout, largest);
  const prediction = predict(paper, best.layout, largest);
  const choice = { ...best, prediction, memory, oneDeviceSeconds: alone };
  return { ...choice, reasons: explain({ ...choice, devices, book, shape: largest }) };
}

/** What is tried: placements for every way to stream, and the units whose placement may be changed. */
interface Options extends Placements {
  readonly ways: readonly Streaming[];
}

function optionsOf(
  { devices, stages, fixed = {}, microBatches = 1, shapes, sharesTail = true }: PipelineRequest,
  book: WorkBook,
  shape: BatchShape,
): Options {
  const names = stages?.map((stage) => stage.devices[0]) ?? devices.map(({ name }) => name);
  const alone = new Set(names).size === 1;
  const chunks = fixed.chunks === undefined ? (alone ? [1] : chunkChoices(book, shapes)) : [fixed.chunks];
  const ways = streamings(chunks, fixed);
  if (stages === undefined)
    return { ...placements({ book, devices, microBatches, shape, sharesTail }), ways };
  return { units: [], place: () => [{ stages, devices: usedDevices(stages, devices) }], ways };
}

/** Every layout worth a trial. */
function layoutsOf(
  { microBatches = 1, recompute = "none" }: PipelineRequest,
  { place, ways }: Options,
  refusals: Refusals,
): readonly Layout[] {
  return ways.flatMap((way) => {
    const placed = place(way);
    if ("fits" in placed) {
      refusals.lacking(placed.stage.device, placed.needs);
      return [];
    }
    return placed.map((placement) => layoutOf(placement, way, microBatches, recompute));
  });
}

/** Whether a layout is sound for the model and its schedule; what is not is remembered. */
function legality({ source, shapes }: PipelineRequest, refusals: Refusals): (layout: Layout) => boolean {
  const model = layoutModel(source, shapes);
  return (layout) => {
    const problems = [...modelProblems(layout, model), ...scheduleProblems(layout)];
    if (problems.length > 0) refusals.illegal(problems);
    return problems.length === 0;
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

/** The fastest trials of each number of stages, with and without a stage that devices split. */
function fastestOfEach(trials: readonly Trial[]): readonly Trial[] {
  const kindOf = ({ layout: { stages } }: Trial): string =>
    `${stages.length} ${stages.some(({ mesh }) => mesh !== undefined)}`;
  return [...new Set(trials.map(kindOf))].flatMap((kind) =>
    trials
      .filter((trial) => kindOf(trial) === kind)
      .toSorted((a, b) => a.seconds - b.seconds)
      .slice(0, 4),
  );
}

/**
 * Of the trials near the best those that stream in the plainest of `ways`, and of these the one with the most stages: the prediction knows
 * what they cost, but not that durations vary, and then who waits for a smaller piece waits less.
 */
function plainest(trials: readonly Trial[], ways: readonly Streaming[]): Trial | undefined {
  const rank = ({ layout }: Trial): number =>
    ways.findIndex(
      ({ chunks, schedule, weights }) =>
        layout.chunks === chunks && layout.schedule === schedule && layout.weights === weights,
    );
  const stages = ({ layout }: Trial): number => layout.stages.length;
  const [best] = near(trials, worthwhile).toSorted(
    (a, b) => rank(a) - rank(b) || stages(b) - stages(a) || a.seconds - b.seconds,
  );
  return best;
}

/** The trials that take hardly longer than the fastest of them. */
function near(trials: readonly Trial[], tolerance: number): readonly Trial[] {
  const limit = Math.min(...trials.map(({ seconds }) => seconds)) * (1 + tolerance);
  return trials.filter(({ seconds }) => seconds <= limit);
}

function lackOf(
  layout: Layout,
  devices: readonly PlanDevice[],
  memory: readonly DeviceMemory[],
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
