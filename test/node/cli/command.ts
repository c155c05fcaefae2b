/** Runs the real command on the built package; `npm test` builds first. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../../bin/paraxis.js", import.meta.url));
const built = fileURLToPath(new URL("../../../dist/node/cli/main.js", import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface CommandOptions {
  readonly cwd: string;
  /** Called with the process and what it has printed so far, at every piece of output. */
  readonly onOutput?: (process: ChildProcess, out: string, err: string) => void;
}

/** Runs `paraxis` with these words until it ends. */
export function paraxis(args: readonly string[], { cwd, onOutput }: CommandOptions): Promise<Finished> {
  if (!existsSync(built)) throw new Error("the package is not built: run npm run build");
  const child = spawn(process.execPath, [bin, ...args], { cwd, stdio: ["ignore", "pipe", "pipe"] });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
    onOutput?.(child, out, err);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
    onOutput?.(child, out, err);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
  });
}

/** A new folder outside any project with these files in it. */
export function folderWith(files: { readonly [path: string]: string | Uint8Array }): string {
  const folder = mkdtempSync(join(tmpdir(), "paraxis-command-"));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  return folder;
}

/** The objects of a file or output with one JSON object per line. */
export function jsonLines(text: string): { readonly [key: string]: unknown }[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

export function metricsOf(folder: string): { readonly [key: string]: unknown }[] {
  return jsonLines(readFileSync(join(folder, "runs/latest/metrics.jsonl"), "utf8"));
}

/** A job that learns in milliseconds: two small layers on numbers in memory. */
export const tinyJob = `
import { adam, arrays, defineJob, nn } from "paraxis";

const samples = 128;
const x = Float32Array.from({ length: 2 * samples }, (_, i) => Math.sin(1.7 * i));
const y = Float32Array.from({ length: samples }, (_, i) => (x[2 * i] as number) * (x[2 * i + 1] as number));

export default defineJob({
  model: nn.sequential([
    nn.linear({ units: 8, group: "hidden" }),
    nn.tanh({ group: "hidden" }),
    nn.linear({ units: 1, group: "output" }),
  ]),
  loss: "mean-squared-error",
  optimizer: adam({ rate: 0.01 }),
  data: arrays(
    {
      features: { dtype: "f32", shape: [samples, 2], data: x },
      targets: { dtype: "f32", shape: [samples, 1], data: y },
    },
    { batch: 16, validationShare: 0.25 },
  ),
  epochs: 3,
});
`;

/** A language model with dropout over a text beside the job. */
export const textJob = `
import { defineJob, nn, sgd } from "paraxis";
import { words } from "paraxis/node";
import { units } from "./sizes.js";

const data = words(new URL("text.txt", import.meta.url), { batch: 4, buckets: [8, 16], vocabulary: 50 });

export default defineJob({
  model: nn.sequential([
    nn.embedding({ vocabulary: 50, dim: units, group: "embed" }),
    nn.lstm({ units, dropout: 0.5, group: "layer0" }),
    nn.linear({ units: 50, group: "decode" }),
  ]),
  loss: "cross-entropy",
  optimizer: sgd({ rate: 0.5, clipNorm: 5 }),
  data: Promise.resolve(data),
});
`;

/** Sentences of 3 to 15 words from a small vocabulary. */
export const sampleText: string = Array.from({ length: 160 }, (_, line) =>
  Array.from({ length: 3 + (line % 13) }, (__, word) => `w${(line * 7 + word * word * 3) % 40}`).join(" "),
).join(".\n");
