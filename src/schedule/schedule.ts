/**
 * From a few numbers to the order of work on every device. This is the only door to the schedules: it checks the
 * numbers, and what it returns is legal by construction (the tests prove it with `verifySchedule`).
 */
import { UserError } from "../base/errors.ts";
import type { StageCosts } from "../cost/stage-work.ts";
import { type ScheduleName, scheduleNames } from "../layout/layout.ts";
import type { Loads, Placement, Schedule, StageEdge, Weights, Work } from "./action.ts";
import { type Grid, gpipe, interleaved, naive, oneForwardOneBackward, zeroBubble } from "./fixed.ts";
import { wavefront } from "./wavefront.ts";

/** The names of the schedules, as layouts and the command line spell them. */
export type ScheduleKind = ScheduleName;

/** Every schedule kind, simplest first. */
export const scheduleKinds: readonly ScheduleKind[] = scheduleNames;

/** Everything that decides a schedule. */
export interface ScheduleSpec extends Work {
  readonly kind: ScheduleKind;
  readonly devices: number;
  /** The devices of each stage, several where they do it together; without it stage s is on device s mod devices. */
  readonly placement?: Placement;
  /** Estimated durations per stage, in any unit, for `wavefront`; without them F = B = W = 1. */
  readonly costs?: readonly StageCosts[];
  /** By stage and device of its placement, how long that takes for what costs 1, for `wavefront`; without them 1. */
  readonly loads?: Loads;
  /**
   * How much later than estimated the results of other devices are expected, as a share of the time that they take, for `wavefront`; default
   * 0. A device does what it can do meanwhile, so that no order depends on everything being in time.
   */
  readonly lateness?: number;
}

/** The order of actions on each device; throws a `UserError` that lists everything illegal in `spec`. */
export function schedule(spec: ScheduleSpec): Schedule {
  const problems = specProblems(spec);
  if (problems.length > 0) throw new UserError(`cannot build the schedule ${spec.kind}`, problems);
  const placement = placementOf(spec);
  const local: number[][] = Array.from({ length: spec.devices }, () => []);
  for (const [stage, devices] of placement.entries())
    for (const device of devices) local[device]?.push(stage);
  const grid: Grid = {
    local,
    microBatches: spec.microBatches,
    chunks: spec.chunks,
    weights: spec.weights,
  };
  switch (spec.kind) {
    case "naive":
      return naive(grid);
    case "gpipe":
      return gpipe(grid);
    case "1f1b":
      return oneForwardOneBackward(grid);
    case "interleaved-1f1b":
      return interleaved(grid);
    case "zero-bubble-h1":
      return zeroBubble(grid);
    case "wavefront": {
      const costs = spec.costs ?? placement.map(() => ({ F: 1, B: 1, W: 1 }));
      const loads = spec.loads ?? placement.map((devices) => devices.map(() => 1));
      return wavefront({ ...spec, placement, costs, loads, lateness: spec.lateness ?? 0 });
    }
    default:
      return spec.kind satisfies never;
  }
}

/** The devices of each stage of `spec`. */
function placementOf(spec: Pick<ScheduleSpec, "stages" | "devices" | "placement">): Placement {
  return spec.placement ?? Array.from({ length: spec.stages }, (_, stage) => [stage % spec.devices]);
}

/** Why `schedule(spec)` would refuse; empty if it would not. */
export function specProblems(spec: ScheduleSpec): readonly string[] {
  const numbers = (["devices", "stages", "microBatches", "chunks"] as const).flatMap((name) =>
    Number.isInteger(spec[name]) && spec[name] >= 1
      ? []
      : [`${name} must be a whole number of at least 1, got ${spec[name]}`],
  );
  if (numbers.length > 0) return numbers;
  return [
    ...placementProblems(spec),
    ...edgeProblems(spec.edges ?? [], spec.stages),
    ...costProblems(spec),
    ...kindProblems(spec),
  ];
}

function placementProblems(spec: ScheduleSpec): string[] {
  const { stages, devices, placement } = spec;
  if (placement === undefined)
    return stages >= devices
      ? []
      : [
          `${devices} devices need at least ${devices} stages, got ${stages}: split the model further or use fewer devices`,
        ];
  if (placement.length !== stages)
    return [`placement must name the devices of each of the ${stages} stages, got ${placement.length}`];
  const unknown = placement.flatMap((held, stage) => [
    ...(held.length === 0 ? [`stage ${stage} is placed on no device`] : []),
    ...held.flatMap((device) =>
      Number.isInteger(device) && device >= 0 && device < devices
        ? []
        : [`stage ${stage} is placed on device ${device}, but the devices are 0 to ${devices - 1}`],
    ),
  ]);
  if (unknown.length > 0) return unknown;
  return Array.from({ length: devices }, (_, device) => device)
    .filter((device) => !placement.some((held) => held.includes(device)))
    .map((device) => `device ${device} holds no stage`);
}

function edgeProblems(edges: readonly StageEdge[], stages: number): string[] {
  return edges.flatMap(([from, to]) => {
    const known = [from, to].every((stage) => Number.isInteger(stage) && stage >= 0 && stage < stages);
    if (!known) return [`edge ${from} → ${to} names a stage that is not one of 0 to ${stages - 1}`];
    return from < to ? [] : [`edge ${from} → ${to} must go from an earlier stage to a later one`];
  });
}

function costProblems({ costs, stages }: ScheduleSpec): string[] {
  if (costs === undefined) return [];
  if (costs.length !== stages) return [`costs must be given for all ${stages} stages, got ${costs.length}`];
  return costs.flatMap((cost, stage) =>
    (["F", "B", "W"] as const).flatMap((phase) =>
      Number.isFinite(cost[phase]) && cost[phase] >= 0
        ? []
        : [`the cost of ${phase} on stage ${stage} must be a number of at least 0, got ${cost[phase]}`],
    ),
  );
}

function kindProblems(spec: ScheduleSpec): string[] {
  switch (spec.kind) {
    case "naive":
      return [...oneChunk(spec), ...weightsAmong(spec, ["fused"])];
    case "gpipe":
      return [];
    case "1f1b":
      return oneStagePerDevice(spec);
    case "interleaved-1f1b":
      return wholeRounds(spec);
    case "zero-bubble-h1":
      return [...oneStagePerDevice(spec), ...weightsAmong(spec, ["per-item", "per-micro-batch"])];
    case "wavefront":
      return [];
    default:
      return spec.kind satisfies never;
  }
}

function oneChunk({ chunks }: ScheduleSpec): string[] {
  if (chunks === 1) return [];
  return [
    `naive runs one item at a time, but ${chunks} chunks of a sequence would overlap: use 1 chunk, or wavefront`,
  ];
}

function weightsAmong({ kind, weights }: ScheduleSpec, legal: readonly Weights[]): string[] {
  if (legal.includes(weights)) return [];
  return [`${kind} decides itself when W runs: weights must be ${legal.join(" or ")}, got ${weights}`];
}

function oneStagePerDevice(spec: ScheduleSpec): string[] {
  const { kind, devices, stages, placement } = spec;
  if (placement === undefined && stages < devices) return [];
  if (stages !== devices)
    return [
      `${kind} holds one stage per device, got ${stages} stages on ${devices} devices: use interleaved-1f1b, gpipe or wavefront`,
    ];
  return inTurn(spec) ? [] : [`${kind} needs stage s on device s, got ${showPlacement(spec)}`];
}

function wholeRounds(spec: ScheduleSpec): string[] {
  const { kind, devices, stages, placement } = spec;
  if (placement === undefined && stages < devices) return [];
  if (stages % devices !== 0)
    return [
      `${kind} holds equally many stages on each device, but ${devices} devices do not divide ${stages} stages`,
    ];
  return inTurn(spec) ? [] : [`${kind} needs stage s on device s mod ${devices}, got ${showPlacement(spec)}`];
}

function inTurn(spec: ScheduleSpec): boolean {
  return placementOf(spec).every((held, stage) => held.length === 1 && held[0] === stage % spec.devices);
}

/** `0, 1, 0 and 1`: the devices of every stage. */
function showPlacement(spec: ScheduleSpec): string {
  return placementOf(spec)
    .map((held) => held.join(" and "))
    .join(", ");
}
