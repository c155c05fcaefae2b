/** Updates that a device has not carried out yet, because nobody has needed what they renew (`program/postpone.ts`). */

import type { TypedArray } from "../graph/dtype.ts";
import { isNumber, touchedBy } from "../program/postpone.ts";
import type { Instruction, Program, Run } from "../program/program.ts";
import { copy, type Kernel, type TensorBuffer } from "./engine.ts";

/** An instruction of U that can be carried out after its step. */
export interface LateUpdate {
  /** Key of its program, and its index there. */
  readonly program: string;
  readonly index: number;
  /** Of what it reads and writes the memory that outlasts the step. */
  readonly touches: readonly TypedArray[];
  /** Keeps the numbers that the step has made for it. */
  setAside(): void;
  run(): void | Promise<void>;
}

/** Instruction `index` of the program `key`, which can wait, bound to its buffers, but to numbers of its own. */
export function lateUpdate(
  key: string,
  index: number,
  program: Program,
  buffers: readonly TensorBuffer[],
  kernels: readonly Kernel[],
): LateUpdate {
  const run = program.instructions[index] as Run;
  const kept = new Map(
    run.inputs.filter((id) => isNumber(program, id)).map((id) => [id, copyOf(buffers[id] as TensorBuffer)]),
  );
  const of = (id: number) => kept.get(id) ?? (buffers[id] as TensorBuffer);
  const bound = (kernels[run.kernel] as Kernel).bind(run.inputs.map(of), run.outputs.map(of));
  return {
    program: key,
    index,
    touches: touchedMemory(program, run, buffers),
    setAside: () => {
      for (const [id, { data }] of kept) copy((buffers[id] as TensorBuffer).data, data);
    },
    run: () => bound.run(),
  };
}

/** The memory that an instruction touches and that outlasts the step. */
export function touchedMemory(
  program: Program,
  instruction: Instruction,
  buffers: readonly TensorBuffer[],
): readonly TypedArray[] {
  return touchedBy(program, instruction).map((id) => (buffers[id] as TensorBuffer).data);
}

export class OwedUpdates {
  readonly #owed = new Set<LateUpdate>();

  get isEmpty(): boolean {
    return this.#owed.size === 0;
  }

  add(update: LateUpdate): void {
    update.setAside();
    this.#owed.add(update);
  }

  /** Takes out the oldest, or the oldest that touches any of `memory`. */
  take(memory?: readonly TypedArray[]): LateUpdate | undefined {
    for (const update of this.#owed) {
      if (memory !== undefined && !update.touches.some((data) => memory.includes(data))) continue;
      this.#owed.delete(update);
      return update;
    }
    return undefined;
  }
}

function copyOf({ type, data }: TensorBuffer): TensorBuffer {
  return { type, data: data.slice() };
}
