/**
 * Adds stretches of float32 numbers that lie in one shared memory, four at a time. The only arithmetic that
 * the thread transport does itself: an all-reduce is bound by it, and plain loops add 0.3 to 1 numbers per
 * nanosecond where this adds 4 to 8 (see `bench/transport.ts`). Each sum is rounded once, as in a plain loop,
 * so results are the same bits.
 *
 *     memory  [ ... into (count floats) ... from (count floats) ... ]      into[i] += from[i]
 *
 * Reference: WebAssembly core specification 2.0, sections 5.4 (instructions) and 5.5 (modules).
 */

/** Memory of WebAssembly whose buffer is a SharedArrayBuffer; travels between threads as it is. */
export interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
}

/** Adds `count` floats at byte `from` to those at byte `into`; the stretches must not overlap. */
export type SharedAdd = (into: number, from: number, count: number) => void;

declare const WebAssembly: {
  readonly Memory: new (limits: { initial: number; maximum: number; shared: true }) => SharedMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { memory: { shared: SharedMemory } },
  ) => { readonly exports: { readonly add: (into: number, from: number, turns: number) => void } };
};

const pageBytes = 64 * 1024;
const vectorsPerTurn = 4;
const floatsPerTurn = 4 * vectorsPerTurn;

/** Shared memory of at least `bytes`, all zero; undefined where WebAssembly cannot have that much. */
export function allocateSharedMemory(bytes: number): SharedMemory | undefined {
  const pages = Math.ceil(bytes / pageBytes);
  if (pages > 65_535) return undefined;
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch {
    return undefined;
  }
}

/** The addition for one memory, for use in this thread. */
export function sharedAdd(memory: SharedMemory): SharedAdd {
  const module = new WebAssembly.Module(Uint8Array.from(addModule()));
  const { add } = new WebAssembly.Instance(module, { memory: { shared: memory } }).exports;
  const floats = new Float32Array(memory.buffer);
  return (into, from, count) => {
    const turns = Math.floor(count / floatsPerTurn);
    if (turns > 0) add(into, from, turns);
    for (let i = turns * floatsPerTurn; i < count; i++) {
      floats[into / 4 + i] = (floats[into / 4 + i] as number) + (floats[from / 4 + i] as number);
    }
  };
}

const i32 = 0x7f;
const getLocal = 0x20;
const teeLocal = 0x22;
const constant = 0x41;
const plus = 0x6a;
const minus = 0x6b;
const loop = 0x03;
const noResult = 0x40;
const branchIf = 0x0d;
const end = 0x0b;
const vector = 0xfd;
const load = [vector, 0x00];
const store = [vector, 0x0b];
const addFloats = [vector, 0xe4, 0x01];

/** Locals of the function: its parameters. */
const into = 0;
const from = 1;
const turns = 2;

/** The module: one imported memory, one function `add(into, from, turns)`, turns at least 1. */
function addModule(): readonly number[] {
  const header = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  const type = [0x60, ...vec([[i32], [i32], [i32]]), ...vec([])];
  const sharedLimits = [0x03, 1, ...unsigned(65_536)];
  const memory = [...text("memory"), ...text("shared"), 0x02, ...sharedLimits];
  const body = [0, ...addLoop(), end];
  return [
    ...header,
    ...section(1, vec([type])),
    ...section(2, vec([memory])),
    ...section(3, vec([[0]])),
    ...section(7, vec([[...text("add"), 0x00, 0]])),
    ...section(10, vec([[...unsigned(body.length), ...body]])),
  ];
}

/** do { four vectors: into += from; into, from += 64; } while (--turns) */
function addLoop(): readonly number[] {
  const vectors = Array.from({ length: vectorsPerTurn }, (_, i) => {
    const at = [0, 16 * i];
    const both = [getLocal, into, getLocal, into, ...load, ...at, getLocal, from, ...load, ...at];
    return [...both, ...addFloats, ...store, ...at];
  });
  // Signed LEB128 of 64 takes two bytes.
  const step = (local: number): readonly number[] => [
    getLocal,
    local,
    constant,
    0xc0,
    0,
    plus,
    teeLocal,
    local,
  ];
  const drop = 0x1a;
  const countDown = [getLocal, turns, constant, 1, minus, teeLocal, turns];
  return [
    loop,
    noResult,
    ...vectors.flat(),
    ...step(into),
    drop,
    ...step(from),
    drop,
    ...countDown,
    branchIf,
    0,
    end,
  ];
}

function section(id: number, content: readonly number[]): readonly number[] {
  return [id, ...unsigned(content.length), ...content];
}

function vec(items: readonly (readonly number[])[]): readonly number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function text(value: string): readonly number[] {
  return [...unsigned(value.length), ...new TextEncoder().encode(value)];
}

/** Unsigned LEB128. */
function unsigned(value: number): readonly number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...unsigned(Math.floor(value / 128))];
}
