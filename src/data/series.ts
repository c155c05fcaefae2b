/**
 * Time series: a table of numbers, one row for each time step, to pairs of an input window and what follows it.
 *
 *     rows      0 1 2 3 4 5 6 7
 *     window    └─────┘           features [time 4, batch, columns]
 *     "after"           └───┘     targets [batch, horizon 2 · columns]: the rows after the window
 *     "every"     └─────┘         targets [time 4, batch, columns]: the row `horizon` later, here 1
 */
import * as z from "zod";
import { UserError } from "../base/errors.ts";
import type { TypedArray } from "../graph/dtype.ts";
import type { DataSet, InputSpec } from "./dataset.ts";
import { type LastBatch, names, oneOf, parseOptions, positiveInteger, validationShare } from "./options.ts";
import { copyElements, type SampleSource, samplesDataSet } from "./samples.ts";
import { numericColumns, type Table } from "./table.ts";

export interface SeriesOptions {
  /** Rows of an input window. */
  readonly window: number;
  /** Rows ahead that are predicted; default 1. */
  readonly horizon?: number;
  /** The rows after the window (default), or for every step of the window the row `horizon` later. */
  readonly predict?: "after" | "every";
  /** Columns of the input; default all. */
  readonly columns?: readonly string[];
  /** Columns to predict; default those of the input. */
  readonly targets?: readonly string[];
  /** Rows between the starts of two windows; default 1. */
  readonly stride?: number;
  /** "standard" (default): each column minus its mean over its standard deviation, of the training rows. */
  readonly normalise?: "standard" | "none";
  /** Windows in a batch; default 32. */
  readonly batch?: number;
  /** Windows that do not fill a training batch; default "drop". Validation keeps a short last batch. */
  readonly lastBatch?: Exclude<LastBatch, "pad">;
  /** Part of the rows held out, the end of the series; default 0.05, at least one window. No training window touches it. */
  readonly validationShare?: number;
}

/** Value = normalised · deviation + mean, for the values of a column. */
export interface ColumnScale {
  readonly column: string;
  readonly mean: number;
  readonly deviation: number;
}

/** A time series and the scales that undo its normalisation, for each target column. */
export interface SeriesDataSet extends DataSet {
  readonly targetScales: readonly ColumnScale[];
}

const seriesSchema = z.strictObject({
  window: positiveInteger,
  horizon: positiveInteger.default(1),
  predict: oneOf("after", "every").default("after"),
  columns: names.optional(),
  targets: names.optional(),
  stride: positiveInteger.default(1),
  normalise: oneOf("standard", "none").default("standard"),
  batch: positiveInteger.default(32),
  lastBatch: oneOf("drop", "keep").default("drop"),
  validationShare: validationShare.default(0.05),
});

/** A column ready for copying, and how it was scaled. */
interface Column {
  readonly values: Float32Array;
  readonly scale: ColumnScale;
}

/**
 * The windows of a table: "features" f32 [time, batch, columns] and "targets" f32, see the picture; UserError for
 * unknown columns, cells that are not numbers, or fewer rows than one window needs.
 */
export function seriesFromTable(table: Table, options: SeriesOptions): SeriesDataSet {
  const checked = parseOptions(seriesSchema, options, "the time series");
  const { window, horizon, stride, predict, validationShare: share } = checked;
  const inputNames = checked.columns ?? table.columns;
  const targetNames = checked.targets ?? inputNames;
  const columns = numericColumns(table, [...new Set([...inputNames, ...targetNames])]);
  const rows = table.rows.length;
  const reach = window + horizon;
  const heldRows = share === 0 ? 0 : Math.max(Math.round(rows * share), reach);
  const trainingRows = rows - heldRows;
  if (trainingRows < reach) {
    throw new UserError(`${table.source} is too short`, [
      `a window of ${window} rows and a horizon of ${horizon} need ${reach} rows in the training part, which has ` +
        `${Math.max(0, trainingRows)} of ${rows} rows (${heldRows} are held out)`,
    ]);
  }
  const scaled = new Map(
    [...columns].map(([name, values]) => [name, scaleColumn(name, values, trainingRows, checked.normalise)]),
  );
  const inputs = inputNames.flatMap((name) => scaled.get(name) ?? []);
  const targets = targetNames.flatMap((name) => scaled.get(name) ?? []);
  const sources = [
    features(inputs, window),
    predict === "after" ? after(targets, checked) : every(targets, checked),
  ];
  const data = samplesDataSet(sources, {
    training: starts(0, trainingRows - reach, stride),
    validation: share === 0 ? [] : starts(trainingRows, rows - reach, stride),
    batch: checked.batch,
    time: window,
    lastBatch: checked.lastBatch,
    source: table.source,
    description: {
      data: table.source,
      rows,
      columns: inputNames.join(", "),
      predicts: targetNames.join(", "),
    },
  });
  return { ...data, targetScales: targets.map(({ scale }) => scale) };
}

function features(columns: readonly Column[], window: number): SampleSource {
  const spec: InputSpec = {
    name: "features",
    dtype: "f32",
    dims: ["time", "batch", { size: columns.length }],
  };
  return { spec, copy: timeMajorCopy(columns, window, 0) };
}

function every(columns: readonly Column[], shape: { window: number; horizon: number }): SampleSource {
  const spec: InputSpec = {
    name: "targets",
    dtype: "f32",
    dims: ["time", "batch", { size: columns.length }],
  };
  return { spec, copy: timeMajorCopy(columns, shape.window, shape.horizon) };
}

function timeMajorCopy(columns: readonly Column[], window: number, shift: number): SampleSource["copy"] {
  return (start, into, lane, batch) => {
    for (let t = 0; t < window; t++) {
      copyRow(columns, start + shift + t, into, (t * batch + lane) * columns.length);
    }
  };
}

function after(columns: readonly Column[], shape: { window: number; horizon: number }): SampleSource {
  const { window, horizon } = shape;
  const size = horizon * columns.length;
  return {
    spec: { name: "targets", dtype: "f32", dims: ["batch", { size }] },
    copy: (start, into, lane) => {
      for (let step = 0; step < horizon; step++) {
        copyRow(columns, start + window + step, into, lane * size + step * columns.length);
      }
    },
  };
}

function copyRow(columns: readonly Column[], row: number, into: TypedArray, at: number): void {
  for (const [c, { values }] of columns.entries()) copyElements(values, row, into, at + c, 1);
}

function starts(first: number, last: number, stride: number): number[] {
  return Array.from({ length: Math.floor((last - first) / stride) + 1 }, (_, i) => first + i * stride);
}

function scaleColumn(
  column: string,
  values: Float64Array,
  trainingRows: number,
  normalise: "standard" | "none",
): Column {
  if (normalise === "none")
    return { values: Float32Array.from(values), scale: { column, mean: 0, deviation: 1 } };
  const part = values.subarray(0, trainingRows);
  const mean = part.reduce((sum, value) => sum + value, 0) / part.length;
  const variance = part.reduce((sum, value) => sum + (value - mean) ** 2, 0) / part.length;
  const deviation = variance > 0 ? Math.sqrt(variance) : 1;
  return {
    values: Float32Array.from(values, (value) => (value - mean) / deviation),
    scale: { column, mean, deviation },
  };
}
