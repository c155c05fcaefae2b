/**
 * A trace is what happened, or was predicted to happen, when and on which device. The executor and the simulator
 * write the same type, so that statistics, pictures and verdicts need not know which of them it was.
 */

/** Forward, backward for inputs, backward for weights, update. */
export type TracePhase = "F" | "B" | "W" | "U";

/** The lanes of a device that may be active at the same time. */
export type Stream = "compute" | "send" | "receive" | "collective";

/**
 * What a device did: `run` is computation, `send`, `receive` and `collective` are data in flight, and `wait` is a
 * device that could not go on.
 */
export type EventKind = "run" | "send" | "receive" | "collective" | "wait";

/** One interval of activity on one device. */
export interface TraceEvent {
  /** Index into `Trace.devices`. */
  readonly device: number;
  readonly stream: Stream;
  readonly kind: EventKind;
  /** The training step, counted from 0. */
  readonly step: number;
  /** Seconds since an instant that all devices of the trace share. */
  readonly start: number;
  /** Seconds; not before `start`. */
  readonly end: number;
  /** The group, segment or tensor this was about. */
  readonly name?: string;
  readonly phase?: TracePhase;
  readonly stage?: number;
  /** Which copy of the pipeline the device belongs to, where there are several for different samples; default 0. */
  readonly replica?: number;
  /** Which item of the stream; absent for work on a whole step. */
  readonly item?: { readonly microBatch: number; readonly chunk: number };
  readonly bytes?: number;
  /** The other device of a transfer, as an index into `Trace.devices`. */
  readonly peer?: number;
  /** A send and its receive carry the same tag. */
  readonly tag?: number;
}

/** Bytes that a device held from `time` (seconds) on, until its next sample. */
export interface MemorySample {
  readonly device: number;
  readonly time: number;
  readonly bytes: number;
}

/** Everything recorded about one run; events and samples may come in any order. */
export interface Trace {
  readonly origin: "measured" | "predicted";
  /** Names such as `cpu:0`. */
  readonly devices: readonly string[];
  readonly events: readonly TraceEvent[];
  readonly memory: readonly MemorySample[];
}

/** A send and the receive that took its data. */
export interface Transfer {
  readonly send: TraceEvent;
  readonly receive: TraceEvent;
}

/** True for events during which the device computes. */
export function isComputing(event: TraceEvent): boolean {
  return event.kind === "run";
}

/** True for events during which data is in flight. */
export function isCommunicating(event: TraceEvent): boolean {
  return event.kind === "send" || event.kind === "receive" || event.kind === "collective";
}

/** Pairs the n-th send with the n-th receive of the same step, devices and tag; what has no partner is left out. */
export function transfersOf(trace: Trace): readonly Transfer[] {
  const inOrder = trace.events.toSorted((a, b) => a.start - b.start);
  const sends = new Map<string, TraceEvent[]>();
  for (const event of inOrder) {
    if (event.kind !== "send") continue;
    const key = `${event.step} ${event.device} ${event.peer} ${event.tag}`;
    const queue = sends.get(key);
    if (queue === undefined) sends.set(key, [event]);
    else queue.push(event);
  }
  const taken = new Map<string, number>();
  return inOrder.flatMap((receive) => {
    if (receive.kind !== "receive") return [];
    const key = `${receive.step} ${receive.peer} ${receive.device} ${receive.tag}`;
    const index = taken.get(key) ?? 0;
    taken.set(key, index + 1);
    const send = sends.get(key)?.[index];
    return send === undefined ? [] : [{ send, receive }];
  });
}

/**
 * What is impossible in `trace`, one sentence each: unknown devices, times that run backwards, a device that
 * computes two things at once, messages without a partner or received before they were sent.
 */
export function traceProblems(trace: Trace): readonly string[] {
  const malformed = trace.events.flatMap((event, index) => eventProblems(trace, event, index));
  if (malformed.length > 0) return malformed;
  return [...overlaps(trace), ...lostMessages(trace)];
}

/** A short name of what an event did, for pictures and messages: `F2.1 layer0`, `send B0.0 to cpu:0`. */
export function eventLabel(trace: Trace, event: TraceEvent): string {
  const item = event.item === undefined ? "" : `${event.item.microBatch}.${event.item.chunk}`;
  const phase = event.phase ?? "";
  const words = [`${phase}${item}`, event.name ?? ""];
  if (event.kind !== "run") words.unshift(event.kind);
  const peer = event.peer === undefined ? undefined : (trace.devices[event.peer] ?? `device ${event.peer}`);
  if (peer !== undefined) words.push(event.kind === "send" ? `to ${peer}` : `from ${peer}`);
  return words.filter((word) => word !== "").join(" ") || event.kind;
}

function eventProblems(trace: Trace, event: TraceEvent, index: number): string[] {
  const { device, peer, start, end } = event;
  const count = trace.devices.length;
  const problems: string[] = [];
  for (const known of peer === undefined ? [device] : [device, peer])
    if (!Number.isInteger(known) || known < 0 || known >= count)
      problems.push(`event ${index}: device ${known} is not one of the ${count} devices`);
  if (!(Number.isFinite(start) && Number.isFinite(end) && start <= end))
    problems.push(`event ${index}: it lasts from ${start} s to ${end} s`);
  return problems;
}

/** Clocks are read to about a microsecond; smaller overlaps are not evidence of anything. */
const clockResolution = 1e-6;

function overlaps(trace: Trace): string[] {
  return trace.devices.flatMap((name, device) => {
    const runs = trace.events
      .filter((event) => event.device === device && isComputing(event))
      .toSorted((a, b) => a.start - b.start || a.end - b.end);
    return runs.flatMap((event, i) => {
      const previous = runs[i - 1];
      if (previous === undefined || event.start >= previous.end - clockResolution) return [];
      const [first, second] = [eventLabel(trace, previous), eventLabel(trace, event)];
      return [`${name} runs ${second} at ${event.start} s, while ${first} lasts until ${previous.end} s`];
    });
  });
}

function lostMessages(trace: Trace): string[] {
  const transfers = transfersOf(trace);
  const matched = new Set(transfers.flatMap(({ send, receive }) => [send, receive]));
  const describe = (event: TraceEvent): string =>
    `${trace.devices[event.device]}, step ${event.step}: ${eventLabel(trace, event)} (tag ${event.tag})`;
  const lost = trace.events
    .filter((event) => (event.kind === "send" || event.kind === "receive") && !matched.has(event))
    .map((event) => `${describe(event)} has no ${event.kind === "send" ? "receive" : "send"}`);
  const early = transfers
    .filter(({ send, receive }) => receive.end < send.start - clockResolution)
    .map(
      ({ send, receive }) => `${describe(receive)} ended at ${receive.end} s, sent only at ${send.start} s`,
    );
  return [...lost, ...early];
}
