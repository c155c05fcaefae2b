/**
 * Programs side by side, one column for each device. A receive stands below its send and a collective beside those of the other
 * members, so that the rows are a rough time:
 *
 *     device 0         device 1
 *     ---------------  ----------------
 *      0 F layer0 0.0
 *      1 send→1 #0
 *      3 F layer0 1.0   0 recv←0 #0
 *                       1 F layer1 0.0   <-- HERE
 *
 * `free` is left out where nothing is wrong with it.
 */

import { textTable } from "../base/text-table.ts";
import { type Instruction, isCollective, type Program } from "./program.ts";
import { bufferNames } from "./text.ts";

/** An instruction of a device; without `instruction` the device as a whole. */
export interface ProgramPlace {
  readonly device: number;
  readonly instruction?: number;
}

/** The table, with an arrow at every place in `faults`; `context` shows only the rows that near to an arrow. */
export function printTable(
  programs: readonly Program[],
  faults: readonly ProgramPlace[] = [],
  context: number = Number.POSITIVE_INFINITY,
): string {
  const marked = new Set(faults.map(({ device, instruction }) => `${device} ${instruction}`));
  const isMarked = (device: number, index: number) => marked.has(`${device} ${index}`);
  const shown = programs.map((program, device) =>
    [...program.instructions.keys()].filter(
      (index) => program.instructions[index]?.kind !== "free" || isMarked(device, index),
    ),
  );
  const rows = arrangeRows(programs, shown);
  const digits = String(Math.max(0, ...programs.map(({ instructions }) => instructions.length - 1))).length;
  const cells = rows.map((row) =>
    row.map((index, device) => {
      if (index === undefined) return "";
      const text = `${String(index).padStart(digits)} ${describeInstruction(programs[device] as Program, index)}`;
      return isMarked(device, index) ? `${text} <-- HERE` : text;
    }),
  );
  const near = rows.flatMap((row, r) =>
    row.some((index, device) => isMarked(device, index ?? -1)) ? [r] : [],
  );
  const columns = programs.map((_, device) => {
    const isGuilty = faults.some((fault) => fault.device === device && fault.instruction === undefined);
    return { header: `device ${device}${isGuilty ? " <-- HERE" : ""}` };
  });
  return textTable(columns, excerpt(cells, near, context));
}

/** An instruction in a few words: `F layer0 0.1`, `send→1 #4`. */
export function describeInstruction(program: Program, index: number): string {
  const instruction = program.instructions[index] as Instruction;
  const item =
    "item" in instruction && instruction.item !== undefined
      ? ` ${instruction.item.microBatch}.${instruction.item.chunk}`
      : "";
  switch (instruction.kind) {
    case "run":
      return `${instruction.phase} ${instruction.group}${item}`;
    case "send":
      return `send→${instruction.to} #${instruction.tag}${item}`;
    case "receive":
      return `recv←${instruction.from} #${instruction.tag}${item}`;
    case "all-reduce":
    case "all-gather":
    case "reduce-scatter": {
      const { kind, buffer } = instruction;
      const how = kind === "all-reduce" && instruction.reduce !== "sum" ? ` ${instruction.reduce}` : "";
      const whole = kind === "all-gather" ? instruction.into : buffer;
      return `${kind}${how} ${bufferNames(program.buffers)(whole)}${item}`;
    }
    case "free":
    case "guard":
      return `${instruction.kind} ${bufferNames(program.buffers)(instruction.buffer)}`;
    default:
      return instruction satisfies never;
  }
}

type Row = readonly (number | undefined)[];

/** For every row the instruction of each device. Where all devices wait for each other, they go on together. */
function arrangeRows(programs: readonly Program[], shown: readonly (readonly number[])[]): readonly Row[] {
  const next = programs.map(() => 0);
  const messages = new Map<string, number>();
  const count = (key: string, change: number): number => {
    messages.set(key, (messages.get(key) ?? 0) + change);
    return messages.get(key) ?? 0;
  };
  const rows: Row[] = [];
  const nextOf = (device: number): Instruction | undefined =>
    programs[device]?.instructions[shown[device]?.[next[device] ?? 0] ?? -1];
  const isReady = (device: number): boolean => {
    const instruction = nextOf(device);
    if (instruction === undefined) return false;
    if (isCollective(instruction))
      return instruction.ranks.every((rank) => {
        const other = nextOf(rank);
        return other !== undefined && isCollective(other) && other.group === instruction.group;
      });
    return instruction.kind !== "receive" || count(`${instruction.from} ${device} ${instruction.tag}`, 0) > 0;
  };
  for (;;) {
    const left = [...programs.keys()].filter(
      (device) => (next[device] as number) < (shown[device]?.length ?? 0),
    );
    if (left.length === 0) return rows;
    const ready = left.filter(isReady);
    const going = new Set(ready.length > 0 ? ready : left);
    const row = programs.map((_, device) =>
      going.has(device) ? shown[device]?.[next[device] as number] : undefined,
    );
    for (const device of going) {
      const instruction = programs[device]?.instructions[row[device] as number];
      if (instruction?.kind === "receive") count(`${instruction.from} ${device} ${instruction.tag}`, -1);
      if (instruction?.kind === "send") count(`${device} ${instruction.to} ${instruction.tag}`, 1);
      next[device] = (next[device] as number) + 1;
    }
    rows.push(row);
  }
}

/** The rows that are at most `context` away from one of `near`; all when there is none. Gaps become a row of dots. */
function excerpt(
  rows: readonly (readonly string[])[],
  near: readonly number[],
  context: number,
): readonly (readonly string[])[] {
  if (near.length === 0 || !Number.isFinite(context)) return rows;
  const isNear = rows.map(() => false);
  for (const row of near)
    for (let r = Math.max(0, row - context); r <= Math.min(rows.length - 1, row + context); r++)
      isNear[r] = true;
  return rows.flatMap((row, r) => {
    if (isNear[r]) return [row];
    return r === 0 || isNear[r - 1] ? [row.map(() => "...")] : [];
  });
}
