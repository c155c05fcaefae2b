/**
 * Proof that a schedule does the work: every action exactly once on each device of its stage, nothing before what it
 * needs, no deadlock. Schedules of ours pass by construction; this is for those that people write by hand, and
 * for the tests.
 */
import { UserError } from "../base/errors.ts";
import { type Action, allActions, rulesOf, type Schedule, type Work } from "./action.ts";
import { replay, uniformCosts } from "./replay.ts";
import { printAction, printSchedule } from "./text.ts";

/** One fault; `device` is the row that the arrow points at. */
export interface ScheduleProblem {
  readonly device: number;
  readonly message: string;
}

/** All faults of `schedule` as an order for `work`; empty if it is correct. */
export function verifySchedule(schedule: Schedule, work: Work): readonly ScheduleProblem[] {
  const unknown = unknownActions(schedule, work);
  if (unknown.length > 0) return unknown;
  const counted = countProblems(schedule, work);
  const ordered = [...orderProblems(schedule, work), ...weightProblems(schedule, work)];
  if (counted.length > 0 || ordered.length > 0) return [...counted, ...ordered];
  return deadlocks(schedule, work);
}

/** Throws a `UserError` with all faults and the whole schedule, an arrow at each guilty row; else does nothing. */
export function assertSchedule(schedule: Schedule, work: Work): void {
  const problems = verifySchedule(schedule, work);
  if (problems.length === 0) return;
  throw new UserError(`the schedule cannot run:\n${showProblems(schedule, problems)}`);
}

/** The faults as lines, then the schedule with an arrow at each guilty row. */
export function showProblems(schedule: Schedule, problems: readonly ScheduleProblem[]): string {
  const guilty = new Set(problems.map(({ device }) => device));
  const rows = printSchedule(schedule)
    .split("\n")
    .map((row, device) => (guilty.has(device) ? `${row}   <-- here` : row));
  return [...problems.map(({ message }) => `  - ${message}`), ...rows].join("\n");
}

/**
 * The most items that `stage` holds at once: from F until B (the values that B reads), or until W (those that W
 * reads too).
 */
export function peakItems(schedule: Schedule, stage: number, until: "B" | "W"): number {
  let alive = 0;
  let peak = 0;
  for (const action of schedule.flat()) {
    if (action.stage !== stage) continue;
    if (action.phase === "F") alive++;
    else if (action.phase === until) alive--;
    peak = Math.max(peak, alive);
  }
  return peak;
}

function unknownActions(schedule: Schedule, work: Work): ScheduleProblem[] {
  const inRange = (value: number, count: number): boolean =>
    Number.isInteger(value) && value >= 0 && value < count;
  return located(schedule).flatMap(({ device, position, action }) => {
    const { stages, microBatches, chunks } = work;
    if (
      inRange(action.stage, stages) &&
      inRange(action.microBatch, microBatches) &&
      inRange(action.chunk, chunks)
    )
      return [];
    const name = printAction(action);
    const limits = `${stages} stages, ${microBatches} micro-batches and ${chunks} chunks`;
    return [{ device, message: `${at(device, position)}: ${name} is not part of ${limits}` }];
  });
}

/** Every device that runs an action of a stage must run all of them, each once. */
function countProblems(schedule: Schedule, work: Work): ScheduleProblem[] {
  const rules = rulesOf(work);
  const repeated = schedule.flatMap((actions, device) => {
    const first = new Map<number, number>();
    return actions.flatMap((action, position) => {
      const earlier = first.get(rules.id(action));
      if (earlier === undefined) first.set(rules.id(action), position);
      return earlier === undefined
        ? []
        : [
            {
              device,
              message: `${at(device, position)}: ${printAction(action)} was already run by ${at(device, earlier)}`,
            },
          ];
    });
  });
  const missing = allActions(work).flatMap((action) => {
    const holders = [...schedule.keys()].filter((device) =>
      schedule[device]?.some(({ stage }) => stage === action.stage),
    );
    if (holders.length === 0) return [{ device: 0, message: `${printAction(action)} is missing` }];
    return holders.flatMap((device) => {
      if (schedule[device]?.some((other) => rules.id(other) === rules.id(action))) return [];
      const held = holders.length > 1 ? ` on device ${device}, which holds stage ${action.stage} too` : "";
      return [{ device, message: `${printAction(action)} is missing${held}` }];
    });
  });
  return [...repeated, ...missing];
}

/** Dependencies between two actions of one device must be met by the order of that device alone. */
function orderProblems(schedule: Schedule, work: Work): ScheduleProblem[] {
  const rules = rulesOf(work);
  return schedule.flatMap((actions, device) => {
    const positions = new Map(actions.map((action, position) => [rules.id(action), position]));
    return actions.flatMap((action, position) =>
      rules
        .dependencies(action)
        .filter((need) => (positions.get(rules.id(need)) ?? -1) > position)
        .map((need) => ({
          device,
          message: `${at(device, position)}: ${printAction(action)} runs before ${printAction(need)}, which it needs`,
        })),
    );
  });
}

function weightProblems(schedule: Schedule, work: Work): ScheduleProblem[] {
  if (work.weights === "per-item") return [];
  return schedule.flatMap((actions, device) =>
    actions.flatMap((action, position) => {
      const complaint = weightComplaint(actions, action, position, work);
      return complaint === undefined ? [] : [{ device, message: `${at(device, position)}: ${complaint}` }];
    }),
  );
}

function weightComplaint(
  actions: readonly Action[],
  action: Action,
  position: number,
  work: Work,
): string | undefined {
  const previous = actions[position - 1];
  if (work.weights === "deferred")
    return action.phase !== "W" && previous?.phase === "W"
      ? `${printAction(action)} follows a W, but weights are deferred to the end`
      : undefined;
  if (action.phase !== "W") return undefined;
  if (work.weights === "fused")
    return previous?.phase === "B" && sameMicroBatch(previous, action) && previous.chunk === action.chunk
      ? undefined
      : `${printAction(action)} must directly follow its B, because weights are fused`;
  const isFirst = !actions
    .slice(0, position)
    .some((earlier) => earlier.phase === "W" && sameMicroBatch(earlier, action));
  return isFirst || (previous?.phase === "W" && sameMicroBatch(previous, action))
    ? undefined
    : `${printAction(action)} is apart from the other W of its micro-batch, which run as one piece`;
}

function sameMicroBatch(a: Action, b: Action): boolean {
  return a.stage === b.stage && a.microBatch === b.microBatch;
}

function deadlocks(schedule: Schedule, work: Work): ScheduleProblem[] {
  return replay(schedule, work, uniformCosts(1, 1, 1)).stuck.map(
    ({ device, position, action, waitsFor, absent }) => {
      const awaited = [...waitsFor.map(printAction), ...absent.map((other) => `device ${other}`)];
      return {
        device,
        message: `${at(device, position)}: ${printAction(action)} waits for ever for ${awaited.join(" and ")} (deadlock)`,
      };
    },
  );
}

interface Located {
  readonly device: number;
  readonly position: number;
  readonly action: Action;
}

function located(schedule: Schedule): readonly Located[] {
  return schedule.flatMap((actions, device) =>
    actions.map((action, position) => ({ device, position, action })),
  );
}

function at(device: number, position: number): string {
  return `device ${device}, position ${position}`;
}
