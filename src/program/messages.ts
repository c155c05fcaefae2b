/**
 * Checks what programs say to each other: every send has its receive, nobody waits for ever, and a guard ends all devices at the same
 * point of their conversation.
 */

import { sameType, showType } from "../graph/shape.ts";
import { collectiveFaults, collectivesOf, groupRanks, verbOf, wholeOf } from "./collectives.ts";
import { faultAt, type ProgramFault, placeOf } from "./fault.ts";
import type { BufferSpec, ItemId, Program, Receive, Send } from "./program.ts";
import { regionFaults } from "./regions.ts";
import { replayPrograms, type StuckProgram } from "./replay.ts";

/** Everything wrong with the messages of one step; program i is that of device i. */
export function messageFaults(programs: readonly Program[]): ProgramFault[] {
  const messages = pairMessages(programs);
  const unpaired = messages.flatMap((message) => aloneFault(programs, message));
  const paired = messages.filter(isPair);
  const uneven = collectiveFaults(programs);
  return [
    ...unpaired,
    ...uneven,
    ...paired.flatMap((pair) => contentFaults(programs, pair)),
    ...guardFaults(programs, paired),
    ...(uneven.length === 0 ? [...regionFaults(programs), ...unguardedMeetings(programs)] : []),
    ...(unpaired.length + uneven.length === 0 ? deadlocks(programs) : []),
  ];
}

interface Place {
  readonly device: number;
  readonly at: number;
}

/** The two ends of a message; one of them may be missing. */
interface Message {
  readonly send?: Place;
  readonly receive?: Place;
}

type Pair = Required<Message>;

function isPair(message: Message): message is Pair {
  return message.send !== undefined && message.receive !== undefined;
}

/** The nth send of a channel (from, to, tag) belongs to its nth receive. */
function pairMessages(programs: readonly Program[]): readonly Message[] {
  const sends = new Map<string, Place[]>();
  const receives = new Map<string, Place[]>();
  programs.forEach(({ instructions }, device) => {
    instructions.forEach((instruction, at) => {
      if (instruction.kind !== "send" && instruction.kind !== "receive") return;
      const isSend = instruction.kind === "send";
      const ends = isSend ? [device, instruction.to] : [instruction.from, device];
      const key = `${ends[0]} ${ends[1]} ${instruction.tag}`;
      const side = isSend ? sends : receives;
      side.set(key, [...(side.get(key) ?? []), { device, at }]);
    });
  });
  return [...new Set([...sends.keys(), ...receives.keys()])].flatMap((key) => {
    const [from, to] = [sends.get(key) ?? [], receives.get(key) ?? []];
    return Array.from({ length: Math.max(from.length, to.length) }, (_, n): Message => {
      const [send, receive] = [from[n], to[n]];
      return { ...(send && { send }), ...(receive && { receive }) };
    });
  });
}

function aloneFault(programs: readonly Program[], { send, receive }: Message): ProgramFault[] {
  const alone = send ?? receive;
  if (alone === undefined || (send !== undefined && receive !== undefined)) return [];
  const program = programs[alone.device] as Program;
  const message = program.instructions[alone.at] as Send | Receive;
  const name = program.buffers[message.buffer]?.name;
  const text =
    message.kind === "send"
      ? `sends "${name}", expected a receive with tag ${message.tag} on device ${message.to}, but there is none for it`
      : `receives "${name}", expected a send with tag ${message.tag} on device ${message.from}, but there is none for it`;
  return [faultAt(program, alone.at, text)];
}

/** Both ends must speak of the same value: name, type and item. */
function contentFaults(programs: readonly Program[], { send, receive }: Pair): ProgramFault[] {
  const [source, target] = [programs[send.device] as Program, programs[receive.device] as Program];
  const out = source.instructions[send.at] as Send;
  const into = target.instructions[receive.at] as Receive;
  const sent = source.buffers[out.buffer] as BufferSpec;
  const wanted = target.buffers[into.buffer] as BufferSpec;
  const from = `device ${send.device}, ${placeOf(source, send.at)}`;
  const faults: string[] = [];
  if (wanted.name !== sent.name) faults.push(`receives "${wanted.name}", but ${from} sends "${sent.name}"`);
  if (!sameType(wanted.type, sent.type))
    faults.push(
      `receives ${showType(wanted.type)} into "${wanted.name}", but ${from} sends ${showType(sent.type)}`,
    );
  if (showItem(into.item) !== showItem(out.item))
    faults.push(
      `receives "${wanted.name}" of ${showItem(into.item)}, but ${from} sends it for ${showItem(out.item)}`,
    );
  return faults.map((message) => faultAt(target, receive.at, message));
}

function showItem(item: ItemId | undefined): string {
  return item === undefined ? "no item" : `item ${item.microBatch}.${item.chunk}`;
}

/** A guard that ends one device before its end of a message must end the other one too. */
function guardFaults(programs: readonly Program[], pairs: readonly Pair[]): ProgramFault[] {
  const guards = programs.map(guardsOf);
  return pairs.flatMap(({ send, receive }) => {
    const [source, target] = [programs[send.device] as Program, programs[receive.device] as Program];
    const sender = checkedBefore(guards[send.device] ?? [], send.at);
    const receiver = checkedBefore(guards[receive.device] ?? [], receive.at);
    const missing = [...sender].filter((name) => !receiver.has(name));
    const left = [...receiver].filter((name) => !sender.has(name));
    return [
      ...missing.map((name) =>
        faultAt(
          target,
          receive.at,
          `waits for ever when device ${send.device} ends at its guard on "${name}", expected a guard on it before this receive`,
        ),
      ),
      ...left.map((name) =>
        faultAt(
          source,
          send.at,
          `sends what nobody takes when device ${receive.device} ends at its guard on "${name}", expected a guard on it before this send`,
        ),
      ),
    ];
  });
}

type Guards = ReturnType<typeof guardsOf>;

/** Names that are guarded before an instruction. */
function checkedBefore(guards: Guards, at: number): ReadonlySet<string> {
  return new Set(guards.flatMap((guard) => (guard.at < at ? [guard.name] : [])));
}

/** A guard that ends one member of a group before a meeting must end all others too. */
function unguardedMeetings(programs: readonly Program[]): ProgramFault[] {
  return [...groupRanks(programs)].flatMap(([group, ranks]) => {
    const members = ranks.map((rank) => programs[rank] as Program);
    const places = members.map((member) => {
      const guards = guardsOf(member);
      return collectivesOf(member, group).map(({ at }) => ({ at, guards: checkedBefore(guards, at) }));
    });
    return members.flatMap((member, m) =>
      (places[m] ?? []).flatMap(({ at, guards }, n) =>
        members.flatMap(({ device }, other) =>
          [...(places[other]?.[n]?.guards ?? [])]
            .filter((name) => !guards.has(name))
            .map((name) =>
              faultAt(
                member,
                at,
                `waits for ever when device ${device} ends at its guard on "${name}", expected a guard on it before this meeting`,
              ),
            ),
        ),
      ),
    );
  });
}

/** The guards of a program: the scalar that each checks, and where. */
export function guardsOf({
  buffers,
  instructions,
}: Program): readonly { readonly name: string; readonly at: number }[] {
  return instructions.flatMap((instruction, at) =>
    instruction.kind === "guard" ? [{ name: buffers[instruction.buffer]?.name ?? "", at }] : [],
  );
}

/**
 * Devices that wait for ever, with channels that hold any number of messages, and with one slot each over two steps: the second step
 * may find a slot still taken. Where every channel carries one message, the first proves the second.
 */
function deadlocks(programs: readonly Program[]): ProgramFault[] {
  const free = { duration: () => 0, transfer: () => 0 };
  const once = replayPrograms(programs, free).stuck;
  if (once.length > 0) return once.map((stuck) => deadlockFault(programs, stuck, once));
  const twice = programs.map((program) => ({
    ...program,
    instructions: [...program.instructions, ...program.instructions],
  }));
  const { stuck } = replayPrograms(twice, { ...free, slots: 1 });
  const wrapped = stuck.map((at) => ({
    ...at,
    instruction: at.instruction % (programs[at.device]?.instructions.length ?? 1),
  }));
  return wrapped.map((at) => deadlockFault(programs, at, wrapped));
}

function deadlockFault(
  programs: readonly Program[],
  { device, instruction, waitsFor }: StuckProgram,
  all: readonly StuckProgram[],
): ProgramFault {
  const program = programs[device] as Program;
  const peer = awaitedPeer(device, waitsFor, all);
  const name = nameOf(program, waitsFor);
  const other = all.find((stuck) => stuck.device === peer);
  const where =
    other === undefined ? "" : `, which waits at ${placeOf(programs[peer] as Program, other.instruction)}`;
  const what =
    waitsFor.kind === "receive"
      ? `"${name}" from device ${peer}`
      : `device ${peer} to ${waitsFor.kind === "send" ? "take the message before" : verbOf(waitsFor).base} "${name}"`;
  return faultAt(program, instruction, `waits for ever for ${what}${where} (deadlock)`);
}

function nameOf(program: Program, waitsFor: StuckProgram["waitsFor"]): string {
  const isMessage = waitsFor.kind === "send" || waitsFor.kind === "receive";
  const spec = isMessage ? program.buffers[waitsFor.buffer] : wholeOf(program, waitsFor);
  return spec?.name ?? "";
}

/** The device that is waited for; of a group the first one that waits for something else. */
function awaitedPeer(
  device: number,
  waitsFor: StuckProgram["waitsFor"],
  all: readonly StuckProgram[],
): number {
  if (waitsFor.kind === "send") return waitsFor.to;
  if (waitsFor.kind === "receive") return waitsFor.from;
  const isHere = (rank: number) =>
    all.some(
      (stuck) =>
        stuck.device === rank && "group" in stuck.waitsFor && stuck.waitsFor.group === waitsFor.group,
    );
  const others = waitsFor.ranks.filter((rank) => rank !== device);
  return others.find((rank) => !isHere(rank)) ?? others[0] ?? device;
}
