/** Where in a run something happened, in words. */

import { bytesOfType } from "../graph/shape.ts";
import { verbOf, wholeOf } from "./collectives.ts";
import { type BufferSpec, isCollective, type Program, type Run } from "./program.ts";
import { describeInstruction } from "./table.ts";

/**
 * `device 1, stage 1, item (0, 2), instruction 17 (B layer4 0.2)`. Stage and item of what is not a run itself are those of the run it
 * belongs to: a receive to the next one, everything else to the one before. U and work over several items have no item.
 */
export function locateInstruction(program: Program, index: number): string {
  const { instructions, device } = program;
  const instruction = instructions[index];
  if (instruction === undefined) return `device ${device}, after its last instruction`;
  const run = runAt(program, index);
  const item = "item" in instruction ? instruction.item : run?.item;
  const stage = run === undefined ? "" : `, stage ${run.stage}`;
  const part = item === undefined ? "" : `, item (${item.microBatch}, ${item.chunk})`;
  return `device ${device}${stage}${part}, instruction ${index} (${describeInstruction(program, index)})`;
}

/** `message "%7[0.1]" (4,096 B) from device 0`: what the device waits for at a receive; at a collective the other members; undefined at all other instructions. */
export function awaitedMessage(program: Program, index: number): string | undefined {
  const { device, instructions, buffers } = program;
  const instruction = instructions[index];
  if (instruction === undefined) return undefined;
  if (isCollective(instruction)) {
    const others = instruction.ranks.filter((rank) => rank !== device);
    const devices = `${others.length === 1 ? "device" : "devices"} ${others.join(", ")}`;
    return `${devices} to ${verbOf(instruction).base} "${wholeOf(program, instruction).name}"`;
  }
  if (instruction.kind !== "receive") return undefined;
  const { name, type } = buffers[instruction.buffer] as BufferSpec;
  return `message "${name}" (${bytesOfType(type).toLocaleString("en-US")} B) from device ${instruction.from}`;
}

function runAt({ instructions }: Program, index: number): Run | undefined {
  const isRun = ({ kind }: { readonly kind: string }) => kind === "run";
  const [before, after] = [instructions.slice(0, index + 1), instructions.slice(index)];
  const run =
    instructions[index]?.kind === "receive"
      ? (after.find(isRun) ?? before.findLast(isRun))
      : (before.findLast(isRun) ?? after.find(isRun));
  return run as Run | undefined;
}
