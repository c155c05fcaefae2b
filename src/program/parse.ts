/** Reads the text form of programs, see text.ts. */

import { UserError } from "../base/errors.ts";
import { dtypes } from "../graph/dtype.ts";
import type { Graph, Phase } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { parseGraph } from "../graph/text.ts";
import type { BufferKind, BufferSpec, Collective, Feed, Instruction, ItemId, Program } from "./program.ts";
import { bufferKinds } from "./text.ts";

/** The programs that a text describes. Throws a `UserError` that names every line it cannot read. */
export function parsePrograms(text: string): readonly Program[] {
  const problems: string[] = [];
  const programs = cutSections(text, problems).map((section) => readProgram(section, problems));
  if (problems.length > 0) throw new UserError("cannot read these programs", problems);
  return programs;
}

interface Line {
  readonly number: number;
  readonly text: string;
}

/** The lines of one program; those of each kernel apart. */
interface Section {
  readonly device: number;
  readonly replica?: number;
  readonly lines: Line[];
  readonly kernels: string[][];
}

function cutSections(text: string, problems: string[]): readonly Section[] {
  const sections: Section[] = [];
  text.split("\n").forEach((line, index) => {
    if (line.trim() === "") return;
    const section = sections.at(-1);
    const program = /^program (\d+)(?: replica (\d+))?$/.exec(line);
    if (program) sections.push({ ...headerOf(program), lines: [], kernels: [] });
    else if (section === undefined) problems.push(`line ${index + 1}: expected "program 0", got "${line}"`);
    else if (line === `kernel k${section.kernels.length}`) section.kernels.push([]);
    else if (line.startsWith("    ") && section.kernels.length > 0) section.kernels.at(-1)?.push(line);
    else section.lines.push({ number: index + 1, text: line });
  });
  return sections;
}

function headerOf([, device, replica]: Parts): Pick<Section, "device" | "replica"> {
  return { device: Number(device), ...(replica !== undefined && { replica: Number(replica) }) };
}

function readProgram({ device, replica, lines, kernels }: Section, problems: string[]): Program {
  const buffers: BufferSpec[] = [];
  const feeds: Feed[] = [];
  const instructions: Instruction[] = [];
  const idOf = bufferIds(lines);
  for (const { number, text } of lines) {
    const parsed = readLine(text, idOf);
    if (parsed === undefined) problems.push(`line ${number}: ${text}`);
    else if ("type" in parsed) buffers.push(parsed);
    else if ("start" in parsed) feeds.push(parsed);
    else instructions.push(parsed);
  }
  const graphs = kernels.map((kernel, index) =>
    readKernel(kernel, `kernel k${index} of program ${device}`, problems),
  );
  const header = { device, ...(replica !== undefined && { replica }) };
  return { ...header, kernels: graphs, buffers, instructions, feeds };
}

function readKernel(lines: readonly string[], where: string, problems: string[]): Graph {
  try {
    return parseGraph(lines.join("\n"));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    problems.push(...error.problems.map((problem) => `${where}, ${problem}`));
    return { inputs: [], nodes: [], outputs: [], types: [] };
  }
}

/** From a reference to the number of the buffer: the number itself, or the place of the name among the `buffer` lines. */
function bufferIds(lines: readonly Line[]): (reference: string) => number {
  const ids = new Map<string, number>();
  const declared = lines.filter(({ text }) => text.startsWith("buffer "));
  declared.forEach(({ text }, id) => {
    ids.set(nameIn(text), id);
  });
  return (reference) => {
    const id = reference.startsWith("#") ? Number(reference.slice(1)) : ids.get(unquote(reference));
    if (id === undefined) throw new SyntaxError(`unknown buffer ${reference}`);
    return id;
  };
}

const quoted = '"(?:[^"\\\\]|\\\\.)*"';
const name = `(?:${quoted}|[\\w%.:@*=[\\]/+-]+)`;
const reference = `(?:${name}|#\\d+)`;
const list = `\\(((?:${reference}(?:, ${reference})*)?)\\)`;
const itemPart = "(?: item (\\d+)\\.(\\d+))?";
const blockPart = "(?: part \\[([\\d,]*)\\] size \\[([\\d,]*)\\] of \\[([\\d,]*)\\])?";
const wholes = "\\d+(?:,\\d+)*";
const meetingPart = ` group (\\d+) of (${wholes})(?: ([FBWU]))?${itemPart}`;
const lines = {
  buffer: new RegExp(
    `^buffer (${name}): (\\S+) (\\w+)(?: = (\\S+))?(?: rows (\\d+) of (${reference}))?${blockPart}$`,
  ),
  feed: new RegExp(`^feed (${reference}) = (${quoted}) from \\[([\\d,]*)\\]$`),
  run: new RegExp(
    `^run k(\\d+) ${list} -> ${list} ([FBWU]) stage (\\d+)(?: rank (\\d+))?${itemPart} @(${quoted}|[\\w.:/-]+)$`,
  ),
  message: new RegExp(`^(send|receive) (${reference}) (to|from) (\\d+) tag (\\d+)${itemPart}$`),
  allReduce: new RegExp(`^all-reduce (sum|max) (${reference})${meetingPart}$`),
  parted: new RegExp(
    `^(all-gather|reduce-scatter) (${reference}) into (${reference}) sizes (${wholes})${meetingPart}$`,
  ),
  other: new RegExp(`^(free|guard) (${reference})$`),
} as const;

type IdOf = (reference: string) => number;
type Parts = readonly string[];

/** What a line says; undefined where it cannot be read. */
function readLine(text: string, idOf: IdOf): BufferSpec | Feed | Instruction | undefined {
  const part = (pattern: RegExp): Parts | undefined => pattern.exec(text) ?? undefined;
  const [buffer, feed, run, message, allReduce, parted, other] = [
    part(lines.buffer),
    part(lines.feed),
    part(lines.run),
    part(lines.message),
    part(lines.allReduce),
    part(lines.parted),
    part(lines.other),
  ];
  try {
    if (buffer) return readBuffer(buffer, idOf);
    if (feed) return readFeed(feed, idOf);
    if (run) return readRun(run, idOf);
    if (message) return readMessage(message, idOf);
    if (allReduce) return readAllReduce(allReduce, idOf);
    if (parted) return readParted(parted, idOf);
    return other && { kind: other[1] as "free" | "guard", buffer: idOf(other[2] as string) };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function readAllReduce([, reduce, buffer = "", ...meeting]: Parts, idOf: IdOf): Instruction {
  return {
    kind: "all-reduce",
    reduce: reduce as "sum" | "max",
    buffer: idOf(buffer),
    ...readMeeting(meeting),
  };
}

function readParted(
  [, kind, buffer = "", into = "", sizes = "", ...meeting]: Parts,
  idOf: IdOf,
): Instruction {
  return {
    kind: kind as "all-gather" | "reduce-scatter",
    buffer: idOf(buffer),
    into: idOf(into),
    sizes: numbers(sizes),
    ...readMeeting(meeting),
  };
}

function readMeeting([group, ranks = "", phase, microBatch, chunk]: Parts): Pick<
  Collective,
  "group" | "ranks" | "phase" | "item"
> {
  return {
    group: Number(group),
    ranks: numbers(ranks),
    ...(phase !== undefined && { phase: phase as Phase }),
    ...readItem(microBatch, chunk),
  };
}

function readBuffer(
  [, named = "", shown = "", kind, value, row, of, start, size = "", whole = ""]: Parts,
  idOf: IdOf,
): BufferSpec | undefined {
  const type = readType(shown);
  if (type === undefined || !isBufferKind(kind)) return undefined;
  return {
    name: unquote(named),
    type,
    kind,
    ...(value !== undefined && { value: Number(value) }),
    ...(row !== undefined && of !== undefined && { view: { of: idOf(of), row: Number(row) } }),
    ...(start !== undefined && {
      block: { shape: numbers(whole), start: numbers(start), size: numbers(size) },
    }),
  };
}

function readFeed([, buffer = "", input = "", start = ""]: Parts, idOf: IdOf): Feed {
  return { buffer: idOf(buffer), input: unquote(input), start: numbers(start) };
}

function readRun(
  [, kernel, inputs = "", outputs = "", phase, stage, rank, ...rest]: Parts,
  idOf: IdOf,
): Instruction {
  const [microBatch, chunk, group = ""] = rest;
  const ids = (references: string) => (references.match(new RegExp(reference, "g")) ?? []).map(idOf);
  return {
    kind: "run",
    kernel: Number(kernel),
    inputs: ids(inputs),
    outputs: ids(outputs),
    phase: phase as Phase,
    stage: Number(stage),
    ...(rank !== undefined && { rank: Number(rank) }),
    group: unquote(group),
    ...readItem(microBatch, chunk),
  };
}

function readMessage(parts: Parts, idOf: IdOf): Instruction | undefined {
  const [, kind, buffer = "", direction, device, tag, microBatch, chunk] = parts;
  const message = { buffer: idOf(buffer), tag: Number(tag), ...readItem(microBatch, chunk) };
  if (kind === "send" && direction === "to") return { kind, ...message, to: Number(device) };
  if (kind === "receive" && direction === "from") return { kind, ...message, from: Number(device) };
  return undefined;
}

function readItem(microBatch: string | undefined, chunk: string | undefined): { readonly item?: ItemId } {
  return microBatch === undefined ? {} : { item: { microBatch: Number(microBatch), chunk: Number(chunk) } };
}

function readType(text: string): TensorType | undefined {
  const [, dtype, shape = ""] = /^(\w+)\[((?:\d+(?:,\d+)*)?)\]$/.exec(text) ?? [];
  const known = dtypes.find((candidate) => candidate === dtype);
  return known && { dtype: known, shape: numbers(shape) };
}

function numbers(text: string): number[] {
  return text === "" ? [] : text.split(",").map(Number);
}

function isBufferKind(word: string | undefined): word is BufferKind {
  return bufferKinds.some((kind) => kind === word);
}

function nameIn(line: string): string {
  return unquote(lines.buffer.exec(line)?.[1] ?? line);
}

function unquote(text: string): string {
  return text.startsWith('"') ? (JSON.parse(text) as string) : text;
}
