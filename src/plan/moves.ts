/**
 * What moves between devices in one step, read from their programs: every meeting and every message, with the layer that made what is
 * moved.
 *
 *     all-reduce       of S bytes over n devices     each device sends 2·S·(n-1)/n
 *     all-gather       to S bytes                    each device sends S·(n-1)/n
 *     reduce-scatter   of S bytes                    each device sends S·(n-1)/n
 *     message          of S bytes                    the sender sends S
 *
 * These are the fewest bytes with which a collective can be done: Patarasu and Yuan 2009, "Bandwidth Optimal All-reduce Algorithms for
 * Clusters of Workstations". Memory that devices share needs no more.
 */

import type { Phase } from "../graph/graph.ts";
import { bytesOfType } from "../graph/shape.ts";
import { bytesOfCollective, sentBytes } from "../program/collectives.ts";
import {
  type BufferSpec,
  type Instruction,
  isCollective,
  type Program,
  type Run,
} from "../program/program.ts";

export type MoveKind = "all-reduce" | "all-gather" | "reduce-scatter" | "message";

/** What one device moves in one step, of one kind, in one phase. */
export interface Move {
  /** `sum`: gradients and the loss, added up over all items, before the update. */
  readonly phase: Phase | "sum";
  readonly kind: MoveKind;
  readonly device: string;
  readonly count: number;
  /** Of the whole tensors that are reduced or gathered; of messages that the device sends. */
  readonly bytes: number;
  /** The bytes of them that leave the device. */
  readonly sent: number;
}

export interface GroupMove extends Move {
  /** The group that made what is moved. */
  readonly group: string;
}

/** Everything that a device sends and every meeting that it comes to, in order; `device` is its name. */
export function movesOf(program: Program, device: string): readonly GroupMove[] {
  const makers = new Map<number, Run>();
  let latest: Run | undefined = program.instructions.find((instruction) => instruction.kind === "run");
  return program.instructions.flatMap((instruction): readonly GroupMove[] => {
    if (instruction.kind === "run") {
      latest = instruction;
      for (const buffer of instruction.outputs) makers.set(buffer, instruction);
    }
    const move = moveOf(program, instruction);
    const maker = makers.get(move?.buffer ?? -1) ?? latest;
    if (move === undefined || maker === undefined) return [];
    if (move.into !== undefined) makers.set(move.into, maker);
    const { kind, bytes, sent } = move;
    const phase = isCollective(instruction) ? (instruction.phase ?? "sum") : maker.phase;
    return [{ group: maker.group, phase, kind, device, count: 1, bytes, sent }];
  });
}

/** What an instruction moves, out of which buffer, and where a meeting leaves its result. */
function moveOf(program: Program, instruction: Instruction) {
  if (instruction.kind === "send") {
    const { type } = program.buffers[instruction.buffer] as BufferSpec;
    const bytes = bytesOfType(type);
    return { kind: "message" as const, buffer: instruction.buffer, bytes, sent: bytes, into: undefined };
  }
  if (!isCollective(instruction)) return undefined;
  const { kind, buffer, ranks } = instruction;
  const bytes = bytesOfCollective(program, instruction);
  const sent = Math.round(sentBytes(kind, bytes, ranks.length));
  return { kind, buffer, bytes, sent, into: kind === "all-reduce" ? buffer : instruction.into };
}

const phases: readonly Move["phase"][] = ["F", "B", "W", "sum", "U"];

/** The moves of one device, phase and kind as one, in the order of the phases. */
export function addAlike(moves: readonly GroupMove[]): readonly Move[] {
  const sums = new Map<string, Move>();
  for (const { group: _, ...move } of moves) {
    const key = `${move.phase} ${move.kind} ${move.device}`;
    const { count = 0, bytes = 0, sent = 0 } = sums.get(key) ?? {};
    sums.set(key, {
      ...move,
      count: count + move.count,
      bytes: bytes + move.bytes,
      sent: sent + move.sent,
    });
  }
  return [...sums.values()].toSorted((a, b) => phases.indexOf(a.phase) - phases.indexOf(b.phase));
}
