/**
 * What every two devices of a run had to do with each other, from the times at which both computed. Two layers on two devices are not
 * parallel because they are on two devices; what they did at the same instant tells.
 *
 *     device 0 | F0 layer1   F1 layer1              same layer at the same time as device 1, through the stream with device 2
 *     device 1 | F0 layer1   F1 layer1
 *     device 2 |             F0 layer2   F1 layer2
 *
 * The words are those of Saliya Ekanayake, "Model Parallelism in Deep Learning is NOT What You Think", 2018. Two computations that
 * overlap in time did not wait for each other, so their order does not matter: the trace needs no graph to show that. The update is left
 * out: all devices do theirs at the end of a step, whatever the step was like.
 */
import { isComputing, type Trace, type TraceEvent } from "./trace.ts";

/**
 * How two computations at the same time belong together.
 *
 * - `layer`: parts of the same layer, for the same item and phase: model parallelism
 * - `ahead`: parts of the same stage, one device being at another layer, phase or item than the other; also a later stage at what a faster
 *   device has handed on, while the slower one still finishes its own copy
 * - `samples`: copies of the same stage at different samples: data parallelism
 * - `replicas`: different stages of different copies of the pipeline
 * - `stream`: different stages at different items: a pipeline
 * - `branches`: different stages at the same item, neither of which needs the other
 * - `weights`: different stages, of which one computes gradients of weights, for the same item or for several: nothing waits for these
 */
export type PairKind = "layer" | "ahead" | "samples" | "replicas" | "stream" | "branches" | "weights";

/** Two devices, and what they did at the same time. */
export interface DevicePair {
  /** Indices into `Trace.devices`, the smaller one first. */
  readonly devices: readonly [number, number];
  /**
   * `never` where both compute at the same time for less than `negligible`, else the kind with the largest share. `layer` counts with the
   * share of `ahead`: devices of a mesh meet after every layer, so one is ahead only for as long as the other waits for a processor.
   */
  readonly kind: PairKind | "never";
  /** What else took 2 % or more, largest first. */
  readonly also: readonly PairKind[];
  /** The time in which both compute, as a share of the computing time of the less busy one; from 0 to 1. */
  readonly both: number;
  /** By kind, in the same shares: they add up to `both`. Kinds that did not occur are absent. */
  readonly kinds: { readonly [K in PairKind]?: number };
}

/**
 * Below this share of the computing time of the less busy device two devices never compute at the same time. Devices that take turns were
 * measured to overlap by less than 0.01 %; a pipeline of two items on two devices overlaps by a third, and by a few percent where it has
 * so few processors that its devices take turns on them.
 */
export const negligible = 0.01;

/**
 * What else two devices did is told from this share on. A device that finishes its own copy of what its mesh has already handed on was
 * measured to overlap with the next stage by up to 1 %.
 */
const notable = 0.02;

/** All pairs of devices of `trace`, in their order; every device's computations must be disjoint in time. */
export function classifyPairs(trace: Trace): readonly DevicePair[] {
  const runs = trace.events.filter((event) => isComputing(event) && event.phase !== "U");
  const work = trace.devices.map((_, device) => workOf(runs.filter((event) => event.device === device)));
  const firstEnds = firstEndsOf(work);
  return work.flatMap((first, i) =>
    work.slice(i + 1).map((second, offset): DevicePair => {
      const shortest = Math.min(first.busy, second.busy);
      const times = overlaps(first.runs, second.runs, firstEnds);
      const shares = new Map([...times].map(([kind, time]) => [kind, time / shortest] as const));
      return { devices: [i, i + 1 + offset], ...classify(shares) };
    }),
  );
}

/** What one device computed, in order of time. */
interface Work {
  readonly runs: readonly TraceEvent[];
  /** Seconds. */
  readonly busy: number;
}

function workOf(runs: readonly TraceEvent[]): Work {
  return {
    runs: runs.toSorted((a, b) => a.start - b.start),
    busy: runs.reduce((sum, { start, end }) => sum + end - start, 0),
  };
}

function classify(shares: ReadonlyMap<PairKind, number>): Omit<DevicePair, "devices"> {
  const both = [...shares.values()].reduce((sum, share) => sum + share, 0);
  const weight = (kind: PairKind, share: number): number =>
    kind === "layer" ? share + (shares.get("ahead") ?? 0) : share;
  const [largest] = [...shares].toSorted(([a, x], [b, y]) => weight(b, y) - weight(a, x));
  const kind = largest === undefined || both < negligible ? "never" : largest[0];
  const large = [...shares].filter(([, share]) => share >= notable).toSorted(([, a], [, b]) => b - a);
  return {
    kind,
    also: kind === "never" ? [] : large.map(([other]) => other).filter((other) => other !== kind),
    both: Math.min(1, both),
    kinds: Object.fromEntries(shares),
  };
}

/** Seconds in which both compute, by kind. */
function overlaps(
  first: readonly TraceEvent[],
  second: readonly TraceEvent[],
  firstEnds: FirstEnds,
): ReadonlyMap<PairKind, number> {
  const times = new Map<PairKind, number>();
  for (let i = 0, j = 0; i < first.length && j < second.length; ) {
    const [a, b] = [first[i] as TraceEvent, second[j] as TraceEvent];
    const time = Math.min(a.end, b.end) - Math.max(a.start, b.start);
    if (time > 0) {
      const kind = kindOf(a, b, firstEnds);
      times.set(kind, (times.get(kind) ?? 0) + time);
    }
    if (a.end < b.end) i++;
    else j++;
  }
  return times;
}

function kindOf(a: TraceEvent, b: TraceEvent, firstEnds: FirstEnds): PairKind {
  const isSameStage = a.stage !== undefined && a.stage === b.stage;
  if ((a.replica ?? 0) !== (b.replica ?? 0)) return isSameStage ? "samples" : "replicas";
  if (isSameStage) return keyOf(a) === keyOf(b) ? "layer" : "ahead";
  if (a.item !== undefined && b.item !== undefined && !isSameItem(a, b)) return "stream";
  if (isHandedOn(a, b, firstEnds)) return "ahead";
  return a.phase === "W" || b.phase === "W" ? "weights" : "branches";
}

/** Whether the later of two began when another device of the earlier one's mesh was done with the same. */
function isHandedOn(a: TraceEvent, b: TraceEvent, firstEnds: FirstEnds): boolean {
  const [before, after] = a.start < b.start ? [a, b] : [b, a];
  return (firstEnds.get(keyOf(before)) ?? before.end) <= after.start;
}

function isSameItem(a: TraceEvent, b: TraceEvent): boolean {
  return a.step === b.step && a.item?.microBatch === b.item?.microBatch && a.item?.chunk === b.item?.chunk;
}

/** When the first device of a mesh was done with a layer in one phase of an item, in seconds, by `keyOf` its runs. */
type FirstEnds = ReadonlyMap<string, number>;

function firstEndsOf(work: readonly Work[]): FirstEnds {
  const first = new Map<string, number>();
  for (const { runs } of work) {
    const last = new Map(runs.map((run) => [keyOf(run), run.end]));
    for (const [key, end] of last) first.set(key, Math.min(end, first.get(key) ?? end));
  }
  return first;
}

/** The same for the devices of a mesh that compute parts of the same layer, for the same item and phase. */
function keyOf({ step, replica = 0, stage, name, phase, item }: TraceEvent): string {
  return [step, replica, stage, name, phase, item?.microBatch, item?.chunk].join(" ");
}
