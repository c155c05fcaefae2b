/**
 * How Node loads job files: TypeScript is stripped by esbuild, and `paraxis` is the package that runs, wherever the job lies. Runs in
 * Node's thread for module hooks (https://nodejs.org/docs/latest-v20.x/api/module.html#customization-hooks); registered by `load-job.ts`.
 */

import { existsSync, readFileSync } from "node:fs";
import type { InitializeHook, LoadHook, ResolveHook } from "node:module";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { type Message, transform } from "esbuild";

/** Where the names of this package lead: specifier → URL of the running package's file. */
export interface JobHooksData {
  readonly entries: { readonly [specifier: string]: string };
}

/** Starts the message of a syntax error; the place follows as JSON. Only messages survive the way between threads. */
export const syntaxErrorMark = "paraxis-syntax-error:";

export interface SyntaxPlace {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly text: string;
}

let entries: JobHooksData["entries"] = {};

export const initialize: InitializeHook<JobHooksData> = (data) => {
  entries = data.entries;
};

export const resolve: ResolveHook = async (specifier, context, nextResolve) => {
  const own = entries[specifier];
  if (own !== undefined) return { url: own, format: "module", shortCircuit: true };
  try {
    return await nextResolve(specifier, context);
  } catch (error) {
    const source = typescriptFile(specifier, context.parentURL);
    if (source === undefined) throw error;
    return { url: source, format: "module", shortCircuit: true };
  }
};

export const load: LoadHook = async (url, context, nextLoad) => {
  if (!url.startsWith("file:") || url.includes("/node_modules/") || isOwn(url)) return nextLoad(url, context);
  const file = fileURLToPath(url);
  switch (extname(file)) {
    case ".ts":
    case ".mts":
      return { format: "module", source: await compile(file, "ts"), shortCircuit: true };
    case ".js":
    case ".mjs":
      return isModule(file)
        ? { format: "module", source: await compile(file, "js"), shortCircuit: true }
        : nextLoad(url, context);
    default:
      return nextLoad(url, context);
  }
};

/** The files of the running package are JavaScript already. */
function isOwn(url: string): boolean {
  const [entry] = Object.values(entries);
  return entry !== undefined && url.startsWith(new URL(".", entry).href);
}

/** The TypeScript file that an import without an extension, or of the compiled name, means. */
function typescriptFile(specifier: string, parent: string | undefined): string | undefined {
  if (parent === undefined || !/^\.{1,2}\//.test(specifier)) return undefined;
  const url = new URL(specifier, parent).href;
  const candidates = [
    url.replace(/\.js$/, ".ts"),
    url.replace(/\.mjs$/, ".mts"),
    `${url}.ts`,
    `${url}/index.ts`,
  ];
  return candidates.find((candidate) => candidate !== url && existsSync(fileURLToPath(candidate)));
}

/** A .js file outside a package of type "module" is one if it imports or exports. */
function isModule(file: string): boolean {
  return extname(file) === ".mjs" || /^\s*(?:import\b(?!\s*\()|export\b)/m.test(readFileSync(file, "utf8"));
}

async function compile(file: string, loader: "ts" | "js"): Promise<string> {
  try {
    const { code } = await transform(readFileSync(file, "utf8"), {
      loader,
      format: "esm",
      target: "node20",
      sourcefile: file,
      sourcemap: "inline",
      sourcesContent: false,
      logLevel: "silent",
    });
    return code;
  } catch (error) {
    const [first] = (error as { readonly errors?: readonly Message[] }).errors ?? [];
    if (first === undefined) throw error;
    const { line = 1, column = 0 } = first.location ?? {};
    const place: SyntaxPlace = { file, line, column: column + 1, text: first.text };
    throw new Error(`${syntaxErrorMark}${JSON.stringify(place)}`, { cause: error });
  }
}
