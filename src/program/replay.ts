/**
 * Runs programs on paper. Every device carries out its instructions strictly in order; a receive blocks until the message is there, a
 * send takes no time and leaves a message that arrives `transfer(bytes)` later. For given durations the outcome is exact and does not
 * depend on the order in which devices are looked at (Kahn 1974), so that a deadlock is found before anything runs. It is the course of one
 * step of many: updates that can wait are those of the step before.
 *
 *     device 0 | F0 F1 ...... B0 B1
 *     device 1 | .. F0 B0 F1 B1              links carry any number of messages at once
 */

import { bytesOfType } from "../graph/shape.ts";
import { bytesOfCollective } from "./collectives.ts";
import { postponable, touchedBy } from "./postpone.ts";
import type { BufferSpec, Collective, Instruction, Program, Receive, Run, Send } from "./program.ts";

/** Durations in seconds (or any one unit of time). */
export interface ProgramCosts {
  readonly duration: (run: Run, program: Program) => number;
  readonly transfer: (bytes: number, send: Send, program: Program) => number;
  /** Seconds of a collective over a whole tensor of `bytes`, from when its last device came to it; default none. */
  readonly collective?: (bytes: number, instruction: Collective) => number;
  /** Messages that a channel (from, to, tag) holds; a send blocks while there are as many. Default: any number. */
  readonly slots?: number;
}

/** When one instruction ran: `start` is when its device came to it, `end` when it went on; of an update that can wait, when it was done. */
export interface Timed {
  readonly start: number;
  readonly end: number;
}

/** A device that can never go on, and the message, the slot or the other devices it waits for. */
export interface StuckProgram {
  readonly device: number;
  readonly instruction: number;
  readonly waitsFor: Send | Receive | Collective;
}

export interface ProgramReplay {
  /** By device and instruction; shorter than the program on a device that is stuck. */
  readonly devices: readonly (readonly Timed[])[];
  /** Time from 0 to the end of the last instruction. */
  readonly makespan: number;
  /** Empty unless the programs deadlock. */
  readonly stuck: readonly StuckProgram[];
}

/** The course of one step; program i is that of device i. Never throws, also not for programs that `verifyPrograms` would refuse. */
export function replayPrograms(programs: readonly Program[], costs: ProgramCosts): ProgramReplay {
  const traffic: Traffic = { channels: new Map(), meetings: new Map() };
  const devices = programs.map((program) => ({
    program,
    timed: [] as Timed[],
    now: 0,
    owed: [...postponable(program)]
      .sort((a, b) => a - b)
      .map((index) => {
        const update = program.instructions[index] as Run;
        return { index, update, touches: touchedBy(program, update) };
      }),
    paid: new Map<number, Timed>(),
  }));
  let isMoving = true;
  while (isMoving) {
    isMoving = false;
    for (const device of devices) while (advance(device, traffic, costs)) isMoving = true;
  }
  return {
    devices: devices.map(({ timed }) => timed),
    makespan: devices.reduce((latest, { now }) => Math.max(latest, now), 0),
    stuck: devices.flatMap(({ program, timed }): StuckProgram[] => {
      const next = program.instructions[timed.length];
      if (next === undefined || next.kind === "run" || next.kind === "free" || next.kind === "guard")
        return [];
      return [{ device: program.device, instruction: timed.length, waitsFor: next }];
    }),
  };
}

/** The messages of one channel in order: when each arrives, and when each was taken. */
interface Channel {
  readonly arrivals: number[];
  readonly taken: number[];
}

/** The collectives of one group: when each device came to each of them, and how many each has left. */
interface Meetings {
  readonly arrivals: Map<number, number>[];
  readonly left: Map<number, number>;
}

interface Traffic {
  readonly channels: Map<string, Channel>;
  readonly meetings: Map<number, Meetings>;
}

/** An update of the step before: its instruction, and what it touches. */
interface OwedUpdate {
  readonly index: number;
  readonly update: Run;
  readonly touches: readonly number[];
}

interface RunningDevice {
  readonly program: Program;
  readonly timed: Timed[];
  now: number;
  /** Updates of the step before, and by their instructions when they were done. */
  owed: readonly OwedUpdate[];
  readonly paid: Map<number, Timed>;
}

/** Carries out the next instruction; false when there is none or it has to wait. */
function advance(device: RunningDevice, traffic: Traffic, costs: ProgramCosts): boolean {
  const instruction = device.program.instructions[device.timed.length];
  if (instruction === undefined) return false;
  const at = device.timed.length;
  const touched = device.owed.length === 0 ? [] : touchedBy(device.program, instruction);
  for (const owed of device.owed)
    if (owed.index === at || owed.touches.some((id) => touched.includes(id))) pay(device, owed, costs);
  const late = device.paid.get(at);
  if (late !== undefined) {
    device.timed.push(late);
    return true;
  }
  const end = endOf(instruction, device, traffic, costs);
  if (end === undefined) return false;
  device.timed.push({ start: device.now, end });
  device.now = end;
  return true;
}

/** Carries out an update of the step before. */
function pay(device: RunningDevice, owed: OwedUpdate, costs: ProgramCosts): void {
  const start = device.now;
  device.now += costs.duration(owed.update, device.program);
  device.owed = device.owed.filter((other) => other !== owed);
  device.paid.set(owed.index, { start, end: device.now });
}

/** Fills a wait until `arrival` with updates of the step before; returns when it is over. */
function waitUntil(arrival: number, device: RunningDevice, costs: ProgramCosts): number {
  for (const owed of device.owed) if (device.now < arrival) pay(device, owed, costs);
  return Math.max(device.now, arrival);
}

/** When an instruction ends that the device has come to; undefined while that is not known. */
function endOf(
  instruction: Instruction,
  device: RunningDevice,
  { channels, meetings }: Traffic,
  costs: ProgramCosts,
): number | undefined {
  const { program, now } = device;
  switch (instruction.kind) {
    case "run":
      return now + costs.duration(instruction, program);
    case "send": {
      const { arrivals, taken } = channelOf(channels, program.device, instruction.to, instruction.tag);
      const before = arrivals.length - (costs.slots ?? Number.POSITIVE_INFINITY);
      const free = before < 0 ? now : taken[before];
      if (free === undefined) return undefined;
      const start = Math.max(now, free);
      const { type } = program.buffers[instruction.buffer] as BufferSpec;
      arrivals.push(start + costs.transfer(bytesOfType(type), instruction, program));
      return start;
    }
    case "receive": {
      const { arrivals, taken } = channelOf(channels, instruction.from, program.device, instruction.tag);
      const arrival = arrivals[taken.length];
      if (arrival === undefined) return undefined;
      return taken[taken.push(waitUntil(arrival, device, costs)) - 1];
    }
    case "all-reduce":
    case "all-gather":
    case "reduce-scatter": {
      const all = meet(meetings, instruction, program.device, now);
      if (all === undefined) return undefined;
      const moving = costs.collective?.(bytesOfCollective(program, instruction), instruction) ?? 0;
      return waitUntil(all + moving, device, costs);
    }
    case "free":
    case "guard":
      return now;
    default:
      return instruction satisfies never;
  }
}

/** When all devices of the group have come to this collective; undefined while one is missing. */
function meet(
  meetings: Map<number, Meetings>,
  { group, ranks }: Collective,
  device: number,
  now: number,
): number | undefined {
  const { arrivals, left } = meetings.get(group) ?? { arrivals: [], left: new Map<number, number>() };
  meetings.set(group, { arrivals, left });
  const index = left.get(device) ?? 0;
  const here = arrivals[index] ?? new Map<number, number>();
  arrivals[index] = here.set(device, here.get(device) ?? now);
  if (ranks.some((rank) => !here.has(rank))) return undefined;
  left.set(device, index + 1);
  return Math.max(...here.values());
}

function channelOf(channels: Map<string, Channel>, from: number, to: number, tag: number): Channel {
  const key = `${from} ${to} ${tag}`;
  const channel = channels.get(key) ?? { arrivals: [], taken: [] };
  channels.set(key, channel);
  return channel;
}
