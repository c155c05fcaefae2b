/**
 * Which tensors lie in memory that the members of a group share, so that they are added up and gathered where they lie: gradients,
 * results and parameters, which stay where they are for the whole step. A tensor lies in one region at most, so what meets in several
 * groups lies in none; activations move too often, and the transport copies them.
 *
 *     region of group 0   device 0 [ grad:a | grad:b | loss ]
 *                         device 1 [ grad:a | grad:b | loss ]      the same places on all members
 */

import { bytesOfType, showType } from "../graph/shape.ts";
import { collectivesOf, groupRanks, wholeOf } from "./collectives.ts";
import { faultOf, type ProgramFault } from "./fault.ts";
import { type BufferKind, type BufferSpec, isPersistent, type Program } from "./program.ts";

/** Tensors of a region begin at multiples of so many bytes. */
const regionAlignment = 64;

/** What tells the tensors of a device apart that keep their place: lasting ones have one type in all programs, others may have several. */
export function placeKey({ name, type, kind }: BufferSpec): string {
  return isPersistent(kind) ? name : `${name} ${showType(type)}`;
}

/** The tensors of one device's programs that lie in regions, and the group of each, in the order of their first meeting. */
export function sharedTensors(
  programs: readonly Program[],
): readonly { readonly spec: BufferSpec; readonly group: number }[] {
  const met = new Map<string, { readonly spec: BufferSpec; readonly groups: Set<number> }>();
  for (const program of programs) {
    for (const { instruction } of collectivesOf(program)) {
      const spec = wholeOf(program, instruction);
      if (!mayShare(spec)) continue;
      const key = placeKey(spec);
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

const sharedKinds: readonly BufferKind[] = ["gradient", "result", "parameter"];

function mayShare({ kind, view }: BufferSpec): boolean {
  return view === undefined && sharedKinds.includes(kind);
}

/** Where the tensors of a device's programs lie in its region of a group, by `placeKey`; the same for all members. */
export function regionOf(
  programs: readonly Program[],
  group: number,
): { readonly offsets: ReadonlyMap<string, number>; readonly bytes: number } {
  const offsets = new Map<string, number>();
  let bytes = 0;
  for (const { spec } of sharedTensors(programs).filter((shared) => shared.group === group)) {
    offsets.set(placeKey(spec), bytes);
    bytes += Math.ceil(bytesOfType(spec.type) / regionAlignment) * regionAlignment;
  }
  return { offsets, bytes };
}

/** Members that keep a tensor out of the region, because they share it in another group too, while others keep it there. */
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
          `shares "${name}" in other groups than device ${first}, with which it shares its memory: expected the same groups on both`,
        ),
      );
    });
  });
}
