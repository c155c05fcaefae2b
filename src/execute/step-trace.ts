/** Turns the times that devices measured into trace events. */

import { bytesOfType } from "../graph/shape.ts";
import { bytesOfCollective, wholeOf } from "../program/collectives.ts";
import { type MemoryPlan, planMemory } from "../program/memory.ts";
import { postponable } from "../program/postpone.ts";
import { type BufferSpec, type Instruction, isCollective, type Program } from "../program/program.ts";
import type { MemorySample, TraceEvent } from "../trace/trace.ts";

/** What one step adds to a trace. */
export interface StepTrace {
  readonly events: readonly TraceEvent[];
  readonly memory: readonly MemorySample[];
}

/** Makes the trace of one step from the times that its devices measured. */
export type StepTracer = (times: readonly Float64Array[], step: number) => StepTrace;

/** Traces steps of `programs`; their memory is planned once for all steps. */
export function stepTracer(programs: readonly Program[]): StepTracer {
  const plans = programs.map((program) => ({
    program,
    plan: planMemory(program),
    late: postponable(program),
  }));
  return (times, step) => traceStep(plans, times, step);
}

interface PlannedProgram {
  readonly program: Program;
  readonly plan: MemoryPlan;
  /** Updates that are those of the step before, and do not come where they stand in the program. */
  readonly late: ReadonlySet<number>;
}

/**
 * The events of one step: `times` holds start and end of every instruction by device, in seconds; instructions that were not reached
 * have none. A receive that began before its send is a wait until then, and a transfer from then on; a collective waits for the last
 * device of its group.
 */
function traceStep(
  programs: readonly PlannedProgram[],
  times: readonly Float64Array[],
  step: number,
): StepTrace {
  const parts = programs.map((program, device) =>
    deviceTrace(program, times[device] ?? new Float64Array(0), step),
  );
  const events = parts.flatMap((part) => part.events);
  const sent = new Map<string, number>(
    events.flatMap((event) =>
      event.kind === "send" ? [[`${event.device} ${event.peer} ${event.tag}`, event.start] as const] : [],
    ),
  );
  const meetings = new Map(parts.flatMap((part) => [...part.meetings]));
  const met = new Map<string, number>();
  for (const [{ start }, meeting] of meetings) met.set(meeting, Math.max(start, met.get(meeting) ?? start));
  const split = events.flatMap((event) => {
    const last = met.get(meetings.get(event) ?? "");
    if (last !== undefined) return splitWait(event, last);
    const start = sent.get(`${event.peer} ${event.device} ${event.tag}`);
    return event.kind === "receive" && start !== undefined ? splitWait(event, start) : [event];
  });
  return { events: split, memory: parts.flatMap(({ memory }) => memory) };
}

/** An event that could only begin at `sent` waited until then. */
function splitWait(event: TraceEvent, sent: number): readonly TraceEvent[] {
  if (sent <= event.start) return [event];
  const arrival = Math.min(sent, event.end);
  const { bytes: _bytes, tag: _tag, ...rest } = event;
  return [
    { ...rest, stream: "compute", kind: "wait", end: arrival },
    { ...event, start: arrival },
  ];
}

interface DeviceTrace extends StepTrace {
  /** For every event of a collective its group and which of the group's meetings it was. */
  readonly meetings: ReadonlyMap<TraceEvent, string>;
}

function deviceTrace(
  { program, plan, late }: PlannedProgram,
  times: Float64Array,
  step: number,
): DeviceTrace {
  const { liveBytes, peakBytes, arenaBytes } = plan;
  const lasting = peakBytes - arenaBytes;
  const events: TraceEvent[] = [];
  const memory: MemorySample[] = [];
  const meetings = new Map<TraceEvent, string>();
  const count = new Map<number, number>();
  const startOf = (index: number): number => times[2 * index] ?? Number.NaN;
  const reached = [...program.instructions.keys()].filter(
    (index) => !Number.isNaN(times[2 * index + 1] ?? Number.NaN),
  );
  for (const index of reached.toSorted((a, b) => startOf(a) - startOf(b) || a - b)) {
    const instruction = program.instructions[index] as Instruction;
    const [start, end] = [startOf(index), times[2 * index + 1] as number];
    const [event] = eventOf(program, instruction, { step, start, end });
    if (event !== undefined) events.push(event);
    if (event !== undefined && isCollective(instruction)) {
      const { group } = instruction;
      const nth = count.get(group) ?? 0;
      meetings.set(event, `${group} ${nth}`);
      count.set(group, nth + 1);
    }
    if (late.has(index)) continue;
    const bytes = lasting + (liveBytes[index] ?? 0);
    if (bytes !== memory.at(-1)?.bytes) memory.push({ device: program.device, time: start, bytes });
  }
  return { events, memory, meetings };
}

function eventOf(
  program: Program,
  instruction: Instruction,
  when: Pick<TraceEvent, "step" | "start" | "end">,
): readonly TraceEvent[] {
  const { device, replica } = program;
  switch (instruction.kind) {
    case "run": {
      const { phase, stage, group, item } = instruction;
      const work = {
        name: group,
        phase,
        stage,
        ...(replica !== undefined && { replica }),
        ...(item && { item }),
      };
      return [{ ...when, device, stream: "compute", kind: "run", ...work }];
    }
    case "send":
    case "receive": {
      const { tag, item, kind } = instruction;
      const { name, type } = program.buffers[instruction.buffer] as BufferSpec;
      const peer = instruction.kind === "send" ? instruction.to : instruction.from;
      return [
        {
          ...when,
          device,
          stream: kind,
          kind,
          name,
          bytes: bytesOfType(type),
          peer,
          tag,
          ...(item && { item }),
        },
      ];
    }
    case "all-reduce":
    case "all-gather":
    case "reduce-scatter": {
      const { phase, item } = instruction;
      const { name } = wholeOf(program, instruction);
      const bytes = bytesOfCollective(program, instruction);
      const part = { ...(phase && { phase }), ...(item && { item }) };
      return [{ ...when, device, stream: "collective", kind: "collective", name, bytes, ...part }];
    }
    case "free":
    case "guard":
      return [];
    default:
      return instruction satisfies never;
  }
}
