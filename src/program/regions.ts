/**
 * Which tensors lie in memory that the members of a group share, so that they are added up without copies: gradients and results,
 * which stay where they are for the whole step. A tensor lies in one region at most, so what is added up in several groups lies in
 * none; activations move too often, and the transport copies them.
 *
 *     region of group 0   device 0 [ grad:a | grad:b | loss ]
 *                         device 1 [ grad:a | grad:b | loss ]      the same places on all members
 */

import { bytesOfType, showType } from "../graph/shape.ts";
import { collectivesOf, groupRanks } from "./collectives.ts";
import { faultOf, type ProgramFault } from "./fault.ts";
import type { BufferSpec, Program } from "./program.ts";

/** Tensors of a region begin at multiples of so many bytes. */
const regionAlignment = 64;

/** What tells the tensors of a region apart. */
export function regionKey({ name, type }: BufferSpec): string {
  return `${name} ${showType(type)}`;
}

/** The tensors of one device's programs that lie in regions, and the group of each, in the order of their first meeting. */
export function sharedTensors(
  programs: readonly Program[],
): readonly { readonly spec: BufferSpec; readonly group: number }[] {
  const met = new Map<string, { readonly spec: BufferSpec; readonly groups: Set<number> }>();
  for (const program of programs) {
    for (const { instruction } of collectivesOf(program)) {
      const spec = program.buffers[instruction.buffer] as BufferSpec;
      if (instruction.kind !== "all-reduce" || !mayShare(spec)) continue;
      const key = regionKey(spec);
      const known = met.get(key) ?? { spec, groups: new Set<number>() };
      known.groups.add(instruction.group);
      met.set(key, known);
    }
  }
  return [...met.values()].flatMap(({ spec, groups }) => {
    const [group, ...others] = groups;
    return group === undefined || others.length > 0 ? [] : [{ spec, group }];
  });
}

function mayShare({ kind, view }: BufferSpec): boolean {
  return view === undefined && (kind === "gradient" || kind === "result");
}

/** Where the tensors of a device's programs lie in its region of a group, by `regionKey`; the same for all members. */
export function regionOf(
  programs: readonly Program[],
  group: number,
): { readonly offsets: ReadonlyMap<string, number>; readonly bytes: number } {
  const offsets = new Map<string, number>();
  let bytes = 0;
  for (const { spec } of sharedTensors(programs).filter((shared) => shared.group === group)) {
    offsets.set(regionKey(spec), bytes);
    bytes += Math.ceil(bytesOfType(spec.type) / regionAlignment) * regionAlignment;
  }
  return { offsets, bytes };
}

/** Members that keep a tensor out of the region, because they add it up in another group too, while others keep it there. */
export function regionFaults(programs: readonly Program[]): ProgramFault[] {
  const tensors = programs.map((program) => sharedTensors([program]));
  return [...groupRanks(programs)].flatMap(([group, ranks]) => {
    const named = (rank: number) =>
      new Set(tensors[rank]?.flatMap((shared) => (shared.group === group ? [shared.spec.name] : [])));
    const [first, ...others] = ranks;
    const expected = named(first ?? 0);
    return others.flatMap((rank) => {
      const got = named(rank);
      const odd = [...new Set([...expected, ...got])].filter((name) => expected.has(name) !== got.has(name));
      return odd.map((name) =>
        faultOf(
          programs[rank] as Program,
          `adds up "${name}" in other groups than device ${first}, with which it shares its memory: expected the same groups on both`,
        ),
      );
    });
  });
}
