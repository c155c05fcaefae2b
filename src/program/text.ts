/**
 * The text form of programs, made to be read in a review; `parsePrograms` (parse.ts) gives the same programs back.
 *
 *     program 0
 *     buffer tokens[0.0]: i32[2,2] data
 *     buffer %15[0.0]: f32[2,2,3] activation
 *     buffer %94[0.1]: f32[2,2,3] activation rows 2 of %94[*]
 *     buffer decode.weight: f32[3,4] parameter part [0,4] size [3,4] of [3,8]
 *     buffer "zero f32[2,3]": f32[2,3] constant = 0
 *     feed tokens[0.0] = "tokens" from [0,0]
 *     run k0 (embed.table, tokens[0.0]) -> (%15[0.0]) F stage 0 item 0.0 @embed
 *     send %15[0.0] to 1 tag 4 item 0.0
 *     all-reduce max %31[0.0] group 0 of 0,1 F item 0.0
 *     all-gather %33[0.0] into %34[0.0] sizes 6,3 group 0 of 0,1 F item 0.0
 *     reduce-scatter %40[0.0] into %41[0.0] sizes 6,3 group 0 of 0,1 B item 0.0
 *     all-reduce sum grad:w group 1 of 0,2
 *     free %15[0.0]
 *     kernel k0
 *         ... the graph ...
 *
 * A buffer that cannot be told by its name alone is written by its number, `#7`.
 */

import type { Graph } from "../graph/graph.ts";
import { showType } from "../graph/shape.ts";
import { printGraph } from "../graph/text.ts";
import type { BufferKind, BufferSpec, Collective, Feed, Instruction, ItemId, Program } from "./program.ts";

/** Every kind of buffer, as the text spells them. */
export const bufferKinds: readonly BufferKind[] = [
  "parameter",
  "optimizer",
  "statistic",
  "gradient",
  "result",
  "data",
  "scalar",
  "constant",
  "activation",
];

/** The programs of all devices, one after another. */
export function printPrograms(programs: readonly Program[]): string {
  return programs.map(printProgram).join("\n");
}

/** One program, with everything that it says: buffers, feeds, instructions in order, kernels. */
export function printProgram(program: Program): string {
  const nameOf = bufferNames(program.buffers);
  const lines = [
    `program ${program.device}${program.replica === undefined ? "" : ` replica ${program.replica}`}`,
    ...program.buffers.map((spec) => printBuffer(spec, nameOf)),
    ...program.feeds.map((feed) => printFeed(feed, nameOf)),
    ...program.instructions.map((instruction) => printInstruction(instruction, nameOf)),
    ...program.kernels.flatMap(printKernel),
  ];
  return `${lines.join("\n")}\n`;
}

/** How a buffer is named in the text: as it is called where that is unique, else by its number. */
export function bufferNames(buffers: readonly BufferSpec[]): (buffer: number) => string {
  const counts = new Map<string, number>();
  for (const { name } of buffers) counts.set(name, (counts.get(name) ?? 0) + 1);
  return (buffer) => {
    const name = buffers[buffer]?.name;
    return name !== undefined && counts.get(name) === 1 ? quoteName(name) : `#${buffer}`;
  };
}

/** One instruction as a line of the text. */
function printInstruction(instruction: Instruction, nameOf: (buffer: number) => string): string {
  switch (instruction.kind) {
    case "run": {
      const { kernel, inputs, outputs, phase, stage, rank, group, item } = instruction;
      const place = `stage ${stage}${rank === undefined ? "" : ` rank ${rank}`}`;
      const list = (buffers: readonly number[]) => `(${buffers.map(nameOf).join(", ")})`;
      return `run k${kernel} ${list(inputs)} -> ${list(outputs)} ${phase} ${place}${printItem(item)} @${quoteWord(group)}`;
    }
    case "send":
      return `send ${nameOf(instruction.buffer)} to ${instruction.to} tag ${instruction.tag}${printItem(instruction.item)}`;
    case "receive":
      return `receive ${nameOf(instruction.buffer)} from ${instruction.from} tag ${instruction.tag}${printItem(instruction.item)}`;
    case "all-reduce":
      return `all-reduce ${instruction.reduce} ${nameOf(instruction.buffer)}${printMeeting(instruction)}`;
    case "all-gather":
    case "reduce-scatter": {
      const { kind, buffer, into, sizes } = instruction;
      return `${kind} ${nameOf(buffer)} into ${nameOf(into)} sizes ${sizes.join(",")}${printMeeting(instruction)}`;
    }
    case "free":
    case "guard":
      return `${instruction.kind} ${nameOf(instruction.buffer)}`;
    default:
      return instruction satisfies never;
  }
}

function printBuffer(spec: BufferSpec, nameOf: (buffer: number) => string): string {
  const { name, type, kind, value, view, block } = spec;
  const filled = value === undefined ? "" : ` = ${Object.is(value, -0) ? "-0" : value}`;
  const rows = view === undefined ? "" : ` rows ${view.row} of ${nameOf(view.of)}`;
  const part = block === undefined ? "" : ` part [${block.start}] size [${block.size}] of [${block.shape}]`;
  return `buffer ${quoteName(name)}: ${showType(type)} ${kind}${filled}${rows}${part}`;
}

function printFeed({ buffer, input, start }: Feed, nameOf: (buffer: number) => string): string {
  return `feed ${nameOf(buffer)} = ${JSON.stringify(input)} from [${start.join(",")}]`;
}

function printItem(item: ItemId | undefined): string {
  return item === undefined ? "" : ` item ${item.microBatch}.${item.chunk}`;
}

function printMeeting({ group, ranks, phase, item }: Collective): string {
  const inPhase = phase === undefined ? "" : ` ${phase}`;
  return ` group ${group} of ${ranks.join(",")}${inPhase}${printItem(item)}`;
}

function printKernel(kernel: Graph, index: number): string[] {
  const lines = printGraph(kernel).split("\n");
  return [`kernel k${index}`, ...lines.filter((line) => line !== "").map((line) => `    ${line}`)];
}

/** Names of values, items and parameters stay bare; `#` is kept for numbers. */
function quoteName(name: string): string {
  return /^[\w%.:@*=[\]/+-]+$/.test(name) ? name : JSON.stringify(name);
}

function quoteWord(word: string): string {
  return /^[\w.:/-]+$/.test(word) ? word : JSON.stringify(word);
}
