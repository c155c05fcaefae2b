/** Devices in this thread: one that computes, or several that take turns (for tests, with a transport in memory). */

import { allocate, type TypedArray } from "../graph/dtype.ts";
import type { Program } from "../program/program.ts";
import type { Cluster } from "./cluster.ts";
import { Device, type DeviceOptions, type StepInput } from "./device.ts";
import type { TensorBuffer } from "./engine.ts";
import type { Transport } from "./transport.ts";

export interface LocalClusterOptions extends Omit<DeviceOptions, "transport"> {
  /** Makes the devices' access to each other once their programs are known; not needed for one device. */
  readonly connect?: (programs: readonly ReadonlyMap<string, Program>[]) => readonly Transport[];
}

export function localCluster({ connect, ...options }: LocalClusterOptions): Cluster {
  let devices: readonly Device[] = [];
  return {
    load: async (programs) => {
      const transports = connect?.(programs) ?? [];
      devices = programs.map((_, index) => {
        const transport = transports[index];
        return new Device({ ...options, ...(transport && { transport }) });
      });
      await Promise.all(devices.map((device, index) => device.load(programs[index] ?? new Map())));
    },
    run: (program: string, input: StepInput) =>
      Promise.all(devices.map((device) => device.run(program, input))),
    write: async (tensors) => {
      for (const device of devices) writeTensors(device, tensors);
    },
    read: async () => devices.map(readTensors),
    [Symbol.asyncDispose]: async () => {
      devices = [];
    },
  };
}

/** Overwrites the lasting tensors that the device holds. */
export function writeTensors(device: Device, tensors: ReadonlyMap<string, TypedArray>): void {
  for (const [name, { data }] of device.tensors) {
    const given = tensors.get(name);
    if (given !== undefined) (data as Float32Array).set(given as Float32Array);
  }
}

/** Copies of the lasting tensors that the device holds. */
export function readTensors(device: Device): ReadonlyMap<string, TensorBuffer> {
  return new Map(
    [...device.tensors].map(([name, { type, data }]) => {
      const copy = allocate(type.dtype, data.length);
      (copy as Float32Array).set(data as Float32Array);
      return [name, { type, data: copy }];
    }),
  );
}
