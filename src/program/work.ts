/**
 * Checks that the programs together do the work of one step once: every stage, or every rank of its mesh, on one device of each replica,
 * every item of a group equally often and nothing twice, every parameter updated by exactly one device and known to all that hold it, or
 * by several that add up their gradients. Every replica does all of that for itself, with the gradients of all of them.
 */

import { collectivesOf } from "./collectives.ts";
import { faultAt, faultOf, type ProgramFault, placeOf } from "./fault.ts";
import { guardsOf } from "./messages.ts";
import {
  type BufferSpec,
  type Instruction,
  type ItemId,
  isCollective,
  type Program,
  type Run,
  readsOf,
  writesOf,
} from "./program.ts";

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
  return programs.flatMap((program, device) => {
    const first = new Map<string, number>();
    for (const { run, at } of runsOf(program)) {
      const part = stagePart(run);
      if (!first.has(part)) first.set(part, at);
    }
    return [...first].flatMap(([part, at]) => {
      const place = `${program.replica ?? 0} ${part}`;
      const home = homes.get(place) ?? device;
      homes.set(place, home);
      return home === device ? [] : [faultAt(program, at, `runs ${part}, which also runs on device ${home}`)];
    });
  });
}

/** What of a stage a run belongs to: where a mesh splits the stage, one rank of it. */
function stagePart({ stage, rank }: Run): string {
  return rank === undefined ? `stage ${stage}` : `rank ${rank} of stage ${stage}`;
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

/**
 * Every group must run equally many segments of a phase for every item; a run without an item counts for those whose rows it reads.
 * On a mesh, layers that exchange something at every time step have more segments in longer chunks: there items of the same chunk agree.
 */
function unevenItems(program: Program, items: readonly string[]): ProgramFault[] {
  const rowsFrom = itemsByOwner(program);
  const groups = new Map<string, Map<string, number>>();
  const last = new Map<string, number>();
  const onMesh = new Set<string>();
  const repeated = new Set(repeatedRuns(program).map(({ at }) => at));
  for (const { run, at } of runsOf(program)) {
    if (run.phase === "U" || repeated.has(at)) continue;
    const key = `${run.phase} of group "${run.group}" on stage ${run.stage}`;
    const counts = groups.get(key) ?? new Map<string, number>();
    groups.set(key, counts);
    if (run.rank !== undefined) onMesh.add(key);
    last.set(`${key} ${showItem(run.item)}`, at);
    const covered =
      run.item === undefined
        ? new Set(run.inputs.flatMap((buffer) => [...(rowsFrom.get(buffer) ?? [])]))
        : [showItem(run.item)];
    for (const item of covered) counts.set(item, (counts.get(item) ?? 0) + 1);
  }
  return [...groups].flatMap(([key, counts]) => {
    const most = usualCount(counts, items);
    return items.flatMap((item) => {
      const count = counts.get(item) ?? 0;
      const alike = items.filter((other) => chunkOf(other) === chunkOf(item));
      const usual = onMesh.has(key) ? usualCount(counts, alike) || most : most;
      if (count === usual) return [];
      const message = `${key} runs ${count} segments for item ${item}, expected ${usual} as for the other items`;
      const at = last.get(`${key} ${item}`);
      return [at === undefined ? faultOf(program, message) : faultAt(program, at, message)];
    });
  });
}

function usualCount(counts: ReadonlyMap<string, number>, items: readonly string[]): number {
  return mode(items.map((item) => counts.get(item) ?? 0));
}

/** The chunk of an item as it is shown. */
function chunkOf(item: string): string {
  return item.slice(item.indexOf(".") + 1);
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
  const { kind } = instruction;
  if (kind !== "run" && kind !== "receive" && !isCollective(instruction)) return { owners: [], items: [] };
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
        const spec = program.buffers[buffer] as BufferSpec;
        const tensor = tensorOf(spec);
        if (spec.kind === "parameter" || spec.kind === "optimizer")
          updates.set(tensor, [...(updates.get(tensor) ?? []), { device, at }]);
      }
    }
  });
  return updates;
}

/** What tells lasting tensors apart: two parts of one tensor are two, however they are called. */
function tensorOf({ name, block }: BufferSpec): string {
  return block === undefined ? name : `${name} from ${block.start} to ${block.size}`;
}

/** One owner for each parameter that has a gradient, or of its parts; all other devices that hold it receive or gather its new value. */
function ownershipFaults(programs: readonly Program[]): ProgramFault[] {
  if (!programs.some((program) => runsOf(program).some(({ run }) => run.phase === "U"))) return [];
  const updates = updatesOf(programs);
  const mayBoth = withMates(programs, sameUpdates(programs));
  const several = [...updates].flatMap(([tensor, [owner, ...others]]) =>
    others
      .filter(({ device }) => device !== owner?.device && !mayBoth(owner?.device ?? 0, device))
      .map(({ device, at }) => {
        const message = `updates "${tensor}", which device ${owner?.device} updates too: it must have one owner`;
        return faultAt(programs[device] as Program, at, message);
      }),
  );
  const ownerless = new Set<string>();
  const holders = programs.flatMap((program) =>
    program.buffers.flatMap((spec, buffer) => {
      const tensor = tensorOf(spec);
      if (spec.kind !== "parameter" || ownerless.has(tensor)) return [];
      const fault = holderFault(programs, program, buffer, updates.get(tensor) ?? []);
      if (fault !== undefined && !updates.has(tensor)) ownerless.add(tensor);
      return fault === undefined ? [] : [faultOf(program, fault)];
    }),
  );
  return [...several, ...holders];
}

/**
 * Says of two devices whether they may update the same tensors: what each computed of their gradients is added up, with the other's
 * among it, or they are ranks of one mesh, which compute the same of what is not split.
 */
function sameUpdates(programs: readonly Program[]): (owner: number, device: number) => boolean {
  const sums = programs.map(sumsOf);
  const peers = meshPeers(programs);
  const computed = programs.map(gradientsComputed);
  const known = new Map<string, boolean>();
  return (owner, device) => {
    const key = `${owner} ${device}`;
    const names = new Set([...(computed[owner] ?? []), ...(computed[device] ?? [])]);
    const isSame =
      known.get(key) ??
      ((names.size > 0 || programs[owner]?.replica !== programs[device]?.replica) &&
        [...names].every((name) => isLinked(sums, peers, name, owner, device)));
    known.set(key, isSame);
    return isSame;
  };
}

/** The same for the devices of a mesh, each of which updates what it has of a stage: they follow from those of one rank in each replica. */
function withMates(
  programs: readonly Program[],
  isSame: (owner: number, device: number) => boolean,
): (owner: number, device: number) => boolean {
  const stages = programs.map(
    (program) => new Set(runsOf(program).flatMap(({ run }) => (run.rank === undefined ? [] : [run.stage]))),
  );
  const areMates = (a: number, b: number) =>
    programs[a]?.replica === programs[b]?.replica &&
    [...(stages[a] ?? [])].some((stage) => stages[b]?.has(stage));
  const mayBoth = (owner: number, device: number) =>
    isSame(owner, device) || areMates(owner, device) || shareUpdate(programs[owner], device);
  return (owner, device) =>
    mayBoth(owner, device) || programs.some((_, other) => areMates(owner, other) && mayBoth(other, device));
}

/** Whether a device deals out sums of gradients with another one: each has a part of the sum, and of the update. */
function shareUpdate(program: Program | undefined, device: number): boolean {
  const meetings = program === undefined ? [] : collectivesOf(program);
  return meetings.some(
    ({ instruction: { kind, ranks } }) => kind === "reduce-scatter" && ranks.includes(device),
  );
}

/** Names of the gradients that the runs of a device write. */
function gradientsComputed(program: Program): readonly string[] {
  const written = runsOf(program).flatMap(({ run }) => (run.phase === "U" ? [] : run.outputs));
  return written.flatMap((buffer) => {
    const { kind, name = "" } = program.buffers[buffer] ?? {};
    return kind === "gradient" ? [name] : [];
  });
}

/** For every device the others that run ranks of the same stages in its replica. */
function meshPeers(programs: readonly Program[]): readonly (readonly number[])[] {
  const places = programs.map(
    (program) =>
      new Set(
        runsOf(program).flatMap(({ run }) =>
          run.rank === undefined ? [] : [`${program.replica ?? 0} ${run.stage}`],
        ),
      ),
  );
  return places.map((own, device) =>
    places.flatMap((other, peer) =>
      peer !== device && [...own].some((place) => other.has(place)) ? [peer] : [],
    ),
  );
}

/** The devices with which a device adds up its tensors, by their names. */
function sumsOf(program: Program): ReadonlyMap<string, ReadonlySet<number>> {
  const sums = new Map<string, ReadonlySet<number>>();
  for (const { instruction } of collectivesOf(program)) {
    const isSum =
      instruction.kind === "reduce-scatter" ||
      (instruction.kind === "all-reduce" && instruction.reduce === "sum");
    const name = program.buffers[instruction.buffer]?.name ?? "";
    if (isSum) sums.set(name, new Set([...(sums.get(name) ?? []), ...instruction.ranks]));
  }
  return sums;
}

/** Whether sums of a tensor link two devices, over others if need be: first in each row of a grid, then in each column. */
function isLinked(
  sums: readonly ReturnType<typeof sumsOf>[],
  peers: readonly (readonly number[])[],
  name: string,
  from: number,
  to: number,
): boolean {
  const reached = new Set([from]);
  for (const device of reached) {
    for (const rank of sums[device]?.get(name) ?? [])
      if (sums[rank]?.get(name)?.has(device)) reached.add(rank);
    for (const peer of peers[device] ?? []) reached.add(peer);
  }
  return reached.has(to);
}

/** What is wrong with the copy of a parameter that a device holds, given where the parameter is updated. */
function holderFault(
  programs: readonly Program[],
  { device, buffers, instructions }: Program,
  buffer: number,
  updates: readonly Place[],
): string | undefined {
  const name = buffers[buffer]?.name ?? "";
  const isWrittenBy = (kind: Instruction["kind"]) =>
    instructions.some((instruction) => instruction.kind === kind && writesOf(instruction).includes(buffer));
  const [owner] = updates;
  if (owner === undefined)
    return hasGradient(programs, name) && !isWrittenBy("all-gather") && !isWrittenBy("receive")
      ? `parameter "${name}" has a gradient, but no U run updates it: it must have one owner`
      : undefined;
  const isRenewed =
    updates.some((update) => update.device === device) || isWrittenBy("receive") || isWrittenBy("all-gather");
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
