/** Statistics in plain words, for the end of a run. The numbers are those of `traceStatistics`, nothing is added. */
import type { DeviceStatistics, Statistics, TraceStatistics } from "./statistics.ts";

/**
 * A few sentences: step time, who was how busy, how many computed at once, and what that means. `processors` is how many the devices had
 * between them; default one for each.
 */
export function describeStatistics(
  statistics: TraceStatistics,
  processors: number = statistics.whole.devices.length,
): readonly string[] {
  const { whole, steps } = statistics;
  if (whole.duration === 0) return ["The trace is empty."];
  const verb = statistics.origin === "predicted" ? "is predicted to take" : "took";
  const of = steps.length === 1 ? "" : ` (median of ${steps.length})`;
  return [
    `A step ${verb} ${formatTime(statistics.stepTime)}${of}.`,
    busySentence(whole),
    ...overlapSentence(whole, processors),
    ...transferSentence(whole),
  ];
}

/** Seconds with three digits and the unit that suits: `12.3 ms`, `1.50 s`. */
export function formatTime(seconds: number): string {
  if (seconds >= 1) return `${seconds.toPrecision(Math.max(3, String(Math.round(seconds)).length))} s`;
  if (seconds >= 1e-3) return `${threeDigits(seconds * 1e3)} ms`;
  return `${threeDigits(seconds * 1e6)} us`;
}

/** Up to this many devices are named one by one. */
const namedDevices = 4;

function busySentence({ devices, concurrency }: Statistics): string {
  const [first, ...others] = devices;
  if (first === undefined) return "There are no devices.";
  if (others.length === 0) return `${first.name} computed ${percent(first.busy)} of the step.`;
  const together = `on average ${concurrency.toFixed(2)} devices computed at once.`;
  if (devices.length <= namedDevices) {
    const list = others.map(({ name, busy }) => `${name} ${percent(busy)}`).join(", ");
    return `${first.name} computed ${percent(first.busy)} of the step, ${list}; ${together}`;
  }
  const sorted = devices.toSorted((a, b) => a.busy - b.busy);
  const mean = devices.reduce((sum, { busy }) => sum + busy, 0) / devices.length;
  const extreme = (device: DeviceStatistics | undefined): string =>
    device === undefined ? "none" : `${device.name} with ${percent(device.busy)}`;
  return (
    `${devices.length} devices computed ${percent(mean)} of the step on average, ` +
    `least ${extreme(sorted[0])} and most ${extreme(sorted.at(-1))}; ${together}`
  );
}

/** Below these shares of the computing time, devices "never" and "hardly ever" compute at the same time. */
const never = 0.01;
const hardly = 0.1;

/** Whether devices never compute at the same time, but for the update. */
export function isTakingTurns({ overlap }: Statistics): boolean {
  return overlap < never;
}

function overlapSentence(whole: Statistics, processors: number): string[] {
  const { devices, histogram, overlap } = whole;
  if (devices.length < 2) return [];
  const any = histogram.slice(1).reduce((sum, share) => sum + share, 0);
  const several = histogram.slice(2).reduce((sum, share) => sum + share, 0);
  if (any === 0) return ["No device computed anything."];
  if (several / any < never)
    return ["These devices never compute at the same time: this is workload partitioning, not parallelism."];
  if (isTakingTurns(whole))
    return [
      "But for the update, these devices never compute at the same time: this is workload partitioning, not parallelism.",
    ];
  if (devices.length > processors)
    return [
      `${devices.length} devices take turns on ${processors} ${processors === 1 ? "processor" : "processors"}: ` +
        "where each has its own, more of them compute at the same time.",
    ];
  if (overlap >= hardly) return [];
  return [
    `Only ${percent(overlap)} of the computing time has two devices at work: ` +
      "this is workload partitioning, hardly parallelism.",
  ];
}

/** Transfers that cost less than this share of the step are not worth a sentence. */
const worthMentioning = 0.05;

function transferSentence({ devices }: Statistics): string[] {
  const slow = devices.filter(({ exposed }) => exposed >= worthMentioning);
  if (slow.length === 0) return [];
  const worst = slow.reduce((a, b) => (b.exposed > a.exposed ? b : a));
  return [
    `Transfers that no computation hides take up to ${percent(worst.exposed)} of the step (${worst.name}).`,
  ];
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share > 0 && share < 0.01 ? 1 : 0)} %`;
}

function threeDigits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
