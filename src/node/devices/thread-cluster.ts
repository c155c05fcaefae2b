/**
 * Devices as worker threads of this process: one thread, one engine and one memory each. The coordinator only passes batches in and
 * numbers out; devices exchange tensors through shared memory.
 *
 *     request ──► device 0 ──┐ progress (shared)
 *             ──► device 1 ──┤        │
 *                    ▲       │        ▼
 *                    └─ abort ─── watchdog, exit and error events ──► the first cause is thrown
 *
 * When a device throws, leaves or dies, all others are woken and the first cause is reported with the place where it happened. When
 * nothing moves any more, the watchdog says where every device stands and what it waits for.
 */

import type { Worker } from "node:worker_threads";
import { UserError } from "../../base/errors.ts";
import type { Cluster } from "../../execute/cluster.ts";
import type { StepOutput } from "../../execute/device.ts";
import type { StepInput } from "../../execute/feed.ts";
import type { HeldTensor } from "../../execute/held-tensors.ts";
import type { TypedArray } from "../../graph/dtype.ts";
import type { LayoutDevice } from "../../layout/layout.ts";
import { channelPlan } from "../../program/channels.ts";
import { awaitedMessage, locateInstruction } from "../../program/locate.ts";
import type { Program } from "../../program/program.ts";
import { abortThreadWorld, createThreadWorld, type ThreadWorld } from "../transport/threads.ts";
import type { Answer, EngineName, Fault, Request } from "./messages.ts";
import { workerStarter } from "./start-worker.ts";

export interface ThreadClusterOptions {
  readonly devices: readonly LayoutDevice[];
  readonly engine: EngineName;
  /** Seconds in which no device begins an instruction after which a step is given up. */
  readonly deadline: number;
  readonly fault?: Fault;
}

/** A device ended or stopped; the run is over. */
export class DeviceError extends Error {
  override readonly name: string = "DeviceError";
}

/** Starts the threads; dispose it to end them. */
export function threadCluster(options: ThreadClusterOptions): Cluster {
  return new ThreadCluster(options);
}

/** Milliseconds between two looks of the watchdog. */
const watchInterval = 100;

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
    this.#progress = new Int32Array(new SharedArrayBuffer(8 * options.devices.length)).fill(-1);
    this.#waiting = options.devices.map(() => undefined);
    const epoch = process.hrtime.bigint();
    const startWorker = workerStarter();
    this.#workers = options.devices.map(({ threads }, device) => {
      const { engine, fault } = options;
      const progress = this.#progress;
      const worker = startWorker({ device, engine, threads, epoch, progress, ...(fault && { fault }) });
      worker.on("message", (answer: Answer) => this.#take(device)?.resolve(answer));
      worker.on("error", (error: Error) => this.#lost(device, `was ended by an error (${error.message})`));
      worker.on("exit", (code) => this.#lost(device, `ended with exit code ${code}`));
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
    const answers = await this.#watched({ kind: "run", program, input });
    return answers.flatMap((answer) => (answer.kind === "ran" ? [answer.output] : []));
  }

  async write(tensors: ReadonlyMap<string, TypedArray>): Promise<void> {
    await this.#watched({ kind: "write", tensors });
  }

  async read(): Promise<readonly ReadonlyMap<string, HeldTensor>[]> {
    const answers = await this.#watched({ kind: "read" });
    return answers.flatMap((answer) => (answer.kind === "tensors" ? [answer.tensors] : []));
  }

  /** Ends the threads, whatever they are doing; a step that is under way is rejected. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    this.#fail(0, new DeviceError("the devices were closed"));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** Asks all devices the same, for which they may carry out instructions, and sees to it that they go on. */
  async #watched(request: Request): Promise<readonly Answer[]> {
    const watchdog = setInterval(this.#watch(), watchInterval);
    try {
      return await this.#all(() => request);
    } finally {
      clearInterval(watchdog);
    }
  }

  /** Asks every device at once and waits for all answers; throws the first cause of a failure. */
  async #all(requestFor: (device: number) => Request): Promise<readonly Answer[]> {
    if (this.#failure !== undefined) throw this.#failure;
    const answers = await Promise.all(
      this.#workers.map(async (worker, device) => {
        const answer = await new Promise<Answer>((resolve, reject) => {
          this.#waiting[device] = { resolve, reject };
          worker.postMessage(requestFor(device));
        });
        if (answer.kind === "failed" && !answer.isEcho)
          this.#fail(
            device,
            answer.isUserError ? new UserError(answer.message) : new DeviceError(answer.message),
          );
        return answer;
      }),
    );
    if (this.#failure !== undefined) throw this.#failure;
    const failed = answers.find((answer) => answer.kind === "failed");
    if (failed?.kind === "failed") throw new DeviceError(failed.message);
    return answers;
  }

  /**
   * Notices that no device has begun an instruction for longer than the deadline. Each look counts for little more than its interval,
   * so that a coordinator that was busy itself does not blame the devices.
   */
  #watch(): () => void {
    let seen = "";
    let quiet = 0;
    let last = performance.now();
    return () => {
      const [now, marks] = [performance.now(), this.#progress.join()];
      quiet = marks === seen ? quiet + Math.min(now - last, 2 * watchInterval) : 0;
      seen = marks;
      last = now;
      const silent = [...this.#waiting.keys()].filter((device) => this.#waiting[device] !== undefined);
      if (quiet < 1000 * this.#options.deadline || silent.length === 0) return;
      const places = silent.map((device) => `  - ${this.#placeOf(device)}${this.#awaitedBy(device)}`);
      this.#fail(
        silent[0] as number,
        new DeviceError(
          `no device has gone on for ${(quiet / 1000).toFixed(1)} s; these do not answer:\n${places.join("\n")}`,
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
    const { name } = this.#options.devices[device] as LayoutDevice;
    this.#fail(device, new DeviceError(`${this.#placeOf(device)}: the thread of ${name} ${how}`));
  }

  /** Ends the run: wakes all devices and answers everybody who still waits. */
  #fail(culprit: number, error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    if (this.#world !== undefined) abortThreadWorld(this.#world, culprit, error.message);
    for (const device of this.#workers.keys()) this.#take(device)?.reject(error);
  }

  #placeOf(device: number): string {
    const { program, instruction } = this.#position(device);
    return program === undefined
      ? `device ${device}, before its first instruction`
      : locateInstruction(program, instruction);
  }

  #awaitedBy(device: number): string {
    const { program, instruction } = this.#position(device);
    const message = program && awaitedMessage(program, instruction);
    return message === undefined ? "" : ` waits for ${message}`;
  }

  #position(device: number): { readonly program: Program | undefined; readonly instruction: number } {
    const programs = [...(this.#programs[device]?.values() ?? [])];
    const program = programs[Atomics.load(this.#progress, 2 * device)];
    return { program, instruction: Atomics.load(this.#progress, 2 * device + 1) };
  }
}
