/**
 * Data sets from files, for job files: the same options as the text and table versions of the core, with a path
 * (relative to the current folder) or a file URL in place of the content. Files are read at once.
 */
import * as z from "zod";
import { type CharactersOptions, charactersFromText } from "../data/characters.ts";
import type { DataSet } from "../data/dataset.ts";
import { parseOptions } from "../data/options.ts";
import { type SeriesDataSet, type SeriesOptions, seriesFromTable } from "../data/series.ts";
import { type WordsOptions, wordsFromText } from "../data/words.ts";
import { type CsvOptions, parseCsv } from "./files/csv.ts";
import { novelName, readNovel } from "./files/novel.ts";
import { pathOf, readTextFile } from "./files/text-file.ts";

/**
 * The words of a UTF-8 text file, or of the bundled novel by the name "moby-dick", whose long sentences are split
 * unless `longer` says otherwise; UserError for unreadable files and for options or texts that do not fit.
 */
export function words(source: string | URL, options: WordsOptions = {}): DataSet {
  const defaults: WordsOptions = source === novelName ? { longer: "split" } : {};
  return wordsFromText(readSource(source), { source: pathOf(source), ...defaults, ...options });
}

/** The characters of a UTF-8 text file, or of the bundled novel by the name "moby-dick"; errors as `words`. */
export function characters(source: string | URL, options: CharactersOptions = {}): DataSet {
  return charactersFromText(readSource(source), { source: pathOf(source), ...options });
}

/** The time series in a CSV file; UserError names the line and column of every cell that is not a number. */
export function csv(path: string | URL, options: SeriesOptions & CsvOptions): SeriesDataSet {
  const { header, delimiter, ...series } = options;
  const format = parseOptions(csvSchema, { header, delimiter }, "csv");
  return seriesFromTable(parseCsv(readTextFile(path), pathOf(path), format), series);
}

const csvSchema = z.strictObject({
  header: z.union([z.boolean(), z.literal("detect")]).default("detect"),
  delimiter: z.string().min(1).default(","),
});

function readSource(source: string | URL): string {
  return source === novelName ? readNovel() : readTextFile(source);
}
