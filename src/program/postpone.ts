/**
 * Which updates of a program may come after its step: at the first use of what they renew in the next one, or while the device waits
 * there for a message. A device of a later stage has nothing else to do then; one of the first stage can start with its first layer.
 *
 *     step n      ... B W  norm | guard                 the step has ended: loss and norm are known
 *     step n+1    U0 F0 F0 wait U1 F1 ...               each update before the first use of its parameters
 */

import { sizeOf } from "../graph/shape.ts";
import { type Instruction, isPersistent, type Program, type Run, readsOf, writesOf } from "./program.ts";

/**
 * Indices of the instructions of U behind the guard that only renew what lasts, and that nothing else in the program comes after: no
 * device is sent, and no later instruction uses, what they write. What they read must last too, or be a gradient or one number.
 */
export function postponable(program: Program): ReadonlySet<number> {
  const { instructions } = program;
  const guard = instructions.findLastIndex(({ kind }) => kind === "guard");
  const found = new Set<number>();
  const [used, written] = [new Set<number>(), new Set<number>()];
  for (let index = instructions.length - 1; index > guard && guard >= 0; index--) {
    const instruction = instructions[index] as Instruction;
    const reads = readsOf(instruction).filter((id) => !isNumber(program, id));
    const writes = writesOf(instruction);
    const isFree = !writes.some((id) => used.has(id)) && !reads.some((id) => written.has(id));
    if (instruction.kind === "run" && isFree && isUpdate(program, instruction)) found.add(index);
    for (const id of [...reads, ...writes]) used.add(id);
    for (const id of writes) written.add(id);
  }
  return found;
}

/** What an instruction reads and writes of tensors that outlast it: what lasts, and gradients; of a view its owner. */
export function touchedBy({ buffers }: Program, instruction: Instruction): readonly number[] {
  const ownerOf = (id: number): number => {
    const of = buffers[id]?.view?.of;
    return of === undefined ? id : ownerOf(of);
  };
  const owners = new Set([...writesOf(instruction), ...readsOf(instruction)].map(ownerOf));
  return [...owners].filter((id) => {
    const kind = buffers[id]?.kind;
    return kind !== undefined && (isPersistent(kind) || kind === "gradient");
  });
}

/** Whether `id` is one number that is made anew in every step: it can be set aside. */
export function isNumber({ buffers }: Program, id: number): boolean {
  const spec = buffers[id];
  return (
    spec !== undefined &&
    sizeOf(spec.type.shape) === 1 &&
    !isPersistent(spec.kind) &&
    spec.kind !== "gradient"
  );
}

function isUpdate(program: Program, { phase, inputs, outputs }: Run): boolean {
  const lasts = (id: number): boolean => {
    const spec = program.buffers[id];
    return spec !== undefined && spec.view === undefined && isPersistent(spec.kind);
  };
  const stays = (id: number): boolean => {
    const spec = program.buffers[id];
    return (spec?.kind === "gradient" && spec.view === undefined) || spec?.kind === "constant";
  };
  return (
    phase === "U" &&
    outputs.every(lasts) &&
    inputs.every((id) => lasts(id) || stays(id) || isNumber(program, id))
  );
}
