/** Which messages the devices of a run exchange: what a transport must know before the first one. */

import { bytesOfType } from "../graph/shape.ts";
import type { BufferSpec, Program } from "./program.ts";

/** One direction between two devices, named by (from, to, tag). */
export interface MessageChannel {
  readonly from: number;
  readonly to: number;
  readonly tag: number;
  /** Bytes of the largest message. */
  readonly bytes: number;
  /** Messages that may be under way before the sender has to wait. */
  readonly slots: number;
  /** The value that travels, for error messages. */
  readonly label: string;
}

/** Devices that add up tensors together. */
export interface MessageGroup {
  readonly id: number;
  readonly ranks: readonly number[];
  readonly label: string;
}

/** All that the devices of a run say to each other; a transport plan (src/execute/transport.ts). */
export interface MessagePlan {
  /** Number of devices. */
  readonly size: number;
  readonly channels: readonly MessageChannel[];
  readonly groups: readonly MessageGroup[];
}

/**
 * The channels of program sets that run one after another in any order (one for each bucket, training and evaluation), by set then
 * device. One slot each is enough: `verifyPrograms` proves it.
 */
export function channelPlan(sets: readonly (readonly Program[])[]): MessagePlan {
  const channels = new Map<string, MessageChannel>();
  const groups = new Map<number, MessageGroup>();
  for (const { device, buffers, instructions } of sets.flat()) {
    for (const instruction of instructions) {
      if (instruction.kind === "all-reduce") {
        const { group: id, ranks } = instruction;
        groups.set(id, { id, ranks, label: `devices ${ranks.join(", ")}` });
      }
      if (instruction.kind !== "send") continue;
      const { to, tag, buffer } = instruction;
      const { name, type } = buffers[buffer] as BufferSpec;
      const key = `${device} ${to} ${tag}`;
      const known = channels.get(key);
      const bytes = Math.max(bytesOfType(type), known?.bytes ?? 0);
      channels.set(key, { from: device, to, tag, bytes, slots: 1, label: known?.label ?? name });
    }
  }
  const sorted = [...channels.values()].sort((a, b) => a.from - b.from || a.to - b.to || a.tag - b.tag);
  return {
    size: sets.reduce((most, programs) => Math.max(most, programs.length), 0),
    channels: sorted,
    groups: [...groups.values()].sort((a, b) => a.id - b.id),
  };
}
