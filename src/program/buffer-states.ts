/**
 * Follows the buffers of one program through a step: what is written before it is read, by whom it may be written, what is freed and
 * when. Rows are followed apart, so that a buffer made of views is readable when all its rows are written.
 */

import { faultAt, faultOf, type ProgramFault, placeOf } from "./fault.ts";
import {
  type AllGather,
  type AllReduce,
  type BufferKind,
  type BufferSpec,
  type Instruction,
  isCollective,
  type Program,
  type ReduceScatter,
  type Run,
  readsOf,
  writesOf,
} from "./program.ts";

/** Everything wrong with the order of reads, writes and frees on one device. */
export function bufferFaults(program: Program): ProgramFault[] {
  const walk = new BufferWalk(program);
  return walk.faults;
}

/** Rows of an owner and the instruction that wrote them; feeds come before instruction 0. */
interface Written {
  readonly from: number;
  readonly to: number;
  readonly by: number;
}

/** Position of what is there before the first instruction. */
const fed = -1;

class BufferWalk {
  readonly faults: ProgramFault[] = [];
  readonly #program: Program;
  readonly #written = new Map<number, Written[]>();
  readonly #freed = new Map<number, number>();
  /** The first instruction that used a gradient after the backward pass. */
  readonly #used = new Map<number, number>();
  /** The rows of each owner that have been sent: they may still be under way. */
  readonly #sent = new Map<number, Written[]>();
  /** The first reduction in place of an owner, and by buffer and group. */
  readonly #reduced = new Map<number | string, number>();
  /** Owners that were read too early: one fault says it all. */
  readonly #excused = new Set<number>();
  #at = 0;

  constructor(program: Program) {
    this.#program = program;
    for (const { buffer, input } of program.feeds) {
      if (this.#spec(buffer).kind !== "data") continue;
      const { owner, from, to } = this.#rowsOf(buffer);
      if (this.#overlap(owner, from, to) !== undefined)
        this.faults.push(
          faultOf(program, `${this.#name(buffer)} is fed twice, the second time from "${input}"`),
        );
      this.#writtenOf(owner).push({ from, to, by: fed });
    }
    program.instructions.forEach((instruction, at) => {
      this.#at = at;
      if (instruction.kind === "run") this.#shared(instruction);
      if (instruction.kind === "all-gather" || instruction.kind === "reduce-scatter")
        this.#apart(instruction);
      for (const buffer of new Set(readsOf(instruction))) this.#read(buffer, instruction);
      for (const buffer of new Set(writesOf(instruction))) this.#write(buffer, instruction);
      if (instruction.kind === "free") this.#free(instruction.buffer);
    });
    for (const [owner, rows] of this.#written) {
      const last = rows.at(-1);
      if (this.#spec(owner).kind !== "activation" || this.#freed.has(owner) || last === undefined) continue;
      this.faults.push(faultAt(program, last.by, `${this.#name(owner)} is never freed`));
    }
  }

  #read(buffer: number, instruction: Instruction): void {
    const { owner, from, to } = this.#rowsOf(buffer);
    const freed = this.#freed.get(owner);
    if (freed !== undefined) this.#fault(`reads ${this.#name(buffer)}, which ${this.#place(freed)} freed`);
    else if (!isGiven(this.#spec(buffer).kind)) this.#readRows(buffer, owner, from, to);
    if (this.#spec(buffer).kind === "parameter") this.#readParameter(buffer, instruction);
    if (isLate(instruction) && !this.#used.has(owner)) this.#used.set(owner, this.#at);
    if (instruction.kind === "send")
      this.#sent.set(owner, [...(this.#sent.get(owner) ?? []), { from, to, by: this.#at }]);
  }

  #readRows(buffer: number, owner: number, from: number, to: number): void {
    const missing = firstGap(this.#written.get(owner) ?? [], from, to);
    if (missing === undefined || this.#excused.has(owner)) return;
    this.#excused.add(owner);
    const name = this.#name(buffer);
    if (this.#spec(buffer).kind === "data") this.#fault(`reads ${name}, which no feed fills`);
    else if (missing > from)
      this.#fault(
        `reads ${name}, of which row ${missing - from} is not written yet${this.#laterWrite(owner, missing)}`,
      );
    else this.#fault(`reads ${name} before it is written${this.#laterWrite(owner, missing)}`);
  }

  /** A parameter is read as it was before the step, and sent as it is after it. */
  #readParameter(buffer: number, instruction: Instruction): void {
    const update = this.#written.get(buffer)?.[0]?.by;
    if (instruction.kind === "send" && update === undefined)
      this.#fault(`sends parameter ${this.#name(buffer)} before its update`);
    if (instruction.kind === "all-gather" && update === undefined)
      this.#fault(`gathers parameter ${this.#name(buffer)} before its update`);
    if (instruction.kind === "run" && update !== undefined)
      this.#fault(`uses parameter ${this.#name(buffer)} after its update by ${this.#place(update)}`);
  }

  #write(buffer: number, instruction: Instruction): void {
    const { kind } = this.#spec(buffer);
    const { owner, from, to } = this.#rowsOf(buffer);
    const name = this.#name(buffer);
    const freed = this.#freed.get(owner);
    if (!mayWrite(kind, instruction)) this.#fault(`writes ${name}, but ${kind} ${writers[kind]}`);
    else if (freed !== undefined) this.#fault(`writes ${name}, which ${this.#place(freed)} freed`);
    else this.#writeAgain(buffer, instruction, this.#overlap(owner, from, to));
    this.#writtenOf(owner).push({ from, to, by: this.#at });
    if (instruction.kind === "all-reduce") this.#reduce(owner, instruction);
  }

  /** In place: a second sum of one group would count everything once for each device. */
  #reduce(owner: number, { buffer, group }: AllReduce): void {
    const key = `${buffer} of ${group}`;
    const before = this.#reduced.get(key);
    if (before !== undefined)
      this.#fault(`reduces ${this.#name(buffer)} again, which ${this.#place(before)} has done`);
    this.#reduced.set(key, this.#at);
    if (!this.#reduced.has(owner)) this.#reduced.set(owner, this.#at);
  }

  #writeAgain(buffer: number, instruction: Instruction, earlier: Written | undefined): void {
    if (earlier === undefined) return;
    const { kind } = this.#spec(buffer);
    const [name, before] = [this.#name(buffer), this.#place(earlier.by)];
    if (kind === "gradient" || kind === "result") this.#addTo(buffer, instruction, before);
    else if (kind === "activation" && instruction.kind === "all-reduce") this.#changeInPlace(buffer);
    else if (kind !== "statistic") this.#fault(`writes ${name}, which ${before} has written already`);
  }

  /** What accumulates is added to until it is reduced over devices or used. */
  #addTo(buffer: number, instruction: Instruction, before: string): void {
    const { kind } = this.#spec(buffer);
    const { owner } = this.#rowsOf(buffer);
    const [used, reduced] = [this.#used.get(owner), this.#reduced.get(owner)];
    const name = this.#name(buffer);
    if (kind === "gradient" && used !== undefined)
      this.#fault(`changes gradient ${name} after ${this.#place(used)} used it`);
    else if (reduced !== undefined && instruction.kind !== "all-reduce")
      this.#fault(`changes ${name} after ${this.#place(reduced)} reduced it over its devices`);
    else if (!readsOf(instruction).includes(buffer))
      this.#fault(`overwrites ${name}, expected to add to what ${before} left there`);
  }

  #changeInPlace(buffer: number): void {
    const { owner, from, to } = this.#rowsOf(buffer);
    const sent = this.#sent.get(owner)?.find((rows) => rows.from < to && from < rows.to);
    if (sent !== undefined)
      this.#fault(
        `changes ${this.#name(buffer)} in place, which ${this.#place(sent.by)} may still be sending`,
      );
  }

  #free(buffer: number): void {
    const { kind, view } = this.#spec(buffer);
    const name = this.#name(buffer);
    const freed = this.#freed.get(buffer);
    if (kind !== "activation") this.#fault(`frees ${name}, but only activations are freed, this is ${kind}`);
    else if (view !== undefined) this.#fault(`frees ${name}, expected its owner ${this.#name(view.of)}`);
    else if (freed !== undefined) this.#fault(`frees ${name}, which ${this.#place(freed)} has freed already`);
    else if (!(this.#written.has(buffer) || this.#excused.has(buffer)))
      this.#fault(`frees ${name}, which was never written`);
    if (freed === undefined && view === undefined && kind === "activation") this.#freed.set(buffer, this.#at);
  }

  /** Outputs share no memory with each other, and with inputs only where a buffer that lasts is renewed as a whole. */
  #shared({ inputs, outputs }: Run): void {
    outputs.forEach((output, i) => {
      const isActivation = this.#spec(output).kind === "activation";
      const others = [...outputs.slice(0, i), ...inputs.filter((input) => input !== output || isActivation)];
      for (const other of new Set(others.filter((buffer) => this.#sharesMemory(output, buffer))))
        this.#fault(`output ${this.#name(output)} shares memory with ${this.#name(other)} of the same run`);
    });
  }

  /** Parts and wholes of a collective lie apart. */
  #apart({ buffer, into }: AllGather | ReduceScatter): void {
    if (this.#sharesMemory(buffer, into))
      this.#fault(`makes ${this.#name(into)} of ${this.#name(buffer)}, with which it shares memory`);
  }

  #sharesMemory(a: number, b: number): boolean {
    const [one, two] = [this.#rowsOf(a), this.#rowsOf(b)];
    return one.owner === two.owner && one.from < two.to && two.from < one.to;
  }

  #rowsOf(buffer: number): { readonly owner: number; readonly from: number; readonly to: number } {
    const { type, view } = this.#spec(buffer);
    const rows = type.shape[0] ?? 1;
    return { owner: view?.of ?? buffer, from: view?.row ?? 0, to: (view?.row ?? 0) + rows };
  }

  #overlap(owner: number, from: number, to: number): Written | undefined {
    return this.#written.get(owner)?.findLast((rows) => rows.from < to && from < rows.to);
  }

  #writtenOf(owner: number): Written[] {
    const written = this.#written.get(owner) ?? [];
    this.#written.set(owner, written);
    return written;
  }

  /** Where the missing row is written after all. */
  #laterWrite(owner: number, row: number): string {
    const { instructions } = this.#program;
    const later = instructions.findIndex(
      (instruction, at) =>
        at > this.#at &&
        writesOf(instruction).some((buffer) => {
          const rows = this.#rowsOf(buffer);
          return rows.owner === owner && rows.from <= row && row < rows.to;
        }),
    );
    return later < 0 ? " (it never is)" : ` by ${this.#place(later)}`;
  }

  #spec(buffer: number): BufferSpec {
    return this.#program.buffers[buffer] as BufferSpec;
  }

  #name(buffer: number): string {
    return `"${this.#spec(buffer).name}"`;
  }

  #place(instruction: number): string {
    return instruction === fed ? "a feed" : placeOf(this.#program, instruction);
  }

  #fault(message: string): void {
    this.faults.push(faultAt(this.#program, this.#at, message));
  }
}

/** Kinds that hold something before the first instruction without a feed. */
function isGiven(kind: BufferKind): boolean {
  return (
    kind === "parameter" ||
    kind === "optimizer" ||
    kind === "statistic" ||
    kind === "scalar" ||
    kind === "constant"
  );
}

/** Who may write a kind of buffer, as messages say it. */
const writers: { readonly [K in BufferKind]: string } = {
  parameter: "is written by U, receives and all-gathers only",
  optimizer: "is written by U only",
  statistic: "is written by F only",
  gradient: "is written by B, W, receives and collectives only",
  result: "is written by F, B, U and collectives only",
  data: "is never written by instructions",
  scalar: "is never written by instructions",
  constant: "is never written by instructions",
  activation: "may be written by all",
};

function mayWrite(kind: BufferKind, instruction: Instruction): boolean {
  const phase = instruction.kind === "run" ? instruction.phase : instruction.kind;
  switch (kind) {
    case "parameter":
      return phase === "U" || phase === "receive" || phase === "all-gather";
    case "optimizer":
      return phase === "U";
    case "statistic":
      return phase === "F";
    case "gradient":
      return phase === "B" || phase === "W" || phase === "receive" || isCollective(instruction);
    case "result":
      return phase === "F" || phase === "B" || phase === "U" || isCollective(instruction);
    case "data":
    case "scalar":
    case "constant":
      return false;
    case "activation":
      return true;
    default:
      return kind satisfies never;
  }
}

/** Whether an instruction takes a gradient as it will stay. */
function isLate(instruction: Instruction): boolean {
  const { kind } = instruction;
  if (kind === "run") return instruction.phase === "U";
  return kind === "send" || kind === "all-gather" || kind === "reduce-scatter";
}

/** The first row of [from, to) that no range covers. */
function firstGap(written: readonly Written[], from: number, to: number): number | undefined {
  let next = from;
  for (const rows of written.toSorted((a, b) => a.from - b.from))
    if (rows.from <= next) next = Math.max(next, rows.to);
  return next < to ? next : undefined;
}
