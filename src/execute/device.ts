/**
 * One device: its memory, its kernels, and the loop that carries out a program's instructions. It knows nothing of layouts, stages or
 * schedules; the program says everything.
 */

import { invariant, UserError } from "../base/errors.ts";
import type { TensorData } from "../data/dataset.ts";
import { allocate, elementBytes, type TypedArray } from "../graph/dtype.ts";
import { showType, sizeOf, stridesOf, type TensorType } from "../graph/shape.ts";
import { locateInstruction } from "../program/locate.ts";
import { planMemory } from "../program/memory.ts";
import { type BufferSpec, type Instruction, isPersistent, type Program } from "../program/program.ts";
import type { Engine, Kernel, TensorBuffer } from "./engine.ts";
import type { Transfer, Transport } from "./transport.ts";

export interface DeviceOptions {
  readonly engine: Engine;
  /** Needed where programs send or receive. */
  readonly transport?: Transport;
  /** Seconds after which waiting for another device is an error. */
  readonly deadline: number;
  /** Clock in seconds. */
  readonly now: () => number;
  /** Called before every instruction with the program's key and the instruction's index. */
  readonly onInstruction?: (program: string, index: number) => void;
}

/** What one step needs from outside. */
export interface StepInput {
  /** The whole mini-batch, by input name. */
  readonly data: { readonly [name: string]: TensorData };
  readonly scalars: { readonly [name: string]: number };
}

export interface StepOutput {
  /** Scalars that the device computed: the loss, the gradient norm. */
  readonly results: { readonly [name: string]: number };
  /** Start and end in seconds of every instruction, in turn. */
  readonly times: Float64Array;
}

/** An instruction that failed: which, on which device, and why. */
export class InstructionError extends Error {
  override readonly name: string = "InstructionError";
}

/** A program with its buffers in place. */
interface Loaded {
  readonly program: Program;
  readonly buffers: readonly TensorBuffer[];
  readonly steps: readonly Step[];
  readonly times: Float64Array;
}

/** An instruction ready to run; false ends the program. */
type Step = () => boolean | undefined | Promise<void>;

export class Device {
  readonly #options: DeviceOptions;
  readonly #loaded = new Map<string, Loaded>();
  /** Buffers that programs share, by name and type. */
  readonly #shared = new Map<string, TensorBuffer>();
  readonly #sending = new Map<number, Transfer>();
  #arena = new ArrayBuffer(0);

  constructor(options: DeviceOptions) {
    this.#options = options;
  }

  /** Bytes of the buffers that this device holds: those that last, and the memory that activations share. */
  get bytes(): { readonly lasting: number; readonly activations: number } {
    const lasting = [...this.#shared.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    return { lasting, activations: this.#arena.byteLength };
  }

  /** Makes programs ready to run, each under a key. All programs of a device are loaded together: they share memory. */
  async load(programs: ReadonlyMap<string, Program>): Promise<void> {
    const plans = new Map([...programs].map(([key, program]) => [key, planMemory(program)]));
    this.#arena = new ArrayBuffer(Math.max(0, ...[...plans.values()].map(({ arenaBytes }) => arenaBytes)));
    for (const [key, program] of programs) {
      const offsets = plans.get(key)?.offsets ?? new Map<number, number>();
      const buffers = this.#place(program, offsets);
      const kernels = await Promise.all(
        program.kernels.map((segment) => this.#options.engine.prepare(segment)),
      );
      const steps = program.instructions.map((instruction) =>
        this.#prepare(instruction, program, buffers, kernels),
      );
      this.#loaded.set(key, { program, buffers, steps, times: new Float64Array(2 * steps.length) });
    }
  }

  /** Names and types of the tensors that last from step to step. */
  get tensors(): ReadonlyMap<string, TensorBuffer> {
    const names = new Map<string, TensorBuffer>();
    for (const { program, buffers } of this.#loaded.values()) {
      program.buffers.forEach(({ name, kind }, id) => {
        if (isPersistent(kind)) names.set(name, buffers[id] as TensorBuffer);
      });
    }
    return names;
  }

  /** The contents of a gradient after a step; for tests and for finding out what became non-finite. */
  gradient(name: string): TypedArray | undefined {
    for (const { program, buffers } of this.#loaded.values()) {
      const id = program.buffers.findIndex((spec) => spec.name === name && spec.kind === "gradient");
      if (id >= 0) return buffers[id]?.data;
    }
    return undefined;
  }

  /** Carries out the program `key` once. `times` is reused by the next call. */
  async run(key: string, input: StepInput): Promise<StepOutput> {
    const loaded = this.#loaded.get(key);
    invariant(loaded !== undefined, `no program "${key}" is loaded`);
    feed(loaded, input);
    await this.#execute(key, loaded);
    const results: { [name: string]: number } = {};
    loaded.program.buffers.forEach(({ name, kind }, id) => {
      if (kind === "result") results[name] = Number(loaded.buffers[id]?.data[0]);
    });
    return { results, times: loaded.times };
  }

  /** The loop. Sends are under way until their buffer is freed or the program ends. */
  async #execute(key: string, { program, steps, times }: Loaded): Promise<void> {
    const { now, onInstruction } = this.#options;
    times.fill(Number.NaN);
    for (let i = 0; i < steps.length; i++) {
      times[2 * i] = now();
      try {
        onInstruction?.(key, i);
        const result = (steps[i] as Step)();
        if (result === false) break;
        if (result !== undefined) await result;
      } catch (error) {
        throw new InstructionError(`${locateInstruction(program, i)}: ${(error as Error).message}`, {
          cause: error,
        });
      }
      times[2 * i + 1] = now();
    }
    for (const buffer of [...this.#sending.keys()]) await this.#finish(buffer);
  }

  #prepare(
    instruction: Instruction,
    program: Program,
    buffers: readonly TensorBuffer[],
    kernels: readonly Kernel[],
  ): Step {
    const of = (id: number) => buffers[id] as TensorBuffer;
    switch (instruction.kind) {
      case "run": {
        const bound = (kernels[instruction.kernel] as Kernel).bind(
          instruction.inputs.map(of),
          instruction.outputs.map(of),
        );
        return () => bound.run() as Promise<void> | undefined;
      }
      case "send": {
        const { buffer, to, tag } = instruction;
        const [bytes, label] = [bytesOf(of(buffer)), program.buffers[buffer]?.name];
        return () => {
          this.#sending.set(buffer, this.#transport.send(to, tag, bytes, label));
          return undefined;
        };
      }
      case "receive": {
        const { buffer, from, tag } = instruction;
        const [bytes, label] = [bytesOf(of(buffer)), program.buffers[buffer]?.name];
        return () =>
          this.#transport.receive(from, tag, bytes, label).wait(this.#options.deadline) as
            | Promise<void>
            | undefined;
      }
      case "guard": {
        const { data } = of(instruction.buffer);
        return () => Number.isFinite(Number(data[0]));
      }
      case "free":
        return () => (this.#sending.has(instruction.buffer) ? this.#finish(instruction.buffer) : undefined);
      default:
        return instruction satisfies never;
    }
  }

  async #finish(buffer: number): Promise<void> {
    const transfer = this.#sending.get(buffer);
    this.#sending.delete(buffer);
    await transfer?.wait(this.#options.deadline);
  }

  get #transport(): Transport {
    const { transport } = this.#options;
    invariant(transport !== undefined, "this device has no transport");
    return transport;
  }

  #place(program: Program, offsets: ReadonlyMap<number, number>): readonly TensorBuffer[] {
    const placed: TensorBuffer[] = [];
    const place = (id: number): TensorBuffer => {
      const spec = program.buffers[id] as BufferSpec;
      const known = placed[id];
      if (known !== undefined) return known;
      const buffer =
        spec.view === undefined
          ? this.#own(spec, offsets.get(id))
          : rowsOf(place(spec.view.of), spec.type, spec.view.row);
      placed[id] = buffer;
      return buffer;
    };
    program.buffers.forEach((_, id) => {
      place(id);
    });
    return placed;
  }

  #own({ name, type, kind, value }: BufferSpec, offset: number | undefined): TensorBuffer {
    if (offset !== undefined)
      return { type, data: allocate(type.dtype, sizeOf(type.shape), this.#arena, offset) };
    const key = isPersistent(kind) ? name : `${name} ${showType(type)}`;
    const known = this.#shared.get(key);
    if (known !== undefined) return known;
    const data = allocate(type.dtype, sizeOf(type.shape));
    if (value !== undefined && value !== 0) fill(data, value);
    this.#shared.set(key, { type, data });
    return { type, data };
  }
}

/** Copies the step's data and scalars into their buffers. */
function feed({ program, buffers }: Loaded, { data, scalars }: StepInput): void {
  for (const { buffer, input, start } of program.feeds) {
    const whole = data[input];
    if (whole === undefined)
      throw new UserError(`the batch has no input "${input}"; it has ${Object.keys(data).join(", ")}`);
    copyBlock(whole, start, buffers[buffer] as TensorBuffer);
  }
  program.buffers.forEach(({ name, kind }, id) => {
    if (kind !== "scalar") return;
    const value = scalars[name];
    invariant(value !== undefined, `scalar "${name}" was not given`);
    fill((buffers[id] as TensorBuffer).data, value);
  });
}

/** Copies the block of `whole` that begins at `start` and has the shape of `part`, run by run of contiguous elements. */
function copyBlock(whole: TensorData, start: readonly number[], part: TensorBuffer): void {
  const { shape } = part.type;
  if (shape.length !== whole.shape.length || whole.dtype !== part.type.dtype) {
    throw new UserError(`a batch holds ${showType(whole)}, the program expects ${showType(part.type)}`);
  }
  const strides = stridesOf(whole.shape);
  const partStrides = stridesOf(shape);
  const contiguous = shape.findLastIndex((size, dim) => size !== whole.shape[dim]);
  const run =
    contiguous < 0 ? part.data.length : (partStrides[contiguous] as number) * (shape[contiguous] as number);
  for (let at = 0; at < part.data.length; at += run) {
    let from = 0;
    for (let dim = 0; dim < shape.length; dim++) {
      const index = Math.floor(at / (partStrides[dim] as number)) % (shape[dim] as number);
      from += ((start[dim] ?? 0) + index) * (strides[dim] as number);
    }
    (part.data as Float32Array).set((whole.data as Float32Array).subarray(from, from + run), at);
  }
}

function rowsOf({ data, type }: TensorBuffer, part: TensorType, row: number): TensorBuffer {
  const width = sizeOf(type.shape.slice(1));
  const offset = data.byteOffset + row * width * elementBytes(type.dtype);
  return { type: part, data: allocate(part.dtype, sizeOf(part.shape), data.buffer as ArrayBuffer, offset) };
}

function bytesOf({ data }: TensorBuffer): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function fill(data: TypedArray, value: number): void {
  if (data instanceof BigInt64Array) data.fill(BigInt(value));
  else data.fill(value);
}
