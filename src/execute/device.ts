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
import {
  type BufferKind,
  type BufferSpec,
  type Instruction,
  isPersistent,
  type Program,
} from "../program/program.ts";
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
  /** Called before every instruction with the program's key and the instruction's index, and waited for if it returns a promise. */
  readonly onInstruction?: (program: string, index: number) => void | Promise<void>;
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
  /** Start and end in seconds of every instruction, in turn; NaN for those that were not reached. */
  readonly times: Float64Array;
}

/** An instruction that failed: which, on which device, and why. */
class InstructionError extends Error {
  override readonly name: string = "InstructionError";
}

/** A program with its buffers in place. */
interface Loaded {
  readonly program: Program;
  readonly buffers: readonly TensorBuffer[];
  readonly steps: readonly Step[];
  readonly scalars: readonly NamedBuffer[];
  readonly results: readonly NamedBuffer[];
  /** What the program changes before its guard, and the values before the step. */
  readonly saved: readonly { readonly data: TypedArray; readonly before: TypedArray }[];
}

interface NamedBuffer {
  readonly name: string;
  readonly data: TypedArray;
}

/** An instruction ready to run; false ends the program. */
type Step = () => boolean | undefined | Promise<void>;

export class Device {
  readonly #options: DeviceOptions;
  readonly #loaded = new Map<string, Loaded>();
  /** Buffers that programs share, by name and type. */
  readonly #shared = new Map<string, TensorBuffer>();
  /** Transfers under way, by the buffer they read: one for each device that it goes to. */
  readonly #sending = new Map<number, Transfer[]>();
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
      this.#loaded.set(key, {
        program,
        buffers,
        steps,
        scalars: buffersOf("scalar", program, buffers),
        results: buffersOf("result", program, buffers),
        saved: statisticsToSave(program, buffers),
      });
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

  /** Names of the gradients that this device holds. */
  get gradients(): readonly string[] {
    const names = [...this.#loaded.values()].flatMap(({ program }) =>
      program.buffers.flatMap(({ name, kind }) => (kind === "gradient" ? [name] : [])),
    );
    return [...new Set(names)];
  }

  /** The contents of a gradient after a step. */
  gradient(name: string): TypedArray | undefined {
    for (const { program, buffers } of this.#loaded.values()) {
      const id = program.buffers.findIndex((spec) => spec.name === name && spec.kind === "gradient");
      if (id >= 0) return buffers[id]?.data;
    }
    return undefined;
  }

  /** Carries out the program `key` once. Nothing that lasts is changed by a step that a guard ends. */
  async run(key: string, input: StepInput): Promise<StepOutput> {
    const loaded = this.#loaded.get(key);
    invariant(loaded !== undefined, `no program "${key}" is loaded`);
    feed(loaded, input);
    for (const { data, before } of loaded.saved) copy(data, before);
    const times = new Float64Array(2 * loaded.steps.length).fill(Number.NaN);
    const isWhole = await this.#execute(key, loaded, times);
    if (!isWhole) for (const { data, before } of loaded.saved) copy(before, data);
    const results = Object.fromEntries(loaded.results.map(({ name, data }) => [name, Number(data[0])]));
    return { results, times };
  }

  /** The loop; false when a guard ended it. Sends are under way until their buffer is freed or the program ends. */
  async #execute(key: string, { program, steps }: Loaded, times: Float64Array): Promise<boolean> {
    const { now, onInstruction } = this.#options;
    let isWhole = true;
    for (let i = 0; isWhole && i < steps.length; i++) {
      times[2 * i] = now();
      try {
        const mark = onInstruction?.(key, i);
        if (mark !== undefined) await mark;
        const result = (steps[i] as Step)();
        if (typeof result === "boolean") isWhole = result;
        else if (result !== undefined) await result;
      } catch (error) {
        throw located(program, i, error as Error);
      }
      times[2 * i + 1] = now();
    }
    try {
      for (const buffer of [...this.#sending.keys()]) await this.#finish(buffer);
    } catch (error) {
      throw located(program, steps.length, error as Error);
    }
    return isWhole;
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
          const transfer = this.#transport.send(to, tag, bytes, label);
          const others = this.#sending.get(buffer);
          if (others === undefined) this.#sending.set(buffer, [transfer]);
          else others.push(transfer);
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
    const transfers = this.#sending.get(buffer) ?? [];
    this.#sending.delete(buffer);
    for (const transfer of transfers) await transfer.wait(this.#options.deadline);
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

function located(program: Program, index: number, cause: Error): InstructionError {
  return new InstructionError(`${locateInstruction(program, index)}: ${cause.message}`, { cause });
}

/** Statistics are updated by F, before anybody knows whether the step is good. */
function statisticsToSave(program: Program, buffers: readonly TensorBuffer[]): Loaded["saved"] {
  if (!program.instructions.some(({ kind }) => kind === "guard")) return [];
  return buffersOf("statistic", program, buffers).map(({ data }) => ({ data, before: data.slice() }));
}

function buffersOf(kind: BufferKind, program: Program, buffers: readonly TensorBuffer[]): NamedBuffer[] {
  return program.buffers.flatMap((spec, id) =>
    spec.kind === kind ? [{ name: spec.name, data: (buffers[id] as TensorBuffer).data }] : [],
  );
}

function copy(from: TypedArray, to: TypedArray): void {
  (to as Float32Array).set(from as Float32Array);
}

/** Copies the step's data and scalars into their buffers. */
function feed({ program, buffers, scalars: wanted }: Loaded, { data, scalars }: StepInput): void {
  for (const { buffer, input, start } of program.feeds) {
    const whole = data[input];
    if (whole === undefined)
      throw new UserError(`the batch has no input "${input}"; it has ${Object.keys(data).join(", ")}`);
    copyBlock(whole, start, buffers[buffer] as TensorBuffer);
  }
  for (const { name, data: scalar } of wanted) {
    const value = scalars[name];
    invariant(value !== undefined, `scalar "${name}" was not given`);
    fill(scalar, value);
  }
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
