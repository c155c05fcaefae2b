/** Job files in TypeScript or JavaScript, from anywhere; whatever is wrong with one is told with its line. */

import { readFileSync, statSync } from "node:fs";
import { register } from "node:module";
import { basename, dirname, extname, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { UserError } from "../../base/errors.ts";
import { systemReason } from "../files/text-file.ts";
import { type JobHooksData, type SyntaxPlace, syntaxErrorMark } from "./job-hooks.ts";

const extensions: readonly string[] = [".ts", ".mts", ".js", ".mjs"];

/**
 * The default export of a job file. UserError with file, line and column where the file cannot be read, has a syntax error, throws
 * while it is loaded, or exports nothing by default. To be called once: it changes how this process loads modules.
 */
export async function loadJob(path: string): Promise<unknown> {
  const file = resolve(path);
  checkFile(path, file);
  process.setSourceMapsEnabled(true);
  const data: JobHooksData = {
    entries: {
      paraxis: new URL("../../index.js", import.meta.url).href,
      "paraxis/node": new URL("../../node.js", import.meta.url).href,
    },
  };
  register("./job-hooks.js", import.meta.url, { data });
  const module = await importJob(file);
  if ("default" in module) return module["default"];
  const named = Object.keys(module);
  const found = named.length === 0 ? "it exports nothing" : `it exports only ${named.join(", ")}`;
  throw new UserError(`the job ${path} has no default export`, [
    `${found}; write: export default defineJob({ ... })`,
  ]);
}

function checkFile(path: string, file: string): void {
  const refuse = (problem: string): UserError => new UserError(`cannot read the job ${path}`, [problem]);
  let isFolder: boolean;
  try {
    isFolder = statSync(file).isDirectory();
  } catch (error) {
    throw refuse(systemReason(error));
  }
  if (isFolder) throw refuse("it is a folder; name the job file in it");
  if (!extensions.includes(extname(file))) {
    throw refuse(`a job is a file that ends in ${extensions.join(", ")}`);
  }
}

async function importJob(file: string): Promise<{ readonly [name: string]: unknown }> {
  try {
    return await import(pathToFileURL(file).href);
  } catch (error) {
    throw explainLoadError(error, file);
  }
}

/** The error as a message that begins with the place in the job file, or in a file that it imports. */
function explainLoadError(error: unknown, file: string): Error {
  const { message } = asError(error);
  const syntax = syntaxPlace(message);
  if (syntax !== undefined) return failed(place(syntax.file, syntax.line, syntax.column), syntax.text, error);
  const imported = importProblem(asError(error), file);
  if (imported !== undefined) return failed(imported.place, imported.text, error);
  const text = error instanceof UserError ? message : `${asError(error).name}: ${message}`;
  return failed(placeInStack(error) ?? relativePath(file), text, error);
}

function failed(where: string, text: string, cause: unknown): UserError {
  const error = new UserError(`cannot load the job: ${where}: ${text}`);
  error.cause = cause;
  return error;
}

function syntaxPlace(message: string): SyntaxPlace | undefined {
  const start = message.indexOf(syntaxErrorMark);
  return start < 0 ? undefined : (JSON.parse(message.slice(start + syntaxErrorMark.length)) as SyntaxPlace);
}

/** Modules and exports that do not exist: Node names them, the line is where the importing file does. */
function importProblem(
  error: Error,
  job: string,
): { readonly place: string; readonly text: string } | undefined {
  const code = "code" in error ? String(error.code) : "";
  const [text = ""] = error.message.split("\n");
  const name = missingModule.has(code)
    ? lastPart(/'([^']+)'/.exec(text)?.[1])
    : /does not provide an export named '([^']+)'/.exec(text)?.[1];
  if (name === undefined) return undefined;
  const parent = / imported from (.+)$|\nRequire stack:\n- (.+)/.exec(error.message);
  const importer = parent?.[1] ?? parent?.[2] ?? job;
  return {
    place: placeOfText(importer.startsWith("file:") ? fileURLToPath(importer) : importer, name),
    text: text.replace(/ imported from .+$/, ""),
  };
}

const missingModule: ReadonlySet<string> = new Set([
  "ERR_MODULE_NOT_FOUND",
  "ERR_PACKAGE_PATH_NOT_EXPORTED",
  "MODULE_NOT_FOUND",
]);

function lastPart(name: string | undefined): string | undefined {
  return name?.startsWith("/") ? name.slice(name.lastIndexOf("/") + 1).replace(/\.[^.]+$/, "") : name;
}

function placeOfText(file: string, text: string): string {
  const lines = readFileSync(file, "utf8").split("\n");
  const line = lines.findIndex((content) => content.includes(text));
  return line < 0 ? relativePath(file) : place(file, line + 1, (lines[line] as string).indexOf(text) + 1);
}

/**
 * The innermost place outside this package, Node and installed packages that an error passed: `path:line:column` of the source as the
 * user wrote it; `undefined` where there is none.
 */
export function placeInStack(error: unknown): string | undefined {
  const own = ["src", "dist"].map((folder) => fileURLToPath(new URL(`../../../${folder}/`, import.meta.url)));
  for (const frame of (asError(error).stack ?? "").split("\n")) {
    const match = /^\s+at (?:.*\()?((?:file:\/\/)?\/[^()]*?):(\d+):(\d+)\)?$/.exec(frame);
    if (match === null) continue;
    const [, where = "", line, column] = match;
    const file = where.startsWith("file:") ? fileURLToPath(where) : where;
    if (!(own.some((folder) => file.startsWith(folder)) || file.includes("/node_modules/"))) {
      return place(file, Number(line), Number(column));
    }
  }
  return undefined;
}

function place(file: string, line: number, column: number): string {
  return `${relativePath(file)}:${line}:${column}`;
}

/** As seen from the current folder where it lies below it, else as it is. */
function relativePath(file: string): string {
  const path = relative(process.cwd(), file);
  return path.startsWith("..") ? file : path;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** The name of a job's runs: its file, or its folder where the file is just called `job`. */
export function jobName(path: string): string {
  const name = basename(path, extname(path));
  const folder = basename(dirname(path));
  return name === "job" && folder !== "" && folder !== "." ? folder : name;
}
