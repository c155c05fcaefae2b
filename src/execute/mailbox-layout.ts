/**
 * Where everything lies in the memory that the devices of a mailbox transport share. Words that different
 * devices write are 64 bytes apart, so that no two devices fight for a cache line.
 *
 *     control (Int32)  [abort][abort text][per rank: bell, asleep, left][per slot: length + 1, 0 = free]
 *                      [per group and member: arrivals, and what is started, twice]
 *     blocks (bytes)   one per channel: its slots; one per group: per member, region and two staging pieces
 */
import { UserError } from "../base/errors.ts";
import type { ChannelPlan, GroupPlan, TransportPlan } from "./transport.ts";

const line = 16;
const maxAbortText = 1000;

/** Largest message: its length must fit a control word. */
const maxBytes = 2 ** 31 - 2;

/** Word offsets inside a rank's line. */
const rankWord = { bell: 0, asleep: 1, left: 2 } as const;

/** Word offsets inside a group member's line; all but `arrivals` exist once per parity. */
export const memberWord = { arrivals: 0, kind: 2, bytes: 4, offset: 6 } as const;

/** Word positions in control memory and byte sizes of the blocks, computed alike by every device. */
export interface MailboxLayout {
  readonly plan: TransportPlan;
  /** Length of control memory in Int32 words. */
  readonly controlWords: number;
  readonly ranks: number;
  /** First slot word per channel; slots are `line` words apart. */
  readonly channels: readonly number[];
  /** First member line per group. */
  readonly groups: readonly number[];
  /** Bytes of each block: channels first, then groups. */
  readonly blockBytes: readonly number[];
}

/** Lays out control words and blocks for a plan; a faulty plan is refused with all its problems. */
export function layOutMailbox(plan: TransportPlan): MailboxLayout {
  const problems = planProblems(plan);
  if (problems.length > 0) throw new UserError("cannot set up the transport", problems);
  const ranks = line + roundUp(maxAbortText, line);
  let word = ranks + plan.size * line;
  const channels = plan.channels.map((channel) => {
    const first = word;
    word += slotCount(channel) * line;
    return first;
  });
  const groups = groupsOf(plan).map((group) => {
    const first = word;
    word += group.ranks.length * line;
    return first;
  });
  const blockBytes = [
    ...plan.channels.map((channel) => slotCount(channel) * slotStride(channel)),
    ...groupsOf(plan).map((group) => group.ranks.length * memberStride(group)),
  ];
  return { plan, controlWords: word, ranks, channels, groups, blockBytes };
}

/** Total bytes of shared memory that a plan needs, control words included. */
export function mailboxBytes(plan: TransportPlan): number {
  const layout = layOutMailbox(plan);
  return layout.blockBytes.reduce((sum, bytes) => sum + bytes, 4 * layout.controlWords);
}

/** Word of a device's bell, asleep or left flag. */
export function rankWordAt(layout: MailboxLayout, rank: number, word: keyof typeof rankWord): number {
  return layout.ranks + rank * line + rankWord[word];
}

/** Word of a channel's slot. */
export function slotWordAt(layout: MailboxLayout, channel: number, slot: number): number {
  return (layout.channels[channel] ?? 0) + slot * line;
}

/** First word of a group member's line. */
export function memberWordAt(layout: MailboxLayout, group: number, index: number): number {
  return (layout.groups[group] ?? 0) + index * line;
}

export function groupsOf(plan: TransportPlan): readonly GroupPlan[] {
  return plan.groups ?? [];
}

export function slotCount(channel: ChannelPlan): number {
  return channel.slots ?? 2;
}

/** Bytes from one slot to the next. */
export function slotStride(channel: ChannelPlan): number {
  return roundUp(channel.bytes, 64);
}

/** Bytes of one staging piece of a group member. */
export function pieceStride(group: GroupPlan): number {
  return roundUp(group.pieceBytes ?? 256 * 1024, 64);
}

/** Bytes of one member's share of a group's block: its region and two staging pieces. */
export function memberStride(group: GroupPlan): number {
  return roundUp(group.regionBytes ?? 0, 64) + 2 * pieceStride(group);
}

/** Byte offset of the staging piece of a parity inside a member's share. */
export function pieceOffset(group: GroupPlan, parity: number): number {
  return roundUp(group.regionBytes ?? 0, 64) + parity * pieceStride(group);
}

/** Records who ended the run and why; the first caller wins, unless it died before it had finished writing. */
export function writeAbort(control: Int32Array, rank: number, reason: string): void {
  const state = Atomics.compareExchange(control, 0, 0, -1);
  if (state > 0 || (state < 0 && isFinished(control))) return;
  const length = Math.min(reason.length, maxAbortText);
  for (let i = 0; i < length; i++) control[line + i] = reason.charCodeAt(i);
  control[1] = length;
  Atomics.store(control, 0, rank + 1);
}

/** Gives the writer of an abort a moment; false when it seems to have died while writing. */
function isFinished(control: Int32Array): boolean {
  for (let look = 0; look < 100_000; look++) {
    if (Atomics.load(control, 0) > 0) return true;
  }
  return false;
}

/** Who ended the run and why; undefined while it goes on. */
export function readAbort(
  control: Int32Array,
): { readonly culprit: number; readonly reason: string } | undefined {
  const state = Atomics.load(control, 0);
  if (state <= 0) return undefined;
  const codes = control.subarray(line, line + (control[1] ?? 0));
  return { culprit: state - 1, reason: String.fromCharCode(...codes) };
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

function planProblems(plan: TransportPlan): readonly string[] {
  const problems: string[] = [];
  if (!Number.isInteger(plan.size) || plan.size < 1) {
    problems.push(`size must be a positive integer, got ${plan.size}`);
  }
  const seen = new Set<string>();
  for (const channel of plan.channels) {
    const name = `channel ${channel.from} -> ${channel.to} tag ${channel.tag}`;
    problems.push(...channelProblems(channel, plan.size).map((problem) => `${name}: ${problem}`));
    if (seen.has(name)) problems.push(`${name} is declared twice`);
    seen.add(name);
  }
  for (const group of groupsOf(plan)) {
    const name = `group ${group.id}`;
    problems.push(...groupProblems(group, plan.size).map((problem) => `${name}: ${problem}`));
    if (seen.has(name)) problems.push(`${name} is declared twice`);
    seen.add(name);
  }
  return problems;
}

function channelProblems(channel: ChannelPlan, size: number): readonly string[] {
  const problems = [channel.from, channel.to]
    .filter((rank) => !isCount(rank) || rank >= size)
    .map((rank) => `there is no device ${rank} among ${size}`);
  if (!isCount(channel.tag)) problems.push("the tag must be a non-negative integer");
  if (!isCount(channel.bytes) || channel.bytes > maxBytes) {
    problems.push(`a message must have 0 to ${maxBytes} B, got ${channel.bytes}`);
  }
  if (!isCount(slotCount(channel)) || slotCount(channel) < 1) {
    problems.push(`needs at least one slot, got ${channel.slots}`);
  }
  return problems;
}

function groupProblems(group: GroupPlan, size: number): readonly string[] {
  const problems = group.ranks
    .filter((rank) => !isCount(rank) || rank >= size)
    .map((rank) => `there is no device ${rank} among ${size}`);
  if (!isCount(group.id)) problems.push("the id must be a non-negative integer");
  if (group.ranks.length === 0) problems.push("has no members");
  if (new Set(group.ranks).size !== group.ranks.length) problems.push("names a device twice");
  const region = group.regionBytes ?? 0;
  if (!isCount(region) || region > maxBytes) problems.push(`the region must have 0 to ${maxBytes} B`);
  const piece = group.pieceBytes ?? 64;
  if (!isCount(piece) || piece < 8 * group.ranks.length || piece > maxBytes) {
    problems.push(`a piece must have at least 8 B per member, got ${piece} for ${group.ranks.length}`);
  }
  return problems;
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0;
}
