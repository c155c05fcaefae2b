/**
 * Where activations lie: every device has one arena, and the offsets of all buffers in it are fixed before the run.
 *
 *     byte  │ ┌──────── %20[0.0] ────────┐
 *           │ ├─ %15[0.0] ─┤  ├─ %71[0.0] ─┤        a buffer lives from its first write to its `free`;
 *           │ ├──────────── %21[0.0] ──────┤          two that live at the same time do not overlap
 *           └──────────────────────────────── instruction
 *
 * This is dynamic storage allocation, which is NP-hard (Garey & Johnson 1979, SR2); two greedy rules are tried and the better one taken.
 */

import { bytesOfType } from "../graph/shape.ts";
import { type BufferKind, type Program, readsOf, writesOf } from "./program.ts";
import { bufferKinds } from "./text.ts";

/** Every buffer of the arena begins at a multiple of this many bytes. */
const arenaAlignment = 64;

export interface MemoryPlan {
  /** Byte offset in the arena of every activation that is ever written and is not a view; views follow their owner. */
  readonly offsets: ReadonlyMap<number, number>;
  readonly arenaBytes: number;
  /** Bytes of the buffers of each kind, views not counted; of activations, the arena. */
  readonly bytesByKind: { readonly [K in BufferKind]: number };
  /** All that the program needs at once: the arena and the buffers of all other kinds. */
  readonly peakBytes: number;
  /** Bytes of activations alive during each instruction, rounded up to the alignment each. */
  readonly liveBytes: readonly number[];
  /** The most of `liveBytes`: no arena can be smaller. */
  readonly lowerBound: number;
}

/** The memory of one program's buffers. An activation that is never freed lives to the end. */
export function planMemory(program: Program): MemoryPlan {
  const lives = livesOf(program);
  const scanned = scanWithBestFit(lives);
  const sorted = placeLargestFirst(lives);
  const best = sorted.bytes < scanned.bytes ? sorted : scanned;
  const liveBytes = liveOver(lives, program.instructions.length);
  const bytesByKind = { ...lastingBytes(program), activation: best.bytes };
  return {
    offsets: new Map(lives.map(({ buffer }, i) => [buffer, best.offsets[i] as number])),
    arenaBytes: best.bytes,
    bytesByKind,
    peakBytes: bufferKinds.reduce((sum, kind) => sum + bytesByKind[kind], 0),
    liveBytes,
    lowerBound: liveBytes.reduce((most, bytes) => Math.max(most, bytes), 0),
  };
}

/** A buffer of the arena: its bytes, rounded up, and the instructions from `start` up to but not including `end`. */
interface Life {
  readonly buffer: number;
  readonly bytes: number;
  readonly start: number;
  readonly end: number;
}

interface Placement {
  /** By position in the list of lives. */
  readonly offsets: readonly number[];
  readonly bytes: number;
}

/** In order of their first write. */
function livesOf({ buffers, instructions }: Program): readonly Life[] {
  const starts = new Map<number, number>();
  const ends = new Map<number, number>();
  instructions.forEach((instruction, at) => {
    for (const buffer of [...readsOf(instruction), ...writesOf(instruction)]) {
      const owner = buffers[buffer]?.view?.of ?? buffer;
      if (buffers[owner]?.kind === "activation" && !starts.has(owner)) starts.set(owner, at);
    }
    if (instruction.kind === "free") ends.set(instruction.buffer, at);
  });
  return [...starts].map(([buffer, start]) => ({
    buffer,
    bytes: roundUp(bytesOfType((buffers[buffer] as Program["buffers"][number]).type)),
    start,
    end: ends.get(buffer) ?? instructions.length,
  }));
}

function lastingBytes({ buffers }: Program): { readonly [K in BufferKind]: number } {
  const sum = (kind: BufferKind): number =>
    buffers.reduce(
      (bytes, spec) => bytes + (spec.kind === kind && spec.view === undefined ? bytesOfType(spec.type) : 0),
      0,
    );
  return Object.fromEntries(bufferKinds.map((kind) => [kind, sum(kind)])) as { [K in BufferKind]: number };
}

function liveOver(lives: readonly Life[], instructions: number): readonly number[] {
  const change = new Array<number>(instructions + 1).fill(0);
  for (const { bytes, start, end } of lives) {
    change[start] = (change[start] ?? 0) + bytes;
    change[end] = (change[end] ?? 0) - bytes;
  }
  let live = 0;
  return change.slice(0, instructions).map((difference) => {
    live += difference;
    return live;
  });
}

interface Block {
  readonly offset: number;
  readonly bytes: number;
}

/** Walks through time as an allocator would: each buffer takes the smallest hole that holds it, or the arena grows. */
function scanWithBestFit(lives: readonly Life[]): Placement {
  const ending = lives.map((_, i) => i).sort((a, b) => (lives[a]?.end ?? 0) - (lives[b]?.end ?? 0));
  const offsets: number[] = [];
  let holes: readonly Block[] = [];
  let bytes = 0;
  let ended = 0;
  for (const life of lives) {
    while (ended < ending.length) {
      const index = ending[ended] as number;
      const over = lives[index] as Life;
      if (over.end > life.start) break;
      holes = withHole(holes, { offset: offsets[index] as number, bytes: over.bytes });
      ended++;
    }
    const taken = bestHole(holes, life.bytes) ?? lastHole(holes, bytes);
    const offset = taken?.offset ?? bytes;
    bytes = Math.max(bytes, offset + life.bytes);
    offsets.push(offset);
    holes = holes.flatMap((hole) => (hole === taken ? remainder(hole, life.bytes) : [hole]));
  }
  return { offsets, bytes };
}

/** Holes in order of their offset, with one more; neighbours become one. */
function withHole(holes: readonly Block[], added: Block): readonly Block[] {
  const before = holes.filter(({ offset }) => offset < added.offset);
  const after = holes.slice(before.length);
  const [left, right] = [before.at(-1), after[0]];
  const joinsLeft = left !== undefined && left.offset + left.bytes === added.offset;
  const joinsRight = right !== undefined && added.offset + added.bytes === right.offset;
  const offset = joinsLeft ? left.offset : added.offset;
  const bytes = added.bytes + (joinsLeft ? left.bytes : 0) + (joinsRight ? right.bytes : 0);
  return [
    ...(joinsLeft ? before.slice(0, -1) : before),
    { offset, bytes },
    ...(joinsRight ? after.slice(1) : after),
  ];
}

function bestHole(holes: readonly Block[], bytes: number): Block | undefined {
  let best: Block | undefined;
  for (const hole of holes)
    if (hole.bytes >= bytes && (best === undefined || hole.bytes < best.bytes)) best = hole;
  return best;
}

/** The hole at the end of the arena, which can grow. */
function lastHole(holes: readonly Block[], arena: number): Block | undefined {
  const hole = holes.at(-1);
  return hole !== undefined && hole.offset + hole.bytes === arena ? hole : undefined;
}

function remainder(hole: Block, bytes: number): readonly Block[] {
  return hole.bytes > bytes ? [{ offset: hole.offset + bytes, bytes: hole.bytes - bytes }] : [];
}

/** Places the largest buffers first, each as low as those that live at the same time allow (Pisarchyk & Lee 2020). */
function placeLargestFirst(lives: readonly Life[]): Placement {
  const order = lives
    .map((_, i) => i)
    .sort((a, b) => (lives[b]?.bytes ?? 0) - (lives[a]?.bytes ?? 0) || a - b);
  const offsets = new Array<number>(lives.length).fill(0);
  /** Placed so far, in order of their offset. */
  const placed: number[] = [];
  let bytes = 0;
  for (const index of order) {
    const life = lives[index] as Life;
    let offset = 0;
    for (const other of placed) {
      const { start, end, bytes: size } = lives[other] as Life;
      const at = offsets[other] as number;
      if (start >= life.end || life.start >= end) continue;
      if (at >= offset + life.bytes) break;
      offset = Math.max(offset, at + size);
    }
    offsets[index] = offset;
    bytes = Math.max(bytes, offset + life.bytes);
    placed.splice(firstAbove(placed, offsets, offset), 0, index);
  }
  return { offsets, bytes };
}

/** Position of the first of `sorted` whose offset is larger. */
function firstAbove(sorted: readonly number[], offsets: readonly number[], offset: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((offsets[sorted[middle] as number] as number) > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / arenaAlignment) * arenaAlignment;
}
