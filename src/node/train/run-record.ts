/**
 * What a run leaves in its folder, and when:
 *
 *     run.json            at the start, and again with the outcome at the end
 *     layout.json         at the start
 *     metrics.jsonl       a line after every step and evaluation
 *     trace.json          at the end: the last steps under each layout, for Perfetto
 *     model.safetensors   at the end, also after Ctrl-C and after a loss that is not finite
 */

import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism, cpus, release, totalmem, type } from "node:os";
import type { TensorData } from "../../data/dataset.ts";
import type { Trainer } from "../../execute/trainer.ts";
import type { Layout } from "../../layout/layout.ts";
import { printLayout } from "../../layout/parse.ts";
import { type NamedTrace, printChromeTrace, toChromeTrace } from "../../trace/chrome.ts";
import { RunFolder } from "../files/run-folder.ts";
import { writeSafetensors } from "../files/safetensors.ts";
import type { EvaluationEvent, StartEvent, StepEvent, TrainSummary } from "./events.ts";

export interface RunIdentity {
  /** Folder that holds the runs. */
  readonly root: string;
  readonly name: string;
  readonly seed: number;
  /** Path of the job file, where there is one. */
  readonly jobFile?: string;
  /** The words of the command line, where there is one. */
  readonly command?: readonly string[];
}

export class RunRecord implements AsyncDisposable {
  readonly #folder: RunFolder;
  readonly #identity: RunIdentity;
  readonly #started: Date;

  private constructor(folder: RunFolder, identity: RunIdentity, started: Date) {
    this.#folder = folder;
    this.#identity = identity;
    this.#started = started;
  }

  /** Makes the folder with the layout in it. */
  static async create(identity: RunIdentity, layout: Layout): Promise<RunRecord> {
    const started = new Date();
    const folder = await RunFolder.create(identity.root, identity.name, started);
    await folder.writeText("layout.json", printLayout(layout));
    return new RunRecord(folder, identity, started);
  }

  get path(): string {
    return this.#folder.path;
  }

  async start(event: StartEvent): Promise<void> {
    await this.#write("running", event, {});
  }

  metrics(event: StepEvent | EvaluationEvent): void {
    this.#folder.appendMetrics(event);
  }

  async end(event: StartEvent, summary: TrainSummary): Promise<void> {
    await this.#write(summary.reason, event, { result: summary });
  }

  async fail(event: StartEvent, message: string): Promise<void> {
    await this.#write("failed", event, { error: message });
  }

  /** Writes the model's tensors as they are now and returns the path. */
  async saveModel(trainer: Trainer): Promise<string> {
    const all = await trainer.tensors();
    const tensors: [string, TensorData][] = trainer.modelTensors.flatMap((name) => {
      const found = all.get(name);
      return found === undefined ? [] : [[name, { ...found.type, data: found.data }]];
    });
    const path = this.#folder.file("model.safetensors");
    const { seed, name } = this.#identity;
    await writeSafetensors(path, {
      tensors: Object.fromEntries(tensors),
      metadata: { step: `${trainer.steps}`, seed: `${seed}`, job: name },
    });
    return path;
  }

  /** Writes the traces, one process of the picture for each, and returns the path. */
  async saveTrace(runs: readonly NamedTrace[]): Promise<string> {
    const path = this.#folder.file("trace.json");
    await writeFile(path, printChromeTrace(toChromeTrace(runs)));
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#folder[Symbol.asyncDispose]();
  }

  async #write(
    status: string,
    { kind: _, runFolder: __, ...run }: StartEvent,
    outcome: object,
  ): Promise<void> {
    const { command, jobFile } = this.#identity;
    await this.#folder.writeJson("run.json", {
      version: 1,
      status,
      ...(command && { command }),
      ...(jobFile !== undefined && { jobFile }),
      ...run,
      started: this.#started.toISOString(),
      ...(status !== "running" && { ended: new Date().toISOString() }),
      versions: versions(),
      machine: machine(),
      ...outcome,
    });
  }
}

const require = createRequire(import.meta.url);

/** Versions of this package, Node and ONNX Runtime. */
export function versions(): {
  readonly paraxis: string;
  readonly node: string;
  readonly onnxruntime: string;
} {
  const versionOf = (path: string): string => (require(path) as { readonly version: string }).version;
  return {
    paraxis: versionOf("../../../package.json"),
    node: process.versions.node,
    onnxruntime: versionOf("onnxruntime-node/package.json"),
  };
}

function machine(): object {
  return {
    system: `${type()} ${release()}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryBytes: totalmem(),
  };
}
