/** Checks the groups of devices that add up tensors together: all of them do the same additions in the same order. */

import { showType } from "../graph/shape.ts";
import { faultAt, faultOf, type ProgramFault } from "./fault.ts";
import type { AllReduce, BufferSpec, Program } from "./program.ts";

/** Everything in which a device differs from the first one of its group; program i is that of device i. */
export function allReduceFaults(programs: readonly Program[]): ProgramFault[] {
  const groups = new Map<number, readonly number[]>();
  for (const { instruction } of programs.flatMap(allReducesOf))
    if (!groups.has(instruction.group)) groups.set(instruction.group, instruction.ranks);
  return [...groups].flatMap(([group, ranks]) => {
    const [first, ...others] = ranks;
    return others.flatMap((rank) =>
      differences(programs[first ?? 0] as Program, programs[rank] as Program, group),
    );
  });
}

interface PlacedAllReduce {
  readonly instruction: AllReduce;
  readonly at: number;
}

/** The all-reduces of a program in order, and where they stand. */
export function allReducesOf({ instructions }: Program): readonly PlacedAllReduce[] {
  return instructions.flatMap((instruction, at) =>
    instruction.kind === "all-reduce" ? [{ instruction, at }] : [],
  );
}

function differences(first: Program, other: Program, group: number): ProgramFault[] {
  const ofGroup = (program: Program) =>
    allReducesOf(program).filter(({ instruction }) => instruction.group === group);
  const [expected, got] = [ofGroup(first), ofGroup(other)];
  for (let n = 0; n < Math.max(expected.length, got.length); n++) {
    const [one, two] = [expected[n], got[n]];
    const says = one && describe(first, one.instruction);
    if (two === undefined)
      return [faultOf(other, `never adds up ${says}, for which device ${first.device} waits`)];
    const text = describe(other, two.instruction);
    if (says !== text)
      return [
        faultAt(
          other,
          two.at,
          `adds up ${text}, while device ${first.device} of its group adds up ${says ?? "nothing more"}`,
        ),
      ];
  }
  return [];
}

function describe({ buffers }: Program, { buffer, ranks }: AllReduce): string {
  const { name, type } = buffers[buffer] as BufferSpec;
  return `"${name}" (${showType(type)}) over devices ${ranks.join(", ")}`;
}

/** Names of the tensors that a program adds up with others. */
export function addedUp(program: Program): ReadonlySet<string> {
  return new Set(
    allReducesOf(program).flatMap(({ instruction }) => program.buffers[instruction.buffer]?.name ?? []),
  );
}
