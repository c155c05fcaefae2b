/**
 * Aligned text tables for terminals and error messages.
 *
 *     device  busy
 *     ------  ----
 *     cpu:0    93%
 */
import { invariant } from "./errors.ts";

/** One column: its header, and the side its cells are pushed to (default left). */
export interface TextColumn {
  readonly header: string;
  readonly align?: "left" | "right";
}

const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });
const wide =
  /^[\p{Emoji_Presentation}\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\u3000-\u303f\uff01-\uff60]/u;

/** The table as lines joined by "\n", without trailing spaces; each row has one cell for each column. */
export function textTable(columns: readonly TextColumn[], rows: readonly (readonly string[])[]): string {
  for (const row of rows) {
    invariant(row.length === columns.length, `a row of ${row.length} cells in a table of ${columns.length}`);
  }
  const widths = columns.map((column, c) =>
    rows.reduce((width, row) => Math.max(width, displayWidth(row[c] ?? "")), displayWidth(column.header)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, c) => pad(cell, widths[c] ?? 0, columns[c]?.align ?? "left"))
      .join("  ")
      .trimEnd();
  const header = columns.map((column) => column.header);
  const rule = widths.map((width) => "-".repeat(width));
  return [header, rule, ...rows].map(line).join("\n");
}

/** Terminal cells that a text takes: one for each grapheme, two for emoji and East Asian wide characters. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += wide.test(segment) ? 2 : 1;
  return width;
}

function pad(cell: string, width: number, align: "left" | "right"): string {
  const spaces = " ".repeat(Math.max(0, width - displayWidth(cell)));
  return align === "left" ? cell + spaces : spaces + cell;
}
