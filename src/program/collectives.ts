/**
 * Checks the meetings of groups of devices: all members come to the same meetings in the same order.
 *
 *     device 0 | group 0: sum of grad:a | group 0: sum of grad:b |
 *     device 1 | group 0: sum of grad:a | group 0: sum of grad:b |      the nth of a group is the same on all its members
 */

import { bytesOfType, showType, sizeOf } from "../graph/shape.ts";
import { faultAt, faultOf, type ProgramFault } from "./fault.ts";
import { type BufferSpec, type Collective, isCollective, type Program } from "./program.ts";

/** A collective and its place in the program. */
export interface PlacedCollective {
  readonly instruction: Collective;
  readonly at: number;
}

/** The collectives of a program in order; with `group`, only those of that group. */
export function collectivesOf({ instructions }: Program, group?: number): readonly PlacedCollective[] {
  return instructions.flatMap((instruction, at) =>
    isCollective(instruction) && (group === undefined || instruction.group === group)
      ? [{ instruction, at }]
      : [],
  );
}

/** The devices of every group, by its number, as the first program that names it gives them. */
export function groupRanks(programs: readonly Program[]): ReadonlyMap<number, readonly number[]> {
  const groups = new Map<number, readonly number[]>();
  for (const { instruction } of programs.flatMap((program) => collectivesOf(program)))
    if (!groups.has(instruction.group)) groups.set(instruction.group, instruction.ranks);
  return groups;
}

/** The buffer that holds what all devices bring or take together: `into` of an all-gather, else the buffer that is reduced. */
export function wholeOf({ buffers }: Program, instruction: Collective): BufferSpec {
  const whole = instruction.kind === "all-gather" ? instruction.into : instruction.buffer;
  return buffers[whole] as BufferSpec;
}

/** Bytes of the whole tensor of a collective, the same on all members. */
export function bytesOfCollective(program: Program, instruction: Collective): number {
  return bytesOfType(wholeOf(program, instruction).type);
}

/** The bytes that each of some devices sends in a collective of so many bytes. */
export function sentBytes(kind: Collective["kind"], bytes: number, devices: number): number {
  const rounds = kind === "all-reduce" ? 2 : 1;
  return (rounds * bytes * (devices - 1)) / devices;
}

/** What the members do, in words: "to add up" and "adds up". */
export function verbOf(instruction: Collective): { readonly base: string; readonly third: string } {
  switch (instruction.kind) {
    case "all-reduce":
      return instruction.reduce === "sum"
        ? { base: "add up", third: "adds up" }
        : { base: "take the maximum of", third: "takes the maximum of" };
    case "all-gather":
      return { base: "gather", third: "gathers" };
    case "reduce-scatter":
      return { base: "add up and deal out", third: "adds up and deals out" };
    default:
      return instruction satisfies never;
  }
}

/** Everything in which a device differs from the first one of its group; program i is that of device i. */
export function collectiveFaults(programs: readonly Program[]): ProgramFault[] {
  return [...groupRanks(programs)].flatMap(([group, ranks]) => {
    const strays = programs.flatMap((program) => otherRanks(program, group, ranks));
    if (strays.length > 0) return strays;
    const [first, ...others] = ranks;
    return others.flatMap((rank) =>
      differences(programs[first ?? 0] as Program, programs[rank] as Program, group),
    );
  });
}

/** One number names one list of devices. */
function otherRanks(program: Program, group: number, ranks: readonly number[]): ProgramFault[] {
  const stray = collectivesOf(program, group).find(
    ({ instruction }) => instruction.ranks.join() !== ranks.join(),
  );
  if (stray === undefined) return [];
  const message = `calls devices ${stray.instruction.ranks.join(", ")} group ${group}, which elsewhere is devices ${ranks.join(", ")}`;
  return [faultAt(program, stray.at, message)];
}

function differences(first: Program, other: Program, group: number): ProgramFault[] {
  const [expected, got] = [collectivesOf(first, group), collectivesOf(other, group)];
  for (let n = 0; n < Math.max(expected.length, got.length); n++) {
    const [one, two] = [expected[n], got[n]];
    const [says, text] = [one && describe(first, one.instruction), two && describe(other, two.instruction)];
    if (two === undefined) return [faultOf(other, `never ${says}, for which device ${first.device} waits`)];
    if (one !== undefined && sameness(first, one.instruction) === sameness(other, two.instruction)) continue;
    const instead = says ?? "comes to no more meetings";
    return [faultAt(other, two.at, `${text}, while device ${first.device} of its group ${instead}`)];
  }
  return [];
}

/** `adds up "grad:w" (f32[2]) over devices 0, 1`. */
function describe(program: Program, instruction: Collective): string {
  const { name, type } = wholeOf(program, instruction);
  const { ranks, phase, item } = instruction;
  const parts =
    instruction.kind === "all-reduce" ? "" : ` in parts of ${instruction.sizes.join(", ")} elements`;
  const during = phase === undefined ? "" : ` in ${phase}`;
  const of = item === undefined ? "" : ` of item ${item.microBatch}.${item.chunk}`;
  return `${verbOf(instruction).third} "${name}" (${showType(type)})${during}${of}${parts} over devices ${ranks.join(", ")}`;
}

/** What must be the same on all members. Activations may have names of their own on each device, what lasts has the same everywhere. */
function sameness(program: Program, instruction: Collective): string {
  const { name, type, kind } = wholeOf(program, instruction);
  const { phase, item } = instruction;
  const extent =
    instruction.kind === "all-reduce" ? showType(type) : `${sizeOf(type.shape)} ${instruction.sizes}`;
  return JSON.stringify([
    verbOf(instruction).base,
    kind === "activation" ? "" : name,
    type.dtype,
    extent,
    phase,
    item?.microBatch,
    item?.chunk,
  ]);
}
