import { expect, test } from "vitest";
import { numericColumns } from "../../../src/data/table.ts";
import { parseCsv } from "../../../src/node/files/csv.ts";

test("quoted cells, escaped quotes, blank lines and CRLF are read, and lines counted", () => {
  const table = parseCsv('name,"le ""v"" el"\r\n"Ahab, Captain",1\r\n\r\n"two\nlines",2\n', "crew.csv");
  expect(table.columns).toEqual(["name", 'le "v" el']);
  expect(table.rows).toEqual([
    ["Ahab, Captain", "1"],
    ["two\nlines", "2"],
  ]);
  expect(table.lines).toEqual([2, 5]);
});

test("a header can be forced or denied, and the delimiter chosen", () => {
  expect(parseCsv("2019;2020\n1;2", "x.csv", { header: true, delimiter: ";" }).columns).toEqual([
    "2019",
    "2020",
  ]);
  expect(parseCsv("a,b\nc,d", "x.csv", { header: false }).rows).toHaveLength(2);
});

test("every line with a wrong number of cells is listed", () => {
  expect(() => parseCsv("a,b\n1,2,3\n1,2\n7\n", "x.csv")).toThrow(
    "x.csv is not a table:\n  - line 2 has 3 cells, the first line has 2\n  - line 4 has 1 cells, the first line has 2",
  );
});

test("broken quotes are refused with their line", () => {
  expect(() => parseCsv('a,b\n1,"2\n', "x.csv")).toThrow(
    /^x\.csv is not valid CSV: Quote Not Closed: .* line 2$/,
  );
  expect(() => parseCsv('a,b\n1,x"y\n', "x.csv")).toThrow(
    /^x\.csv is not valid CSV: Invalid Opening Quote: .* line 2/,
  );
});

test("a wrong cell is named by line and column of the file", () => {
  const table = parseCsv("hour,level\n0,1\n\n1,high\n", "sea.csv");
  expect(() => numericColumns(table, ["level"])).toThrow(
    'sea.csv has cells that are not numbers: line 4, column "level": "high"',
  );
});
