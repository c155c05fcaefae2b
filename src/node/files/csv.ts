/** CSV files to tables: csv-parse reads the format (RFC 4180), we say where it is broken. */
import { CsvError, parse } from "csv-parse/sync";
import { UserError } from "../../base/errors.ts";
import { type Table, type TableRecord, tableFromRecords } from "../../data/table.ts";

export interface CsvOptions {
  /** Whether the first line names the columns; default "detect": yes where none of its cells is a number. */
  readonly header?: boolean | "detect";
  /** The character between cells; default ",". */
  readonly delimiter?: string;
}

/** The table in a CSV text; UserError for broken quotes and for every line with a wrong number of cells. */
export function parseCsv(text: string, source: string, options: CsvOptions = {}): Table {
  const records = readRecords(text, source, options.delimiter ?? ",");
  const expected = records[0]?.cells.length ?? 0;
  const problems = records
    .filter(({ cells }) => cells.length !== expected)
    .map(({ cells, line }) => `line ${line} has ${cells.length} cells, the first line has ${expected}`);
  if (problems.length > 0) {
    const shown = problems.slice(0, 20);
    if (shown.length < problems.length) shown.push(`and ${problems.length - shown.length} more`);
    throw new UserError(`${source} is not a table`, shown);
  }
  return tableFromRecords(records, options.header ?? "detect", source);
}

/** What csv-parse returns for each record with the option `info`. */
interface ParsedRecord {
  readonly record: readonly string[];
  readonly info: { readonly lines: number };
}

function readRecords(text: string, source: string, delimiter: string): TableRecord[] {
  try {
    const parsed: unknown = parse(text, {
      delimiter,
      info: true,
      record_delimiter: ["\r\n", "\n", "\r"],
      relax_column_count: true,
      skip_empty_lines: true,
    });
    // csv-parse's types do not follow its `info` option.
    return (parsed as readonly ParsedRecord[]).map(({ record, info }) => ({
      cells: record,
      line: info.lines,
    }));
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new UserError(`${source} is not valid CSV`, [error.message]);
  }
}
