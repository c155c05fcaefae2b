/**
 * One device: its kernels, and the loop that carries out a program's instructions; its memory is in `device-memory.ts`. It knows nothing
 * of layouts, stages or schedules; the program says everything.
 */

import { invariant } from "../base/errors.ts";
import type { TypedArray } from "../graph/dtype.ts";
import { wholeOf } from "../program/collectives.ts";
import { locateInstruction } from "../program/locate.ts";
import { postponable } from "../program/postpone.ts";
import {
  type BufferKind,
  type BufferSpec,
  type Instruction,
  isPersistent,
  type Program,
} from "../program/program.ts";
import { collectiveStarter } from "./collective-start.ts";
import { DeviceMemory } from "./device-memory.ts";
import { bytesOf, copy, type Engine, type Kernel, type TensorBuffer } from "./engine.ts";
import { feed, type NamedBuffer, type StepInput } from "./feed.ts";
import type { HeldTensor } from "./held-tensors.ts";
import { type LateUpdate, lateUpdate, OwedUpdates, touchedMemory } from "./owed-updates.ts";
import type { Inlet, Transfer, Transport } from "./transport.ts";

export interface DeviceOptions {
  readonly engine: Engine;
  /** Needed where programs send or receive. */
  readonly transport?: Transport;
  /** Seconds after which waiting for another device is an error. */
  readonly deadline: number;
  /** Clock in seconds. */
  readonly now: () => number;
  /**
   * Called before every instruction with the program's key and the instruction's index, and waited for if it returns a promise; again when a
   * wait goes on that an owed update has filled.
   */
  readonly onInstruction?: (program: string, index: number) => void | Promise<void>;
}

export interface StepOutput {
  /** Scalars that the device computed: the loss, the gradient norm. */
  readonly results: { readonly [name: string]: number };
  /**
   * Start and end in seconds of every instruction, in turn; NaN for those that were not reached. Updates that can wait are those of the
   * step before.
   */
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
  readonly steps: readonly (Step | LateUpdate)[];
  /** The memory that every instruction touches and that outlasts the step. */
  readonly touches: readonly (readonly TypedArray[])[];
  readonly scalars: readonly NamedBuffer[];
  readonly results: readonly NamedBuffer[];
  /** What the program changes before its guard, and the values before the step. */
  readonly saved: readonly { readonly data: TypedArray; readonly before: TypedArray }[];
}

/** An instruction ready to run; false ends the program, and what moves is waited for. */
type Step = () => boolean | undefined | Promise<void> | Transfer;

/** A program under way. */
interface Running extends Loaded {
  readonly key: string;
  readonly times: Float64Array;
}

export class Device {
  readonly #options: DeviceOptions;
  readonly #loaded = new Map<string, Loaded>();
  /** Transfers under way, by the buffer they read: one for each device that it goes to. */
  readonly #sending = new Map<number, Transfer[]>();
  /** Messages that kernels read in the sender's memory, by buffer. */
  readonly #arrived = new Map<number, Inlet>();
  readonly #owed = new OwedUpdates();
  #memory = new DeviceMemory([], () => new Uint8Array(0));

  constructor(options: DeviceOptions) {
    this.#options = options;
  }

  /** Bytes of the buffers that this device holds: those that last, and the memory that activations share. */
  get bytes(): DeviceMemory["bytes"] {
    return this.#memory.bytes;
  }

  /** Makes programs ready to run, each under a key. All programs of a device are loaded together: they share memory. */
  async load(programs: ReadonlyMap<string, Program>): Promise<void> {
    this.#memory = new DeviceMemory([...programs.values()], (group) => this.#transport.group(group).region);
    for (const [key, program] of programs) {
      const inlets = this.#directInlets(program);
      const buffers = this.#memory.place(program, inlets);
      const kernels = await Promise.all(
        program.kernels.map((segment) => this.#options.engine.prepare(segment)),
      );
      const late = postponable(program);
      const steps = program.instructions.map((instruction, i) =>
        late.has(i)
          ? lateUpdate(key, i, program, buffers, kernels)
          : this.#prepare(instruction, program, buffers, kernels, inlets),
      );
      this.#loaded.set(key, {
        program,
        buffers,
        steps,
        touches: program.instructions.map((one) => touchedMemory(program, one, buffers)),
        scalars: buffersOf("scalar", program, buffers),
        results: buffersOf("result", program, buffers),
        saved: statisticsToSave(program, buffers),
      });
    }
  }

  /** Carries out the updates of the last step that have waited; `tensors` are up to date only then. */
  async settle(): Promise<void> {
    while (!this.#owed.isEmpty) await this.#carryOut(this.#owed.take() as LateUpdate);
  }

  /** Names and types of the tensors that last from step to step, as of the last `settle`. */
  get tensors(): ReadonlyMap<string, HeldTensor> {
    return this.#held(isPersistent);
  }

  /** The gradients of the last step. */
  get gradients(): ReadonlyMap<string, HeldTensor> {
    return this.#held((kind) => kind === "gradient");
  }

  #held(isWanted: (kind: BufferKind) => boolean): ReadonlyMap<string, HeldTensor> {
    const held = new Map<string, HeldTensor>();
    for (const { program, buffers } of [...this.#loaded.values()].toReversed()) {
      program.buffers.forEach(({ name, kind, block }, id) => {
        const { type, data } = buffers[id] as TensorBuffer;
        if (isWanted(kind)) held.set(name, { type, data, ...(block && { block }) });
      });
    }
    return held;
  }

  /** Carries out the program `key` once. Nothing that lasts is changed by a step that a guard ends. */
  async run(key: string, input: StepInput): Promise<StepOutput> {
    const loaded = this.#loaded.get(key);
    invariant(loaded !== undefined, `no program "${key}" is loaded`);
    feed(loaded, input);
    for (const { data, before } of loaded.saved) copy(data, before);
    const times = new Float64Array(2 * loaded.steps.length).fill(Number.NaN);
    const isWhole = await this.#execute({ ...loaded, key, times });
    if (!isWhole) for (const { data, before } of loaded.saved) copy(before, data);
    const results = Object.fromEntries(loaded.results.map(({ name, data }) => [name, Number(data[0])]));
    return { results, times };
  }

  /** The loop; false when a guard ended it. Sends are under way until their buffer is freed or the program ends. */
  async #execute(running: Running): Promise<boolean> {
    const { steps, touches, times } = running;
    const { now } = this.#options;
    let isWhole = true;
    for (let i = 0; isWhole && i < steps.length; i++) {
      if (!this.#owed.isEmpty) await this.#renew(touches[i] as readonly TypedArray[], running);
      const step = steps[i] as Step | LateUpdate;
      if (typeof step === "function") {
        times[2 * i] = now();
        isWhole = await this.#perform(step, i, running);
        times[2 * i + 1] = now();
      } else {
        this.#owed.add(step);
      }
    }
    for (const buffer of [...this.#arrived.keys()]) this.#release(buffer);
    try {
      for (const buffer of [...this.#sending.keys()]) await this.#finish(buffer);
    } catch (error) {
      throw located(running.program, steps.length, error as Error);
    }
    return isWhole;
  }

  /** Carries out instruction `i`; false when it is a guard that ends the program. */
  async #perform(step: Step, i: number, running: Running): Promise<boolean> {
    const { key, program } = running;
    try {
      const mark = this.#options.onInstruction?.(key, i);
      if (mark !== undefined) await mark;
      const result = step();
      if (typeof result === "boolean") return result;
      if (result !== undefined) await ("poll" in result ? this.#wait(result, i, running) : result);
      return true;
    } catch (error) {
      throw located(program, i, error as Error);
    }
  }

  /** Carries out the owed updates that touch any of `memory`. */
  async #renew(memory: readonly TypedArray[], running: Running): Promise<void> {
    for (let update = this.#owed.take(memory); update !== undefined; update = this.#owed.take(memory))
      await this.#carryOut(update, running);
  }

  /** Waits for what instruction `i` has started, and does owed updates meanwhile; its time is what is left of the wait after them. */
  async #wait(transfer: Transfer, i: number, running: Running): Promise<void> {
    const { now, onInstruction, deadline } = this.#options;
    while (!(this.#owed.isEmpty || transfer.poll())) {
      await this.#carryOut(this.#owed.take() as LateUpdate, running);
      await onInstruction?.(running.key, i);
      running.times[2 * i] = now();
    }
    await transfer.wait(deadline);
  }

  /** Carries out an owed update; its times are those of the same update in the program under way. */
  async #carryOut(update: LateUpdate, running?: Running): Promise<void> {
    const { now, onInstruction } = this.#options;
    const start = now();
    try {
      await onInstruction?.(update.program, update.index);
      await update.run();
    } catch (error) {
      throw located((this.#loaded.get(update.program) as Loaded).program, update.index, error as Error);
    }
    const same = running?.steps.findIndex(
      (step) => "touches" in step && step.touches[0] === update.touches[0],
    );
    if (same !== undefined && same >= 0) running?.times.set([start, now()], 2 * same);
  }

  #prepare(
    instruction: Instruction,
    program: Program,
    buffers: readonly TensorBuffer[],
    kernels: readonly Kernel[],
    inlets: ReadonlyMap<number, Inlet>,
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
        const owner = program.buffers[buffer]?.view?.of ?? buffer;
        return () => {
          const transfer = this.#transport.send(to, tag, bytes, label);
          const others = this.#sending.get(owner);
          if (others === undefined) this.#sending.set(owner, [transfer]);
          else others.push(transfer);
          return undefined;
        };
      }
      case "receive": {
        const { buffer, from, tag } = instruction;
        const [bytes, label] = [bytesOf(of(buffer)), program.buffers[buffer]?.name];
        const inlet = inlets.get(buffer);
        if (inlet === undefined) return () => this.#transport.receive(from, tag, bytes, label);
        return () => {
          this.#arrived.set(buffer, inlet);
          return inlet.arrive(bytes.length, label);
        };
      }
      case "all-reduce":
      case "all-gather":
      case "reduce-scatter": {
        const group = this.#transport.group(instruction.group);
        return collectiveStarter(instruction, buffers, group, wholeOf(program, instruction).name);
      }
      case "guard": {
        const { data } = of(instruction.buffer);
        return () => Number.isFinite(Number(data[0]));
      }
      case "free":
        return () => {
          this.#release(instruction.buffer);
          return this.#sending.has(instruction.buffer) ? this.#finish(instruction.buffer) : undefined;
        };
      default:
        return instruction satisfies never;
    }
  }

  /**
   * The channels whose messages kernels can read where the sender wrote them, by the buffer that receives; a buffer that is rows of
   * another must be copied into place.
   */
  #directInlets(program: Program): ReadonlyMap<number, Inlet> {
    const inlets = new Map<number, Inlet>();
    for (const instruction of program.instructions) {
      if (instruction.kind !== "receive") continue;
      const { kind, view } = program.buffers[instruction.buffer] as BufferSpec;
      const inlet = this.#transport.inlet(instruction.from, instruction.tag);
      if (kind === "activation" && view === undefined && inlet.direct && inlet.slots === 1)
        inlets.set(instruction.buffer, inlet);
    }
    return inlets;
  }

  /** Gives the memory of a message back to its sender. */
  #release(buffer: number): void {
    const inlet = this.#arrived.get(buffer);
    if (inlet === undefined) return;
    this.#arrived.delete(buffer);
    inlet.release(0);
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
}

function located(program: Program, index: number, cause: Error): InstructionError {
  if (cause instanceof InstructionError) return cause;
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
