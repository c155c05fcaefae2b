/** Where in a run something happened, in words. */

import type { Program } from "./program.ts";
import { describeInstruction } from "./table.ts";

/** "device 1, stage 1, item (0, 2), instruction 17 (B layer4 0.2)". */
export function locateInstruction(program: Program, index: number): string {
  const instruction = program.instructions[index];
  if (instruction === undefined) return `device ${program.device}, after its last instruction`;
  const stage = "stage" in instruction ? `, stage ${instruction.stage}` : "";
  const item = "item" in instruction ? instruction.item : undefined;
  const part = item === undefined ? "" : `, item (${item.microBatch}, ${item.chunk})`;
  return `device ${program.device}${stage}${part}, instruction ${index} (${describeInstruction(program, index)})`;
}
