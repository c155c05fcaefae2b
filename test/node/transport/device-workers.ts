/** Worker threads that play devices in transport tests. */
import { once } from "node:events";
import { MessageChannel, Worker } from "node:worker_threads";
import type { ThreadWorld } from "../../../src/node/transport/threads.ts";
import type { CaseName, Outcome } from "../../execute/transport-cases.ts";

/** Workers that stay alive between cases, as starting one takes a good part of a second. */
export class DeviceWorkers implements AsyncDisposable {
  readonly #workers: Worker[];

  private constructor(workers: Worker[]) {
    this.#workers = workers;
  }

  static async start(count: number): Promise<DeviceWorkers> {
    const workers = Array.from(
      { length: count },
      () => new Worker(new URL("device-worker.mjs", import.meta.url)),
    );
    await Promise.all(workers.map((worker) => once(worker, "message")));
    return new DeviceWorkers(workers);
  }

  /** Runs one device's part of a case in the worker with this rank. */
  async run(world: ThreadWorld, rank: number, name: CaseName, input: unknown): Promise<Outcome> {
    const { port1, port2 } = new MessageChannel();
    this.worker(rank).postMessage({ world, rank, name, input, answer: port2 }, [port2]);
    const [outcome] = await once(port1, "message");
    port1.close();
    return outcome;
  }

  /** Runs a case on all devices of a world. */
  runAll(world: ThreadWorld, name: CaseName, input: unknown): Promise<readonly Outcome[]> {
    return Promise.all(
      Array.from({ length: world.plan.size }, (_, rank) => this.run(world, rank, name, input)),
    );
  }

  worker(rank: number): Worker {
    const worker = this.#workers[rank];
    if (!worker) throw new Error(`only ${this.#workers.length} workers were started`);
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}
