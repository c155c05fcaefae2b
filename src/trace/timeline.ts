/**
 * One step of a trace as a picture for terminals. Each column shows what the device did for most of that time.
 *
 *     step 3: 12.0 ms, one column is 0.171 ms
 *     cpu:0 |FFFFFFFF....BBBBBBBBWWWWWWWWUU|
 *     cpu:1 |~~FFFFFFFFBBBBBBBBWWWWWWWWUU..|
 */
import { formatTime } from "./describe.ts";
import { difference, type Interval, type IntervalSet, intersection, total, union } from "./intervals.ts";
import { isCommunicating, isComputing, type Trace, type TraceEvent } from "./trace.ts";

/** Which step to show, in at most how many columns (at least 30). */
export interface TimelineOptions {
  readonly step: number;
  readonly width: number;
}

/** The picture as lines joined by "\n", none longer than `width`; says so when the trace lacks the step. */
export function renderStep(trace: Trace, { step, width }: TimelineOptions): string {
  const events = trace.events.filter((event) => event.step === step);
  const start = events.reduce((least, event) => Math.min(least, event.start), Number.POSITIVE_INFINITY);
  const end = events.reduce((most, event) => Math.max(most, event.end), Number.NEGATIVE_INFINITY);
  if (!(end > start)) return `step ${step}: nothing was recorded`;
  const labelWidth = Math.min(12, Math.max(...trace.devices.map((name) => name.length)));
  const columns = Math.max(width, 30) - labelWidth - 3;
  const column = (end - start) / columns;
  const rows = trace.devices.map((name, device) => {
    const layers = layersOf(events.filter((event) => event.device === device));
    const cells = Array.from({ length: columns }, (_, i) =>
      letterOf(layers, { start: start + i * column, end: start + (i + 1) * column }),
    );
    return `${name.slice(0, labelWidth).padEnd(labelWidth)} |${cells.join("")}|`;
  });
  return [
    `step ${step}: ${formatTime(end - start)}, one column is ${formatTime(column)}`.slice(0, width),
    ...rows,
    "F forward  B, W backward  U update  # other work  ~ transfer  . idle".slice(0, width),
  ].join("\n");
}

/** When each letter would be right; no two at the same time on a sound trace. */
type Layers = readonly (readonly [letter: string, set: IntervalSet])[];

function layersOf(events: readonly TraceEvent[]): Layers {
  const runs = events.filter(isComputing);
  const phases = (["F", "B", "W", "U"] as const).map(
    (phase) => [phase, union(runs.filter((event) => event.phase === phase))] as const,
  );
  const transfers = difference(union(events.filter(isCommunicating)), union(runs));
  return [...phases, ["#", union(runs.filter((event) => event.phase === undefined))], ["~", transfers]];
}

/** The letter with the largest part of the cell, the first one if equal; idle counts as one of them. */
function letterOf(layers: Layers, cell: Interval): string {
  let best = ".";
  let most = 0;
  let idle = cell.end - cell.start;
  for (const [letter, set] of layers) {
    const covered = total(intersection(set, [cell]));
    idle -= covered;
    if (covered > most) {
      best = letter;
      most = covered;
    }
  }
  return idle > most ? "." : best;
}
