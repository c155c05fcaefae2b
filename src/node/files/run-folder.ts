/**
 * The folder of one run:
 *
 *     runs/2026-11-20_23-07-12-mxnet-lstm/    job.json, metrics.jsonl, parameters.safetensors, ...
 *     runs/latest                             link to the newest; a text file with its name where links fail
 */
import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../../base/errors.ts";
import { writeAtomically } from "./atomic.ts";
import { systemReason } from "./text-file.ts";

/**
 * One run's folder. A metrics line is handed to the system before `appendMetrics` returns, so it outlives a crash
 * of this process; it is made durable against a crash of the machine by `sync` and by disposal.
 */
export class RunFolder implements AsyncDisposable {
  readonly path: string;
  readonly #metrics: number;
  #open = true;

  private constructor(path: string, metrics: number) {
    this.path = path;
    this.#metrics = metrics;
  }

  /** Makes `root`/<UTC time>-<job>/ with an empty metrics.jsonl and points `root`/latest at it. */
  static async create(root: string, job: string, now: Date): Promise<RunFolder> {
    try {
      await mkdir(root, { recursive: true });
      const path = await makeFolder(join(root, folderName(job, now)));
      await pointLatest(root, basename(path));
      return new RunFolder(path, openSync(join(path, "metrics.jsonl"), "a"));
    } catch (error) {
      throw new UserError(`cannot make a run folder in ${root}`, [systemReason(error)]);
    }
  }

  /** The path of a file of this run. */
  file(name: string): string {
    return join(this.path, name);
  }

  /** Appends one line to metrics.jsonl; numbers that JSON lacks become "NaN", "Infinity" and "-Infinity". */
  appendMetrics(record: object): void {
    const line = Buffer.from(`${JSON.stringify(record, replaceNonFinite)}\n`);
    for (let done = 0; done < line.length; ) done += writeSync(this.#metrics, line, done);
  }

  /** Makes all metrics so far durable. */
  sync(): void {
    fsyncSync(this.#metrics);
  }

  /** Writes a JSON document of this run atomically. */
  async writeJson(name: string, value: unknown): Promise<void> {
    await this.writeText(name, `${JSON.stringify(value, replaceNonFinite, 2)}\n`);
  }

  /** Writes a text of this run atomically. */
  async writeText(name: string, text: string): Promise<void> {
    await writeAtomically(this.file(name), async (file) => {
      await file.writeFile(text);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    this.sync();
    closeSync(this.#metrics);
  }
}

/** The folder that a path such as runs/latest means, also where `latest` is a text file; UserError if there is none. */
export async function resolveRunFolder(path: string): Promise<string> {
  try {
    if ((await stat(path)).isDirectory()) return path;
    const target = join(path, "..", (await readFile(path, "utf8")).trim());
    if (basename(path) === "latest" && (await stat(target)).isDirectory()) return target;
  } catch (error) {
    throw new UserError(`cannot find the run ${path}`, [systemReason(error)]);
  }
  throw new UserError(`cannot find the run ${path}`, ["it is not a run folder"]);
}

function folderName(job: string, now: Date): string {
  const time = now.toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "-");
  const name = job.replaceAll(/[^A-Za-z0-9._-]+/g, "-").replaceAll(/^[-.]+|[-.]+$/g, "");
  return `${time}-${name === "" ? "job" : name.slice(0, 80)}`;
}

/** Makes the folder; two runs in the same second get -2, -3, ... */
async function makeFolder(path: string): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const candidate = attempt === 1 ? path : `${path}-${attempt}`;
    try {
      await mkdir(candidate);
      return candidate;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
  }
}

async function pointLatest(root: string, folder: string): Promise<void> {
  const temporary = join(root, `.latest-${randomUUID()}`);
  try {
    await symlink(folder, temporary, "dir").catch(() => writeFile(temporary, `${folder}\n`));
    await rename(temporary, join(root, "latest"));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

function replaceNonFinite(_key: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}
