/**
 * Devices as worker threads of this process: one thread, one engine and one memory each. The coordinator only passes batches in and
 * numbers out; devices exchange tensors through shared memory.
 *
 * When a device fails, throws, leaves or dies, all others are woken and the first cause is reported with the place where it happened.
 * When nothing moves any more, a watchdog says where every device stands.
 */

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { UserError } from "../../base/errors.ts";
import type { Cluster } from "../../execute/cluster.ts";
import type { StepInput, StepOutput } from "../../execute/device.ts";
import type { TensorBuffer } from "../../execute/engine.ts";
import type { TypedArray } from "../../graph/dtype.ts";
import type { LayoutDevice } from "../../layout/layout.ts";
import { channelPlan } from "../../program/channels.ts";
import { locateInstruction } from "../../program/locate.ts";
import type { Program } from "../../program/program.ts";
import { abortThreadWorld, createThreadWorld, type ThreadWorld } from "../transport/threads.ts";
import type { Answer, DeviceSetup, EngineName, Fault, Request } from "./messages.ts";

export interface ThreadClusterOptions {
  readonly devices: readonly LayoutDevice[];
  readonly engine: EngineName;
  /** Seconds without any progress after which a run is given up. */
  readonly deadline: number;
  readonly fault?: Fault;
}

/** A device ended or stopped; the run is over. */
export class DeviceError extends Error {
  override readonly name: string = "DeviceError";
}

export function threadCluster(options: ThreadClusterOptions): Cluster {
  return new ThreadCluster(options);
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

class ThreadCluster implements Cluster {
  readonly #options: ThreadClusterOptions;
  readonly #workers: readonly Worker[];
  readonly #waiting: (Waiting | undefined)[];
  readonly #progress: Int32Array;
  #programs: readonly ReadonlyMap<string, Program>[] = [];
  #world: ThreadWorld | undefined;
  /** Why the run ended; set once. */
  #failure: Error | undefined;
  #isClosing = false;

  constructor(options: ThreadClusterOptions) {
    this.#options = options;
    this.#progress = new Int32Array(new SharedArrayBuffer(8 * options.devices.length));
    this.#progress.fill(-1);
    this.#waiting = options.devices.map(() => undefined);
    const epoch = process.hrtime.bigint();
    this.#workers = options.devices.map(({ threads }, device) => {
      const { engine, deadline, fault } = options;
      const setup: DeviceSetup = {
        device,
        engine,
        threads,
        deadline,
        epoch,
        progress: this.#progress,
        ...(fault && { fault }),
      };
      const worker = startWorker(setup);
      worker.on("message", (answer: Answer) => this.#take(device)?.resolve(answer));
      worker.on("error", (error: Error) => this.#lost(device, `ended by an error: ${error.message}`));
      worker.on("exit", (code) => this.#lost(device, `ended unexpectedly with exit code ${code}`));
      return worker;
    });
  }

  async load(programs: readonly ReadonlyMap<string, Program>[]): Promise<void> {
    const keys = [...(programs[0]?.keys() ?? [])];
    const sets = keys.map((key) => programs.flatMap((ofDevice) => ofDevice.get(key) ?? []));
    this.#programs = programs;
    const world = createThreadWorld({ ...channelPlan(sets), size: programs.length });
    this.#world = world;
    await this.#all((device) => ({ kind: "load", programs: programs[device] ?? new Map(), world }));
  }

  async run(program: string, input: StepInput): Promise<readonly StepOutput[]> {
    const answers = await this.#all(() => ({ kind: "run", program, input }));
    return answers.flatMap((answer) => (answer.kind === "ran" ? [answer.output] : []));
  }

  async write(tensors: ReadonlyMap<string, TypedArray>): Promise<void> {
    await this.#all(() => ({ kind: "write", tensors }));
  }

  async read(): Promise<readonly ReadonlyMap<string, TensorBuffer>[]> {
    const answers = await this.#all(() => ({ kind: "read" }));
    return answers.flatMap((answer) => (answer.kind === "tensors" ? [answer.tensors] : []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** Asks every device at once and waits for all answers; throws the first cause of a failure. */
  async #all(requestFor: (device: number) => Request): Promise<readonly Answer[]> {
    if (this.#failure !== undefined) throw this.#failure;
    const watchdog = setInterval(this.#watch(), 200);
    try {
      const answers = await Promise.all(
        this.#workers.map(async (worker, device) => {
          const answer = await new Promise<Answer>((resolve, reject) => {
            this.#waiting[device] = { resolve, reject };
            worker.postMessage(requestFor(device));
          });
          if (answer.kind === "failed" && !answer.isEcho)
            this.#fail(answer.isUserError ? new UserError(answer.message) : new DeviceError(answer.message));
          return answer;
        }),
      );
      if (this.#failure !== undefined) throw this.#failure;
      const failed = answers.find((answer) => answer.kind === "failed");
      if (failed?.kind === "failed") throw new DeviceError(failed.message);
      return answers;
    } finally {
      clearInterval(watchdog);
    }
  }

  /** Notices that no device has begun a new instruction for longer than the deadline. */
  #watch(): () => void {
    let seen = "";
    let since = performance.now();
    return () => {
      const now = this.#progress.join(" ");
      if (now !== seen) {
        seen = now;
        since = performance.now();
        return;
      }
      const seconds = (performance.now() - since) / 1000;
      const silent = this.#waiting.flatMap((waiting, device) => (waiting === undefined ? [] : [device]));
      if (seconds < this.#options.deadline + 0.5 || silent.length === 0) return;
      const places = silent.map((device) => `  - ${this.#placeOf(device)}`);
      this.#fail(
        new DeviceError(
          `no device has made progress for ${seconds.toFixed(1)} s; not answering:\n${places.join("\n")}`,
        ),
      );
    };
  }

  #take(device: number): Waiting | undefined {
    const waiting = this.#waiting[device];
    this.#waiting[device] = undefined;
    return waiting;
  }

  #lost(device: number, how: string): void {
    if (this.#isClosing) return;
    this.#fail(
      new DeviceError(
        `the thread of ${this.#options.devices[device]?.name} ${how}, at ${this.#placeOf(device)}`,
      ),
    );
  }

  /** Ends the run: wakes all devices and answers everybody who still waits. */
  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    if (this.#world !== undefined) abortThreadWorld(this.#world, 0, error.message);
    this.#workers.forEach((_, device) => {
      this.#take(device)?.reject(error);
    });
  }

  #placeOf(device: number): string {
    const [program = -1, instruction = -1] = this.#progress.subarray(2 * device, 2 * device + 2);
    const running = [...(this.#programs[device]?.values() ?? [])][program];
    return running === undefined
      ? `device ${device}, before its first instruction`
      : locateInstruction(running, instruction);
  }
}

/** Starts the thread from the built file, or from its TypeScript source where this file is one itself. */
function startWorker(setup: DeviceSetup): Worker {
  if (!import.meta.url.endsWith(".ts"))
    return new Worker(new URL("./device-worker.js", import.meta.url), { workerData: setup });
  const tsx = new URL(
    "./dist/esm/api/index.mjs",
    pathToFileURL(createRequire(import.meta.url).resolve("tsx/package.json")),
  ).href;
  const source = new URL("./device-worker.ts", import.meta.url).href;
  const code = `import(${JSON.stringify(tsx)}).then(({ register }) => { register(); return import(${JSON.stringify(source)}); });`;
  return new Worker(code, { eval: true, workerData: setup });
}
