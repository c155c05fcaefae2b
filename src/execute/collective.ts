/**
 * The collectives as steps between points where all members meet. Long data travels in pieces through
 * staging memory; a piece is
 *
 *     load      copy the own contribution into the own staging piece
 *     ── meet ──
 *     combine   (all-reduce) reduce the own shard of the piece into member 0's staging
 *     ── meet ──
 *     store     copy the result out
 *
 * The next piece uses the other of two staging pieces, so a slow reader is never overwritten: nobody loads
 * piece p + 2 before all have met for p + 1, which each does after storing p. Reductions run in member order.
 * In the members' regions nothing is staged: shards are reduced, and parts are gathered, where they lie.
 */
import type { Numbers, Reduction } from "./transport.ts";

/** Kinds of collectives; those in place are the ones on regions. */
export const collectiveKinds = [
  "barrier",
  "broadcast",
  "all-reduce",
  "all-reduce in place",
  "reduce-scatter",
  "reduce-scatter in place",
  "all-gather",
  "all-gather in place",
  "all-to-all",
] as const;

export type CollectiveKind = (typeof collectiveKinds)[number];

/** What one call asks for; fields that a kind does not use keep their last value. */
export interface CollectiveCall {
  kind: CollectiveKind;
  data: Uint8Array;
  into: Uint8Array;
  values: Numbers;
  result: Numbers;
  /** Elements or bytes per member. */
  counts: readonly number[];
  /** Bytes by sender and receiver. */
  matrix: readonly (readonly number[])[];
  root: number;
  reduction: Reduction;
  /** Piece in work. */
  piece: number;
}

/** The shared memory of a group during one piece. */
export interface Workspace {
  readonly members: number;
  readonly index: number;
  /** Bytes of a staging piece. */
  readonly pieceBytes: number;
  /** A member's staging piece. */
  staging(member: number): Uint8Array;
  /** The same memory as numbers of the type of `like`. */
  stagingNumbers(member: number, like: Numbers): Numbers;
  /** The part of a member's region that lies where `values` lies in the own one. */
  regionNumbers(member: number, values: Numbers): Numbers;
  /** The same for bytes. */
  regionBytes(member: number, bytes: Uint8Array): Uint8Array;
  /** `into[at + i] = into[at + i] (+ or max) from[at + i]` for `count` elements of shared memory. */
  combine(reduction: Reduction, into: Numbers, from: Numbers, at: number, count: number): void;
}

/** How a kind is done. */
export interface Steps {
  pieces(call: CollectiveCall, space: Workspace): number;
  load?(call: CollectiveCall, space: Workspace): void;
  combine?(call: CollectiveCall, space: Workspace): void;
  store?(call: CollectiveCall, space: Workspace): void;
}

const cacheElements = 16 * 1024;

/** One entry per kind. */
export const collectiveSteps: { readonly [K in CollectiveKind]: Steps } = {
  barrier: { pieces: () => 1 },

  broadcast: {
    pieces: (call, space) => piecesOf(call.data.length, space.pieceBytes),
    load(call, space) {
      if (space.index !== call.root) return;
      const start = call.piece * space.pieceBytes;
      space.staging(call.root).set(part(call.data, start, start + space.pieceBytes));
    },
    store(call, space) {
      if (space.index === call.root) return;
      const start = call.piece * space.pieceBytes;
      const length = Math.min(space.pieceBytes, call.data.length - start);
      call.data.set(part(space.staging(call.root), 0, length), start);
    },
  },

  "all-reduce": {
    pieces: (call, space) => piecesOf(call.values.length, perPiece(call.values, space)),
    load(call, space) {
      const start = call.piece * perPiece(call.values, space);
      const end = start + perPiece(call.values, space);
      space.stagingNumbers(space.index, call.values).set(part(call.values, start, end));
    },
    combine(call, space) {
      const each = perPiece(call.values, space);
      const length = Math.min(each, call.values.length - call.piece * each);
      const first = shardStart(length, space.index, space.members);
      const count = shardStart(length, space.index + 1, space.members) - first;
      const into = space.stagingNumbers(0, call.values);
      for (let member = 1; member < space.members; member++) {
        const from = space.stagingNumbers(member, call.values);
        space.combine(call.reduction, into, from, first, count);
      }
    },
    store(call, space) {
      const each = perPiece(call.values, space);
      const start = call.piece * each;
      const length = Math.min(each, call.values.length - start);
      call.values.set(part(space.stagingNumbers(0, call.values), 0, length), start);
    },
  },

  "all-reduce in place": {
    pieces: () => 1,
    combine(call, space) {
      const { length } = call.values;
      const start = shardStart(length, space.index, space.members);
      const end = shardStart(length, space.index + 1, space.members);
      reduceRegions(call, space, start, end, (regions, from, to) => {
        const [first = call.values, ...others] = regions;
        const result = part(first, from, to);
        for (const other of others) other.set(result, from);
      });
    },
  },

  "reduce-scatter": {
    pieces: (call, space) => piecesOf(Math.max(...call.counts), perMember(call.values, space)),
    load(call, space) {
      const each = perMember(call.values, space);
      const staging = space.stagingNumbers(space.index, call.values);
      let offset = 0;
      for (let member = 0; member < space.members; member++) {
        const count = call.counts[member] ?? 0;
        const start = Math.min(count, call.piece * each);
        const end = Math.min(count, start + each);
        if (end > start) staging.set(part(call.values, offset + start, offset + end), member * each);
        offset += count;
      }
    },
    store(call, space) {
      const each = perMember(call.values, space);
      const start = call.piece * each;
      const count = Math.min(each, (call.counts[space.index] ?? 0) - start);
      if (count <= 0) return;
      const at = space.index * each;
      const into = space.stagingNumbers(0, call.values);
      for (let member = 1; member < space.members; member++) {
        space.combine(call.reduction, into, space.stagingNumbers(member, call.values), at, count);
      }
      call.result.set(part(into, at, at + count), start);
    },
  },

  "reduce-scatter in place": {
    pieces: () => 1,
    combine(call, space) {
      const start = sumBefore(call.counts, space.index);
      const end = start + (call.counts[space.index] ?? 0);
      reduceRegions(call, space, start, end, ([first = call.values], from, to) => {
        call.result.set(part(first, from, to), from - start);
      });
    },
  },

  "all-gather in place": {
    pieces: () => 1,
    load(call, space) {
      call.into.set(call.data, sumBefore(call.counts, space.index));
    },
    combine(call, space) {
      let start = 0;
      for (let member = 0; member < space.members; member++) {
        const end = start + (call.counts[member] ?? 0);
        if (member !== space.index && end > start)
          call.into.set(part(space.regionBytes(member, call.into), start, end), start);
        start = end;
      }
    },
  },

  "all-gather": {
    pieces: (call, space) => piecesOf(Math.max(...call.counts), space.pieceBytes),
    load(call, space) {
      const start = Math.min(call.data.length, call.piece * space.pieceBytes);
      space.staging(space.index).set(part(call.data, start, start + space.pieceBytes));
    },
    store(call, space) {
      const start = call.piece * space.pieceBytes;
      let offset = 0;
      for (let member = 0; member < space.members; member++) {
        const count = call.counts[member] ?? 0;
        const length = Math.min(space.pieceBytes, count - start);
        if (length > 0) call.into.set(part(space.staging(member), 0, length), offset + start);
        offset += count;
      }
    },
  },

  "all-to-all": {
    pieces: (call, space) => piecesOf(Math.max(...call.matrix.flat()), pairBytes(space)),
    load(call, space) {
      const each = pairBytes(space);
      const staging = space.staging(space.index);
      let offset = 0;
      for (let member = 0; member < space.members; member++) {
        const count = call.matrix[space.index]?.[member] ?? 0;
        const start = Math.min(count, call.piece * each);
        const end = Math.min(count, start + each);
        if (end > start) staging.set(part(call.data, offset + start, offset + end), member * each);
        offset += count;
      }
    },
    store(call, space) {
      const each = pairBytes(space);
      const at = space.index * each;
      const start = call.piece * each;
      let offset = 0;
      for (let member = 0; member < space.members; member++) {
        const count = call.matrix[member]?.[space.index] ?? 0;
        const length = Math.min(each, count - start);
        if (length > 0) call.into.set(part(space.staging(member), at, at + length), offset + start);
        offset += count;
      }
    },
  },
};

/** Reduces elements `start` to `end` of all regions into the first, stretch by stretch, each of which `store` gets while it is in the cache. */
function reduceRegions(
  call: CollectiveCall,
  space: Workspace,
  start: number,
  end: number,
  store: (regions: readonly Numbers[], from: number, to: number) => void,
): void {
  const regions = Array.from({ length: space.members }, (_, member) =>
    space.regionNumbers(member, call.values),
  );
  const [first, ...others] = regions;
  if (!first) return;
  for (let from = start; from < end; from += cacheElements) {
    const to = Math.min(end, from + cacheElements);
    for (const other of others) space.combine(call.reduction, first, other, from, to - from);
    store(regions, from, to);
  }
}

/** Where a member's part begins. */
function sumBefore(counts: readonly number[], member: number): number {
  return counts.slice(0, member).reduce((sum, count) => sum + count, 0);
}

/** Start of a member's shard of `length` elements; shards differ by at most 16 and start on cache lines. */
function shardStart(length: number, index: number, members: number): number {
  return index === members ? length : Math.floor((length * index) / members / 16) * 16;
}

/** At least one piece, so that an empty collective still is a meeting. */
function piecesOf(length: number, each: number): number {
  return Math.max(1, Math.ceil(length / each));
}

function perPiece(values: Numbers, space: Workspace): number {
  return Math.floor(space.pieceBytes / values.BYTES_PER_ELEMENT);
}

function perMember(values: Numbers, space: Workspace): number {
  return Math.floor(perPiece(values, space) / space.members);
}

function pairBytes(space: Workspace): number {
  return Math.floor(space.pieceBytes / space.members);
}

function part<A extends Numbers | Uint8Array>(array: A, start: number, end: number): A {
  if (start === 0 && end >= array.length) return array;
  return array.subarray(start, end) as A;
}
