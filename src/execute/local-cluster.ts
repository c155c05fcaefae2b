/** Devices in this thread: one that computes, or several that take turns (for tests, with a transport in memory). */

import type { TypedArray } from "../graph/dtype.ts";
import type { Program } from "../program/program.ts";
import type { Cluster } from "./cluster.ts";
import { Device, type DeviceOptions, type StepOutput } from "./device.ts";
import type { Engine } from "./engine.ts";
import type { StepInput } from "./feed.ts";
import { type HeldTensor, readTensors, writeTensors } from "./held-tensors.ts";
import { type Transport, TransportAborted } from "./transport.ts";

export interface LocalClusterOptions extends Omit<DeviceOptions, "transport"> {
  /** Makes the devices' access to each other once their programs are known; not needed for one device. */
  readonly connect?: (programs: readonly ReadonlyMap<string, Program>[]) => readonly Transport[];
}

/** A cluster whose devices can be looked into. */
export interface LocalCluster extends Cluster {
  /** None before `load`. */
  readonly devices: readonly Device[];
}

/** Devices that share one engine, which computes for one of them at a time. */
export function localCluster(options: LocalClusterOptions): LocalCluster {
  return new DevicesInTurn(options);
}

class DevicesInTurn implements LocalCluster {
  readonly #options: LocalClusterOptions;
  #devices: readonly Device[] = [];
  #transports: readonly Transport[] = [];

  constructor(options: LocalClusterOptions) {
    this.#options = options;
  }

  get devices(): readonly Device[] {
    return this.#devices;
  }

  async load(programs: readonly ReadonlyMap<string, Program>[]): Promise<void> {
    const { connect, engine: shared, ...options } = this.#options;
    const engine = programs.length > 1 ? oneAtATime(shared) : shared;
    this.#transports = connect?.(programs) ?? [];
    this.#devices = programs.map((_, index) => {
      const transport = this.#transports[index];
      return new Device({ ...options, engine, ...(transport && { transport }) });
    });
    await Promise.all(this.#devices.map((device, index) => device.load(programs[index] ?? new Map())));
  }

  /** A device that fails wakes the others; their complaints about that are not what is thrown. */
  async run(program: string, input: StepInput): Promise<readonly StepOutput[]> {
    const runs = this.#devices.map(async (device, index) => {
      try {
        return await device.run(program, input);
      } catch (error) {
        this.#transports[index]?.abort((error as Error).message);
        throw error;
      }
    });
    const ended = await Promise.allSettled(runs);
    const errors = ended.flatMap((end) => (end.status === "rejected" ? [end.reason as Error] : []));
    const cause = errors.find((error) => !isEcho(error)) ?? errors[0];
    if (cause !== undefined) throw cause;
    return Promise.all(runs);
  }

  async write(tensors: ReadonlyMap<string, TypedArray>): Promise<void> {
    for (const device of this.#devices) {
      await device.settle();
      writeTensors(device.tensors, tensors);
    }
  }

  async read(): Promise<readonly ReadonlyMap<string, HeldTensor>[]> {
    return Promise.all(
      this.#devices.map(async (device) => {
        await device.settle();
        return readTensors(device.tensors);
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const transport of this.#transports) transport.close();
    this.#devices = [];
    this.#transports = [];
  }
}

/** Whether an error only passes on that another device ended the run. */
export function isEcho(error: Error): boolean {
  return error instanceof TransportAborted || error.cause instanceof TransportAborted;
}

/** Kernels of an engine run one at a time, also where several devices wait for their results. */
function oneAtATime(engine: Engine): Engine {
  let last: Promise<void> = Promise.resolve();
  return {
    name: engine.name,
    prepare: async (segment) => {
      const kernel = await engine.prepare(segment);
      return {
        bind: (inputs, outputs) => {
          const bound = kernel.bind(inputs, outputs);
          return {
            run: () => {
              const ended = last.then(() => bound.run());
              last = ended.catch(() => undefined);
              return ended;
            },
          };
        },
      };
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}
