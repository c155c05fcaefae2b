/** Faults of programs and how their places are told. */

import type { Program } from "./program.ts";
import { describeInstruction } from "./table.ts";

/** One thing wrong with a device's program; without `instruction` the fault is in its declarations, or something is missing. */
export interface ProgramFault {
  readonly device: number;
  readonly instruction?: number;
  readonly message: string;
}

/** A fault of one instruction; its message begins with the place. */
export function faultAt(program: Program, instruction: number, message: string): ProgramFault {
  return {
    device: program.device,
    instruction,
    message: `device ${program.device}, ${placeOf(program, instruction)}: ${message}`,
  };
}

/** A fault of a program as a whole. */
export function faultOf({ device }: Program, message: string): ProgramFault {
  return { device, message: `device ${device}: ${message}` };
}

/** `instruction 11 (W layer0 0.0)`. */
export function placeOf(program: Program, instruction: number): string {
  return `instruction ${instruction} (${describeInstruction(program, instruction)})`;
}
