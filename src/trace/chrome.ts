/**
 * Traces as Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.
 *
 *     process  one run                 several runs lie below each other in one file
 *     track    device and stream       a second track where events of one stream overlap: slices of a track
 *                                      must be disjoint or nested, never cross
 *     flow     send → receive
 *     counter  memory of each device
 *
 * Reference: "Trace Event Format", Google, sections Metadata, Complete, Flow and Counter Events. Times become
 * whole nanoseconds, written in microseconds as the format wants.
 */
import {
  type EventKind,
  eventLabel,
  type Stream,
  type Trace,
  type TraceEvent,
  type TracePhase,
  transfersOf,
} from "./trace.ts";

/** A trace and the name its process gets. */
export interface NamedTrace {
  readonly name: string;
  readonly trace: Trace;
}

/** Where the parts of a `TraceEvent` that the format has no field for are kept. */
export interface SliceArgs {
  readonly device: number;
  readonly stream: Stream;
  readonly kind: EventKind;
  readonly step: number;
  readonly name?: string;
  readonly phase?: TracePhase;
  readonly stage?: number;
  readonly replica?: number;
  readonly microBatch?: number;
  readonly chunk?: number;
  readonly bytes?: number;
  readonly peer?: number;
  readonly tag?: number;
}

interface Place {
  readonly pid: number;
  readonly tid: number;
}

/** One entry of `traceEvents`: metadata, complete, flow start, flow end, or counter; times in microseconds. */
export type ChromeEvent =
  | {
      readonly ph: "M";
      readonly name: "process_name" | "process_sort_index" | "thread_name" | "thread_sort_index";
      readonly pid: number;
      readonly tid: number;
      readonly args: { readonly name: string } | { readonly sort_index: number };
    }
  | (Place & {
      readonly ph: "X";
      readonly name: string;
      readonly cat: EventKind;
      readonly ts: number;
      readonly dur: number;
      readonly args: SliceArgs;
    })
  | (Place & {
      readonly ph: "s" | "f";
      readonly name: "transfer";
      readonly cat: "transfer";
      readonly id: number;
      readonly ts: number;
      readonly bp?: "e";
    })
  | {
      readonly ph: "C";
      readonly name: string;
      readonly pid: number;
      readonly tid: number;
      readonly ts: number;
      readonly args: { readonly bytes: number };
    };

/** A file that Perfetto opens. */
export interface ChromeTrace {
  readonly displayTimeUnit: "ms";
  readonly otherData: {
    readonly format: "paraxis-trace";
    readonly version: 1;
    readonly runs: readonly {
      readonly pid: number;
      readonly name: string;
      readonly origin: Trace["origin"];
      readonly devices: readonly string[];
    }[];
  };
  readonly traceEvents: readonly ChromeEvent[];
}

/** Tracks in the order in which a viewer shows them below each device. */
const streams: readonly Stream[] = ["compute", "send", "receive", "collective"];

/** All runs in one file, the first one on top. */
export function toChromeTrace(runs: readonly NamedTrace[]): ChromeTrace {
  const parts: (readonly ChromeEvent[])[] = [];
  let flows = 0;
  let threads = 0;
  for (const [index, { name, trace }] of runs.entries()) {
    const pid = index + 1;
    const tracks = tracksOf(trace, threads + 1);
    threads += tracks.length;
    const arrows = arrowsOf(trace, pid, tracks, flows + 1);
    flows += arrows.length / 2;
    parts.push(
      namesOf(pid, name, index, tracks),
      slicesOf(trace, pid, tracks),
      arrows,
      countersOf(trace, pid),
    );
  }
  return {
    displayTimeUnit: "ms",
    otherData: {
      format: "paraxis-trace",
      version: 1,
      runs: runs.map(({ name, trace: { origin, devices } }, i) => ({ pid: i + 1, name, origin, devices })),
    },
    traceEvents: parts.flat(),
  };
}

/** JSON with one event per line, so that two traces can be compared with `diff`. */
export function printChromeTrace({ displayTimeUnit, otherData, traceEvents }: ChromeTrace): string {
  const head = `{"displayTimeUnit":${JSON.stringify(displayTimeUnit)},"otherData":${JSON.stringify(otherData)}`;
  return `${head},"traceEvents":[\n${traceEvents.map((event) => JSON.stringify(event)).join(",\n")}\n]}\n`;
}

/** A row of disjoint slices. */
interface Track {
  readonly tid: number;
  readonly name: string;
  readonly events: readonly TraceEvent[];
}

/** Track numbers are unique in the file: viewers may take equal ones of two processes for one thread. */
function tracksOf(trace: Trace, firstTid: number): readonly Track[] {
  const lanes = trace.devices.flatMap((device, index) =>
    streams.flatMap((stream) => {
      const events = trace.events.filter((event) => event.device === index && event.stream === stream);
      return separate(events).map((lane, i) => ({
        name: i === 0 ? `${device} ${stream}` : `${device} ${stream} ${i + 1}`,
        events: lane,
      }));
    }),
  );
  return lanes.map((lane, index) => ({ tid: firstTid + index, ...lane }));
}

/** Puts events into as few lanes as possible without overlap: each into the first lane that is free again. */
function separate(events: readonly TraceEvent[]): readonly (readonly TraceEvent[])[] {
  const lanes: { end: number; readonly events: TraceEvent[] }[] = [];
  const inOrder = events.toSorted((a, b) => nanoseconds(a.start) - nanoseconds(b.start) || a.end - b.end);
  for (const event of inOrder) {
    const lane = lanes.find(({ end }) => end <= nanoseconds(event.start));
    if (lane === undefined) lanes.push({ end: nanoseconds(event.end), events: [event] });
    else {
      lane.events.push(event);
      lane.end = nanoseconds(event.end);
    }
  }
  return lanes.map((lane) => lane.events);
}

function namesOf(pid: number, name: string, index: number, tracks: readonly Track[]): ChromeEvent[] {
  return [
    { ph: "M", name: "process_name", pid, tid: 0, args: { name } },
    { ph: "M", name: "process_sort_index", pid, tid: 0, args: { sort_index: index } },
    ...tracks.flatMap((track): ChromeEvent[] => [
      { ph: "M", name: "thread_name", pid, tid: track.tid, args: { name: track.name } },
      { ph: "M", name: "thread_sort_index", pid, tid: track.tid, args: { sort_index: track.tid } },
    ]),
  ];
}

function slicesOf(trace: Trace, pid: number, tracks: readonly Track[]): ChromeEvent[] {
  return tracks.flatMap(({ tid, events }) =>
    events.map((event): ChromeEvent => {
      const start = nanoseconds(event.start);
      return {
        ph: "X",
        name: eventLabel(trace, event),
        cat: event.kind,
        pid,
        tid,
        ts: start / 1000,
        dur: (nanoseconds(event.end) - start) / 1000,
        args: argsOf(event),
      };
    }),
  );
}

function argsOf({ item, start: _start, end: _end, ...rest }: TraceEvent): SliceArgs {
  return item === undefined ? rest : { ...rest, ...item };
}

/** Arrows between the slices of a transfer; one that would point back in time is left out. */
function arrowsOf(trace: Trace, pid: number, tracks: readonly Track[], firstId: number): ChromeEvent[] {
  const tids = new Map(tracks.flatMap(({ tid, events }) => events.map((event) => [event, tid])));
  const flow = { name: "transfer", cat: "transfer", pid } as const;
  return transfersOf(trace)
    .filter(({ send, receive }) => nanoseconds(receive.end) >= nanoseconds(send.start))
    .flatMap(({ send, receive }, index): ChromeEvent[] => {
      const id = firstId + index;
      const leaves = nanoseconds(send.start) / 1000;
      const arrives = Math.max(leaves, nanoseconds(receive.start) / 1000);
      return [
        { ...flow, ph: "s", id, tid: tids.get(send) ?? 0, ts: leaves },
        { ...flow, ph: "f", bp: "e", id, tid: tids.get(receive) ?? 0, ts: arrives },
      ];
    });
}

function countersOf(trace: Trace, pid: number): ChromeEvent[] {
  return trace.memory
    .toSorted((a, b) => a.time - b.time || a.device - b.device)
    .map(({ device, time, bytes }) => ({
      ph: "C",
      name: `memory ${trace.devices[device] ?? device}`,
      pid,
      tid: 0,
      ts: nanoseconds(time) / 1000,
      args: { bytes },
    }));
}

function nanoseconds(seconds: number): number {
  return Math.round(seconds * 1e9);
}
