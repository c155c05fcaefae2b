/**
 * What a trace amounts to: how busy each device was, and how many of them really worked at once. Two devices that are
 * 50 % busy each may be perfectly serial or half parallel; only the concurrency tells.
 */
import { difference, type IntervalSet, intersection, overlapHistogram, total, union } from "./intervals.ts";
import { isCommunicating, isComputing, type Trace, type TraceEvent, type TracePhase } from "./trace.ts";

/** Shares of the time looked at, each from 0 to 1. */
export interface DeviceStatistics {
  readonly name: string;
  /** The device computes. */
  readonly busy: number;
  /** It does not: 1 - busy, the bubble of this device. */
  readonly idle: number;
  /** It is idle and known to wait for another device. */
  readonly wait: number;
  /** Data of this device is in flight, whether or not it computes meanwhile. */
  readonly communication: number;
  /** Data is in flight and no computation hides it. */
  readonly exposed: number;
  /** Computation by phase; `other` has no phase. They add up to `busy` when nothing overlaps. */
  readonly phases: { readonly [P in TracePhase | "other"]: number };
  /** Bytes handed to sends and collectives. */
  readonly sentBytes: number;
  /** The largest memory sample, 0 if there is none. */
  readonly peakBytes: number;
}

/** Numbers about some stretch of time. */
export interface Statistics {
  /** Length of the stretch in seconds. */
  readonly duration: number;
  readonly devices: readonly DeviceStatistics[];
  /** Average idle share of the devices. */
  readonly bubble: number;
  /** Average number of devices that compute, while any does; 0 if none ever does. */
  readonly concurrency: number;
  /** `histogram[k]` is the share of time during which exactly k devices compute, k = 0 to all. */
  readonly histogram: readonly number[];
  /** Of the time in which any device computes something else than the update, the share in which several do. */
  readonly overlap: number;
}

/** Numbers about one training step: from its first event to its last. */
export interface StepStatistics extends Statistics {
  readonly step: number;
}

/** Numbers about a trace; `whole` covers the steps but not the gaps between them. */
export interface TraceStatistics {
  readonly origin: Trace["origin"];
  readonly whole: Statistics;
  readonly steps: readonly StepStatistics[];
  /** Median duration of a step in seconds, 0 without steps. */
  readonly stepTime: number;
}

/** Statistics of each step and of all of them together. */
export function traceStatistics(trace: Trace): TraceStatistics {
  const activity = trace.devices.map((name, device) => activityOf(trace, device, name));
  const windows = stepWindows(trace.events);
  const steps = [...windows].map(([step, window]) => ({ step, ...measure(activity, window) }));
  return {
    origin: trace.origin,
    whole: measure(activity, union([...windows.values()].flat())),
    steps,
    stepTime: median(steps.map(({ duration }) => duration)),
  };
}

/** When a device did what. */
interface Activity {
  readonly name: string;
  readonly computing: IntervalSet;
  readonly communicating: IntervalSet;
  readonly waiting: IntervalSet;
  readonly phases: { readonly [P in TracePhase | "other"]: IntervalSet };
  /** Bytes sent, in order of time. */
  readonly sends: readonly Amount[];
  /** Bytes held from a time on, in order of time. */
  readonly memory: readonly Amount[];
}

interface Amount {
  readonly time: number;
  readonly bytes: number;
}

function activityOf(trace: Trace, device: number, name: string): Activity {
  const events = trace.events.filter((event) => event.device === device);
  const runs = events.filter(isComputing);
  const ofPhase = (phase: TracePhase | undefined): IntervalSet =>
    union(runs.filter((event) => event.phase === phase));
  return {
    name,
    computing: union(runs),
    communicating: union(events.filter(isCommunicating)),
    waiting: union(events.filter(({ kind }) => kind === "wait")),
    phases: {
      F: ofPhase("F"),
      B: ofPhase("B"),
      W: ofPhase("W"),
      U: ofPhase("U"),
      other: ofPhase(undefined),
    },
    sends: events
      .filter(({ kind }) => kind === "send" || kind === "collective")
      .map(({ start, bytes }) => ({ time: start, bytes: bytes ?? 0 }))
      .toSorted((a, b) => a.time - b.time),
    memory: trace.memory.filter((sample) => sample.device === device).toSorted((a, b) => a.time - b.time),
  };
}

function stepWindows(events: readonly TraceEvent[]): ReadonlyMap<number, IntervalSet> {
  const spans = new Map<number, { start: number; end: number }>();
  for (const { step, start, end } of events) {
    const span = spans.get(step);
    if (span === undefined) spans.set(step, { start, end });
    else {
      span.start = Math.min(span.start, start);
      span.end = Math.max(span.end, end);
    }
  }
  const inOrder = [...spans].toSorted(([a], [b]) => a - b);
  return new Map(inOrder.map(([step, span]) => [step, union([span])]));
}

function measure(activity: readonly Activity[], window: IntervalSet): Statistics {
  const duration = total(window);
  const devices = activity.map((device) => measureDevice(device, window, duration));
  const times = overlapHistogram(
    activity.map(({ computing }) => computing),
    window,
  );
  const onItems = overlapHistogram(
    activity.map(({ computing, phases }) => difference(computing, phases.U)),
    window,
  );
  const several = onItems.slice(2).reduce((sum, time) => sum + time, 0);
  const work = times.reduce((sum, time, k) => sum + k * time, 0);
  const active = times.slice(1).reduce((sum, time) => sum + time, 0);
  return {
    duration,
    devices,
    bubble: devices.reduce((sum, { idle }) => sum + idle, 0) / Math.max(devices.length, 1),
    concurrency: active > 0 ? work / active : 0,
    histogram: times.map((time) => (duration > 0 ? time / duration : 0)),
    overlap: several > 0 ? several / (several + (onItems[1] ?? 0)) : 0,
  };
}

function measureDevice(device: Activity, window: IntervalSet, duration: number): DeviceStatistics {
  const share = (set: IntervalSet): number =>
    duration > 0 ? Math.min(1, total(intersection(set, window)) / duration) : 0;
  const { computing, communicating, waiting, phases } = device;
  const busy = share(computing);
  return {
    name: device.name,
    busy,
    idle: 1 - busy,
    wait: share(difference(waiting, computing)),
    communication: share(communicating),
    exposed: share(difference(communicating, computing)),
    phases: {
      F: share(phases.F),
      B: share(phases.B),
      W: share(phases.W),
      U: share(phases.U),
      other: share(phases.other),
    },
    sentBytes: sumWithin(device.sends, window),
    peakBytes: peakWithin(device.memory, window),
  };
}

function sumWithin(amounts: readonly Amount[], window: IntervalSet): number {
  let sum = 0;
  for (const { start, end } of window) {
    for (let i = firstFrom(amounts, start); (amounts[i]?.time ?? Number.POSITIVE_INFINITY) <= end; i++)
      sum += amounts[i]?.bytes ?? 0;
  }
  return sum;
}

/** The most bytes held at any instant of `window`, including what was already held when it began. */
function peakWithin(held: readonly Amount[], window: IntervalSet): number {
  let peak = 0;
  for (const { start, end } of window) {
    const first = firstFrom(held, start);
    peak = Math.max(peak, held[first - 1]?.bytes ?? 0);
    for (let i = first; (held[i]?.time ?? Number.POSITIVE_INFINITY) <= end; i++)
      peak = Math.max(peak, held[i]?.bytes ?? 0);
  }
  return peak;
}

/** The index of the first amount at `time` or later. */
function firstFrom(amounts: readonly Amount[], time: number): number {
  let low = 0;
  let high = amounts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((amounts[middle]?.time ?? 0) >= time) high = middle;
    else low = middle + 1;
  }
  return low;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}
