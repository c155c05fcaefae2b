/**
 * Checks that the programs together do the work of one step once: every stage on one device of each replica, every item of a group equally often and
 * nothing twice, every parameter updated by exactly one device and known to all that hold it. Every replica does
 * all of that for itself, with the gradients of all of them.
 */

import { addedUp } from "./all-reduces.ts";
import { faultAt, faultOf, type ProgramFault, placeOf } from "./fault.ts";
import { guardsOf } from "./messages.ts";
import { type Instruction, type ItemId, type Program, type Run, readsOf, writesOf } from "./program.ts";

/** Everything done twice, or for some items only, or by the wrong device. */
export function workFaults(programs: readonly Program[]): ProgramFault[] {
  const items = itemsOf(programs);
  return [
    ...splitStages(programs),
    ...programs.flatMap((program) =>
      repeatedRuns(program).map(({ at, earlier }) =>
        faultAt(program, at, `does again what ${placeOf(program, earlier)} has done`),
      ),
    ),
    ...programs.flatMap((program) => unevenItems(program, items)),
    ...ownershipFaults(programs),
    ...unguardedUpdates(programs),
  ];
}

interface PlacedRun {
  readonly run: Run;
  readonly at: number;
}

function runsOf({ instructions }: Program): readonly PlacedRun[] {
  return instructions.flatMap((run, at) => (run.kind === "run" ? [{ run, at }] : []));
}

function splitStages(programs: readonly Program[]): ProgramFault[] {
  const homes = new Map<string, number>();
  return programs.flatMap((program, device) =>
    [...new Set(runsOf(program).map(({ run }) => run.stage))].flatMap((stage) => {
      const place = `${program.replica ?? 0} ${stage}`;
      const home = homes.get(place) ?? device;
      homes.set(place, home);
      if (home === device) return [];
      const { at } = runsOf(program).find(({ run }) => run.stage === stage) as PlacedRun;
      return [faultAt(program, at, `runs stage ${stage}, which also runs on device ${home}`)];
    }),
  );
}

/** Runs that bring the same inputs to the same outputs as an earlier one; totals that a run adds to do not count as inputs. */
function repeatedRuns(program: Program): readonly { readonly at: number; readonly earlier: number }[] {
  const first = new Map<string, number>();
  return runsOf(program).flatMap(({ run, at }) => {
    const { phase, stage, group, item, inputs, outputs } = run;
    const operands = inputs.filter((buffer) => !outputs.includes(buffer));
    const key = `${phase} ${stage} ${group} ${showItem(item)} ${operands} > ${outputs}`;
    const earlier = first.get(key);
    if (earlier === undefined) first.set(key, at);
    return earlier === undefined ? [] : [{ at, earlier }];
  });
}

/** All items that anybody works on. */
function itemsOf(programs: readonly Program[]): readonly string[] {
  const items = programs.flatMap((program) =>
    runsOf(program).flatMap(({ run }) => (run.item === undefined ? [] : [showItem(run.item)])),
  );
  return [...new Set(items)];
}

/** Every group must run equally many segments of a phase for every item; a run without an item counts for those whose rows it reads. */
function unevenItems(program: Program, items: readonly string[]): ProgramFault[] {
  const rowsFrom = itemsByOwner(program);
  const groups = new Map<string, Map<string, number>>();
  const last = new Map<string, number>();
  const repeated = new Set(repeatedRuns(program).map(({ at }) => at));
  for (const { run, at } of runsOf(program)) {
    if (run.phase === "U" || repeated.has(at)) continue;
    const key = `${run.phase} of group "${run.group}" on stage ${run.stage}`;
    const counts = groups.get(key) ?? new Map<string, number>();
    groups.set(key, counts);
    last.set(`${key} ${showItem(run.item)}`, at);
    const covered =
      run.item === undefined
        ? new Set(run.inputs.flatMap((buffer) => [...(rowsFrom.get(buffer) ?? [])]))
        : [showItem(run.item)];
    for (const item of covered) counts.set(item, (counts.get(item) ?? 0) + 1);
  }
  return [...groups].flatMap(([key, counts]) => {
    const usual = mode(items.map((item) => counts.get(item) ?? 0));
    return items.flatMap((item) => {
      const count = counts.get(item) ?? 0;
      if (count === usual) return [];
      const message = `${key} runs ${count} segments for item ${item}, expected ${usual} as for the other items`;
      const at = last.get(`${key} ${item}`);
      return [at === undefined ? faultOf(program, message) : faultAt(program, at, message)];
    });
  });
}

/** For each buffer that is made of views, the items that write its rows; what a run without an item makes of them is of the same items. */
function itemsByOwner(program: Program): ReadonlyMap<number, ReadonlySet<string>> {
  const known = new Map<number, ReadonlySet<string>>();
  for (const instruction of program.instructions) {
    const { owners, items } = rowsWritten(program, instruction, known);
    for (const owner of owners) known.set(owner, new Set([...(known.get(owner) ?? []), ...items]));
  }
  return known;
}

/** The buffers of several items that an instruction writes to, and the items of what it writes. */
function rowsWritten(
  { buffers }: Program,
  instruction: Instruction,
  known: ReadonlyMap<number, ReadonlySet<string>>,
): { readonly owners: readonly number[]; readonly items: readonly string[] } {
  if (instruction.kind !== "run" && instruction.kind !== "receive") return { owners: [], items: [] };
  const { item } = instruction;
  if (item !== undefined) {
    const owners = writesOf(instruction).flatMap((buffer) => buffers[buffer]?.view?.of ?? []);
    return { owners, items: [showItem(item)] };
  }
  return {
    owners: writesOf(instruction).filter((buffer) => buffers[buffer]?.kind === "activation"),
    items: readsOf(instruction).flatMap((buffer) => [...(known.get(buffer) ?? [])]),
  };
}

/** The most frequent number; of several the largest. */
function mode(numbers: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const number of numbers) counts.set(number, (counts.get(number) ?? 0) + 1);
  const most = Math.max(0, ...counts.values());
  return Math.max(0, ...[...counts].flatMap(([number, count]) => (count === most ? [number] : [])));
}

interface Place {
  readonly device: number;
  readonly at: number;
}

/** Where each parameter and optimizer tensor is written by U. */
function updatesOf(programs: readonly Program[]): ReadonlyMap<string, readonly Place[]> {
  const updates = new Map<string, Place[]>();
  programs.forEach((program, device) => {
    for (const { run, at } of runsOf(program)) {
      if (run.phase !== "U") continue;
      for (const buffer of run.outputs) {
        const { name = "", kind } = program.buffers[buffer] ?? {};
        if (kind === "parameter" || kind === "optimizer")
          updates.set(name, [...(updates.get(name) ?? []), { device, at }]);
      }
    }
  });
  return updates;
}

/** One owner for each parameter that has a gradient; all other devices that hold it receive its new value. */
function ownershipFaults(programs: readonly Program[]): ProgramFault[] {
  if (!programs.some((program) => runsOf(program).some(({ run }) => run.phase === "U"))) return [];
  const updates = updatesOf(programs);
  const several = [...updates].flatMap(([name, [owner, ...others]]) =>
    others
      .filter(({ device }) => device !== owner?.device && !isReplica(programs, owner?.device ?? 0, device))
      .map(({ device, at }) => {
        const message = `updates "${name}", which device ${owner?.device} updates too: it must have one owner`;
        return faultAt(programs[device] as Program, at, message);
      }),
  );
  const ownerless = new Set<string>();
  const holders = programs.flatMap((program) =>
    program.buffers.flatMap(({ name, kind }, buffer) => {
      if (kind !== "parameter" || ownerless.has(name)) return [];
      if (!updates.has(name)) ownerless.add(name);
      const fault = holderFault(programs, program, buffer, updates.get(name) ?? []);
      return fault === undefined ? [] : [faultOf(program, fault)];
    }),
  );
  return [...several, ...holders];
}

/** Whether two devices update the same tensors with the same gradients: in different replicas, having added up all that they computed. */
function isReplica(programs: readonly Program[], owner: number, device: number): boolean {
  return (
    programs[owner]?.replica !== programs[device]?.replica &&
    [owner, device].every((rank) => {
      const program = programs[rank] as Program;
      const added = addedUp(program);
      const computed = new Set(runsOf(program).flatMap(({ run }) => (run.phase === "U" ? [] : run.outputs)));
      return program.buffers.every(
        ({ name, kind }, buffer) => kind !== "gradient" || !computed.has(buffer) || added.has(name),
      );
    })
  );
}

/** What is wrong with the copy of a parameter that a device holds, given where the parameter is updated. */
function holderFault(
  programs: readonly Program[],
  { device, buffers, instructions }: Program,
  buffer: number,
  updates: readonly Place[],
): string | undefined {
  const name = buffers[buffer]?.name ?? "";
  const [owner] = updates;
  if (owner === undefined)
    return hasGradient(programs, name)
      ? `parameter "${name}" has a gradient, but no U run updates it: it must have one owner`
      : undefined;
  const isRenewed =
    updates.some((update) => update.device === device) ||
    instructions.some((instruction) => instruction.kind === "receive" && instruction.buffer === buffer);
  return isRenewed
    ? undefined
    : `holds parameter "${name}" of device ${owner.device}, but never receives its new value`;
}

/** Gradients are called `grad:<parameter>`, or `grad:<parameter>@<group>` where a tied parameter gets several. */
function hasGradient(programs: readonly Program[], parameter: string): boolean {
  return programs.some(({ buffers }) =>
    buffers.some(
      ({ name, kind }) =>
        kind === "gradient" && (name === `grad:${parameter}` || name.startsWith(`grad:${parameter}@`)),
    ),
  );
}

/** If any device gives up a broken step, no device may update anything before it has checked the same value. */
function unguardedUpdates(programs: readonly Program[]): ProgramFault[] {
  const guards = new Set(programs.flatMap((program) => guardsOf(program).map(({ name }) => name)));
  return [...guards].flatMap((name) =>
    programs.flatMap((program) => {
      const guard = guardsOf(program).find((known) => known.name === name)?.at ?? Number.POSITIVE_INFINITY;
      return runsOf(program).flatMap(({ run, at }) => {
        const updates = run.outputs.map((buffer) => program.buffers[buffer]);
        const updated = updates.find((spec) => spec?.kind === "parameter" || spec?.kind === "optimizer");
        return updated === undefined || at > guard
          ? []
          : [
              faultAt(
                program,
                at,
                `updates "${updated.name}", expected a guard on "${name}" before it as elsewhere`,
              ),
            ];
      });
    }),
  );
}

function showItem(item: ItemId | undefined): string {
  return item === undefined ? "*" : `${item.microBatch}.${item.chunk}`;
}
