/** A device in this thread. */

import type { TypedArray } from "../graph/dtype.ts";
import type { Program } from "../program/program.ts";
import { Device, type DeviceOptions, type StepInput, type StepOutput } from "./device.ts";
import type { TensorBuffer } from "./engine.ts";
import type { DeviceHandle } from "./trainer.ts";

export function localDevice(options: DeviceOptions): DeviceHandle {
  const device = new Device(options);
  return {
    load: (programs: ReadonlyMap<string, Program>) => device.load(programs),
    run: (program: string, input: StepInput): Promise<StepOutput> => device.run(program, input),
    write: async (tensors: ReadonlyMap<string, TypedArray>) => writeTensors(device, tensors),
    read: async () => readTensors(device),
    [Symbol.asyncDispose]: () => device[Symbol.asyncDispose](),
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
  return new Map([...device.tensors].map(([name, { type, data }]) => [name, { type, data: data.slice() }]));
}
