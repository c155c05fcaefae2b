import { expect, test } from "vitest";
import { seriesFromTable } from "../../src/data/series.ts";
import { numericColumns, type Table, tableFromRecords } from "../../src/data/table.ts";
import { collect, numbers } from "./collect.ts";

function tableOf(lines: readonly string[]): Table {
  const records = lines.map((line, i) => ({ cells: line.split(","), line: i + 1 }));
  return tableFromRecords(records, "detect", "sea.csv");
}

/** Row r holds the hour r and the level 100 + r. */
const hours = tableOf(["hour,level", ...Array.from({ length: 20 }, (_, r) => `${r},${100 + r}`)]);

test("windows, by hand: the rows of the window and the rows after it", async () => {
  const data = seriesFromTable(hours, {
    window: 3,
    horizon: 2,
    targets: ["level"],
    batch: 2,
    normalise: "none",
    validationShare: 0.25,
  });
  expect(data.inputs).toEqual([
    { name: "features", dtype: "f32", dims: ["time", "batch", { size: 2 }] },
    { name: "targets", dtype: "f32", dims: ["batch", { size: 2 }] },
  ]);
  const [batch] = await collect(data.validation());
  expect(batch?.shapeKey).toBe("batch=1 time=3");
  expect(batch && numbers(batch, "features")).toEqual([15, 115, 16, 116, 17, 117]);
  expect(batch && numbers(batch, "targets")).toEqual([118, 119]);
  const training = await collect(data.training(1, 0));
  const starts = training.flatMap((item) => [
    numbers(item, "features")[0] ?? -1,
    numbers(item, "features")[2] ?? -1,
  ]);
  // 15 training rows hold the windows that start at 0 to 10; full batches leave one of the 11 out.
  expect(new Set(starts).size).toBe(10);
  for (const start of starts) expect(start).toBeLessThanOrEqual(10);
  for (const item of training) {
    const [first = -1] = numbers(item, "features");
    expect(numbers(item, "targets").slice(0, 2)).toEqual([103 + first, 104 + first]);
  }
});

test("a target for every step is the row that many steps later", async () => {
  const data = seriesFromTable(hours, {
    window: 4,
    horizon: 2,
    predict: "every",
    columns: ["level"],
    targets: ["hour", "level"],
    batch: 1,
    stride: 5,
    normalise: "none",
    validationShare: 0,
  });
  expect(data.batchesPerEpoch).toBe(3);
  for (const batch of await collect(data.training(4, 4))) {
    const [level = 0] = numbers(batch, "features");
    const expected = [0, 1, 2, 3].flatMap((t) => [level - 98 + t, level + 2 + t]);
    expect(numbers(batch, "targets")).toEqual(expected);
    expect(batch.inputs["targets"]?.shape).toEqual([4, 1, 2]);
  }
});

test("columns are scaled by the mean and deviation of the training rows, and the scales are told", async () => {
  const data = seriesFromTable(hours, { window: 2, batch: 1, targets: ["level"], validationShare: 0.2 });
  // Training rows hold 100 ... 115: mean 107.5, variance (16² - 1) / 12.
  const [scale] = data.targetScales;
  expect(scale?.column).toBe("level");
  expect(scale?.mean).toBeCloseTo(107.5, 10);
  expect(scale?.deviation).toBeCloseTo(Math.sqrt(255 / 12), 10);
  const [batch] = await collect(data.validation());
  const [target = 0] = batch ? numbers(batch, "targets") : [];
  expect(target * (scale?.deviation ?? 0) + (scale?.mean ?? 0)).toBeCloseTo(118, 4);
});

test("a constant column stays finite", async () => {
  const flat = tableOf(["x", ...Array.from({ length: 9 }, () => "5")]);
  const [batch] = await collect(
    seriesFromTable(flat, { window: 2, batch: 2, validationShare: 0 }).training(0, 0),
  );
  expect(batch && numbers(batch, "features")).toEqual([0, 0, 0, 0]);
});

test("a header is found where no cell of the first line is a number", () => {
  expect(hours.columns).toEqual(["hour", "level"]);
  expect(tableOf(["1,2", "3,4"]).columns).toEqual(["1", "2"]);
  expect(tableOf(["1,2", "3,4"]).rows).toHaveLength(2);
  expect(() => tableOf(["a,b"])).toThrow("sea.csv has no rows below its header");
  expect(() => tableOf(["a,a", "1,2"])).toThrow('sea.csv has columns of the same name: column "a"');
});

test("missing and non-numeric cells are listed with line and column", () => {
  const table = tableOf(["day,level,wind", "mon,1,2", "tue,,x", "wed,3,Infinity"]);
  expect(() => numericColumns(table, table.columns)).toThrow(
    [
      "sea.csv has cells that are not numbers:",
      '  - line 2, column "day": "mon"; no cell of this column is a number: choose others with the option "columns"',
      '  - line 3, column "level": missing',
      '  - line 3, column "wind": "x"',
      '  - line 4, column "wind": "Infinity"',
    ].join("\n"),
  );
  expect(numericColumns(tableOf(["a", " 1e3 ", "-2"]), ["a"]).get("a")).toEqual(
    Float64Array.from([1000, -2]),
  );
});

test("long lists of bad cells are cut", () => {
  const table = tableOf(["a", "1", ...Array.from({ length: 30 }, () => "?")]);
  expect(() => numericColumns(table, ["a"])).toThrow("and 10 more");
});

test("unknown columns, short tables and wrong options are refused", () => {
  expect(() => seriesFromTable(hours, { window: 2, columns: ["tide"] })).toThrow(
    'sea.csv lacks columns that were asked for: there is no column "tide"; the columns are "hour", "level"',
  );
  expect(() => seriesFromTable(hours, { window: 20 })).toThrow(
    "need 21 rows in the training part, which has 0 of 20",
  );
  expect(() => seriesFromTable(hours, {} as { window: number })).toThrow(
    'option "window" must be a positive whole number, got undefined',
  );
});
