/** Tables of text cells with their place in a file, and the numbers in them. */
import { UserError } from "../base/errors.ts";

/** Rows of cells under named columns; `lines[r]` is the line (from 1) of the source on which row r ends. */
export interface Table {
  readonly source: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly lines: readonly number[];
}

/** One record of a file: its cells and the line (from 1) on which it ends. */
export interface TableRecord {
  readonly cells: readonly string[];
  readonly line: number;
}

/** Most problems listed in one message. */
const listed = 20;

/**
 * The table of the records. "detect": the first record is a header where none of its cells is a number or empty.
 * Without a header the columns are called "1", "2", ...; UserError where no row remains or two columns share a name.
 */
export function tableFromRecords(
  records: readonly TableRecord[],
  header: boolean | "detect",
  source: string,
): Table {
  const [first] = records;
  const hasHeader = header === "detect" ? looksLikeHeader(first?.cells ?? []) : header;
  const body = hasHeader ? records.slice(1) : records;
  if (first === undefined || body.length === 0) {
    throw new UserError(`${source} has no rows${hasHeader ? " below its header" : ""}`);
  }
  const columns = first.cells.map((cell, c) => (hasHeader ? cell.trim() : String(c + 1)));
  const repeated = columns.filter((name, c) => columns.indexOf(name) !== c);
  if (repeated.length > 0) {
    throw new UserError(
      `${source} has columns of the same name`,
      [...new Set(repeated)].map((name) => `column "${name}"`),
    );
  }
  return { source, columns, rows: body.map(({ cells }) => cells), lines: body.map(({ line }) => line) };
}

function looksLikeHeader(cells: readonly string[]): boolean {
  return cells.every((cell) => cell.trim() !== "" && Number.isNaN(parseNumber(cell)));
}

/** The numbers of the columns, by name; UserError lists unknown columns and cells that hold no finite number. */
export function numericColumns(table: Table, names: readonly string[]): Map<string, Float64Array> {
  const unknown = names.filter((name) => !table.columns.includes(name));
  if (unknown.length > 0) {
    const known = table.columns.map((name) => `"${name}"`).join(", ");
    throw new UserError(
      `${table.source} lacks columns that were asked for`,
      unknown.map((name) => `there is no column "${name}"; the columns are ${known}`),
    );
  }
  const columns = new Map(
    names.map((name) => {
      const c = table.columns.indexOf(name);
      return [name, Float64Array.from(table.rows, (row) => parseNumber(row[c] ?? ""))] as const;
    }),
  );
  const problems = [...columns].flatMap(([name, values]) => columnProblems(table, name, values));
  if (problems.length > 0) {
    const more = problems.length - listed;
    const shown = more > 0 ? [...problems.slice(0, listed), `and ${more} more`] : problems;
    throw new UserError(`${table.source} has cells that are not numbers`, shown);
  }
  return columns;
}

function columnProblems(table: Table, name: string, values: Float64Array): string[] {
  const c = table.columns.indexOf(name);
  const bad = Array.from(values.keys()).filter((row) => !Number.isFinite(values[row]));
  const place = (row: number): string => {
    const cell = table.rows[row]?.[c] ?? "";
    return `line ${table.lines[row]}, column "${name}": ${cell.trim() === "" ? "missing" : JSON.stringify(cell)}`;
  };
  if (bad.length === values.length) {
    return [`${place(0)}; no cell of this column is a number: choose others with the option "columns"`];
  }
  return bad.map(place);
}

/** The number a cell holds, NaN where it holds none or an infinite one. */
function parseNumber(cell: string): number {
  const value = cell.trim() === "" ? Number.NaN : Number(cell);
  return Number.isFinite(value) ? value : Number.NaN;
}
