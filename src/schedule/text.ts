/**
 * Schedules as text: one row per device, as in the papers, and as a picture over time.
 *
 *     device 0 | F0 F1 F2 B0        micro-batches
 *     device 1 | F0.0 F0.1 B0.1     micro-batch.chunk
 *     device 2 | 2F0 5F0 5B0        with the stage, unless a device holds just the stage of its own number
 */
import { UserError } from "../base/errors.ts";
import type { Action, Phase, Schedule } from "./action.ts";
import type { Replay, TimedAction } from "./replay.ts";

/** One row per device; `parseSchedule` gives the same schedule back. */
export function printSchedule(schedule: Schedule): string {
  const style = styleOf(schedule);
  const width = String(Math.max(schedule.length - 1, 0)).length;
  return schedule
    .map((actions, device) =>
      `device ${String(device).padStart(width)} | ${actions
        .map((action) => label(action, device, style))
        .join(" ")}`.trimEnd(),
    )
    .join("\n");
}

/** The schedule that a text shows; throws a `UserError` with row and word of everything unreadable. */
export function parseSchedule(text: string): Schedule {
  const problems: string[] = [];
  const rows = text.split("\n").filter((row) => row.trim() !== "");
  const schedule = rows.map((row, device) => {
    const head = /^\s*device\s+(\d+)\s*\|/.exec(row);
    if (head === null)
      problems.push(`row ${device + 1}: expected "device ${device} | ...", got "${row.trim()}"`);
    else if (Number(head[1]) !== device)
      problems.push(`row ${device + 1}: expected device ${device}, got device ${head[1]}`);
    const words = row
      .slice(head?.[0].length ?? row.length)
      .split(/\s+/)
      .filter((word) => word !== "");
    return words.flatMap((word, position) => {
      const action = parseAction(word, device);
      if (action === undefined)
        problems.push(
          `device ${device}, position ${position}: expected an action like F0, B0.2 or 1W0.2, got "${word}"`,
        );
      return action ?? [];
    });
  });
  if (problems.length > 0) throw new UserError("cannot read the schedule", problems);
  return schedule;
}

/** The full name of an action in messages: `2F0.1` is F of micro-batch 0, chunk 1 on stage 2. */
export function printAction({ stage, phase, microBatch, chunk }: Action): string {
  return `${stage}${phase}${microBatch}.${chunk}`;
}

/**
 * The picture of a replayed schedule: each column is `unit` of time and shows the action that runs in the middle of
 * it; `--` continues an action, `.` is idle. Zero-length actions are not seen.
 */
export function renderTimeline(replay: Replay, unit: number = 1): string {
  const schedule = replay.devices.map((timed) => timed.map(({ action }) => action));
  const style = styleOf(schedule);
  const columns = Math.ceil(replay.makespan / unit - 1e-9);
  const rows = replay.devices.map((timed, device) =>
    cellsOf(timed, columns, unit, (action) => label(action, device, style)),
  );
  const width = rows.flat().reduce((most, cell) => Math.max(most, cell.length), 1);
  const digits = String(Math.max(rows.length - 1, 0)).length;
  return rows
    .map((cells, device) => {
      const text = cells.map((cell) => (cell === "-" ? "-".repeat(width) : cell.padEnd(width))).join(" ");
      return `device ${String(device).padStart(digits)} | ${text}`.trimEnd();
    })
    .join("\n");
}

interface Style {
  /** Devices whose rows need the stage in front of each action. */
  readonly staged: boolean;
  readonly chunked: boolean;
}

function styleOf(schedule: Schedule): Style {
  return {
    staged: schedule.some((actions, device) => actions.some(({ stage }) => stage !== device)),
    chunked: schedule.some((actions) => actions.some(({ chunk }) => chunk > 0)),
  };
}

function label(action: Action, device: number, style: Style): string {
  const stage = style.staged || action.stage !== device ? action.stage : "";
  return `${stage}${action.phase}${action.microBatch}${style.chunked ? `.${action.chunk}` : ""}`;
}

function parseAction(word: string, device: number): Action | undefined {
  const match = /^(\d+)?([FBW])(\d+)(?:\.(\d+))?$/.exec(word);
  if (match === null) return undefined;
  const [, stage, phase, microBatch, chunk] = match;
  return {
    phase: phase as Phase,
    stage: stage === undefined ? device : Number(stage),
    microBatch: Number(microBatch),
    chunk: chunk === undefined ? 0 : Number(chunk),
  };
}

function cellsOf(
  timed: readonly TimedAction[],
  columns: number,
  unit: number,
  name: (action: Action) => string,
): string[] {
  const cells: string[] = [];
  let next = 0;
  let shown = -1;
  for (let column = 0; column < columns; column++) {
    const middle = (column + 0.5) * unit;
    while (next < timed.length && (timed[next]?.end ?? 0) <= middle) next++;
    const current = timed[next];
    if (current === undefined || current.start > middle) cells.push(".");
    else cells.push(shown === next ? "-" : name(current.action));
    if (current !== undefined && current.start <= middle) shown = next;
  }
  return cells;
}
