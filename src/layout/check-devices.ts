/** What is wrong with the devices of a layout: unknown or unused ones, and stages whose meshes and replicas do not fit together. */

import { type Mesh, type MeshAxis, meshAxisNames, meshSize, showMesh } from "./layout.ts";

/** The parts of a document that could be read; the others are left out of the checks. */
export interface LayoutParts {
  readonly devices: readonly { readonly name?: string | undefined }[];
  readonly stages: readonly StageParts[];
}

interface StageParts {
  readonly devices?: readonly string[] | undefined;
  readonly mesh?: { readonly [axis: string]: unknown } | undefined;
  readonly shares?: readonly unknown[] | undefined;
  readonly groups: readonly (string | undefined)[];
}

/** Problems of the devices by themselves, of every stage, and between stages; one sentence each. */
export function deviceProblems(layout: LayoutParts): readonly string[] {
  const { devices, stages } = layout;
  const known = devices.flatMap(({ name }) => name ?? []);
  const unknown = stages.flatMap((stage, i) => unknownProblems(stage, i, known));
  const wrong = stages.flatMap((stage, i) => [...listProblems(stage, i), ...meshProblems(stage, i)]);
  const isReadable = wrong.length === 0 && stages.every((stage) => stage.devices !== undefined);
  return [...nameProblems(layout), ...unknown, ...wrong, ...(isReadable ? replicaProblems(stages) : [])];
}

function nameProblems({ devices, stages }: LayoutParts): string[] {
  if (devices.length === 0) return ["devices: must list at least one device"];
  const names = devices.map(({ name }) => name);
  return devices.flatMap(({ name }, i) => {
    if (name === undefined) return [];
    const first = names.indexOf(name);
    if (first < i) return [`devices[${i}].name: device "${name}" is listed already in devices[${first}]`];
    const isUsed = stages.some((stage) => stage.devices?.includes(name) ?? true);
    if (isUsed) return [];
    return [`devices[${i}]: device "${name}" holds no stage: give it one or leave it out`];
  });
}

function unknownProblems({ devices = [] }: StageParts, i: number, known: readonly string[]): string[] {
  return devices.flatMap((name, at) =>
    known.includes(name)
      ? []
      : [
          `${placeOf(i, devices, at)}: unknown device "${name}"; the devices are ${known.join(", ") || "none"}`,
        ],
  );
}

function listProblems({ devices }: StageParts, i: number): string[] {
  if (devices?.length === 0) return [`stages[${i}].devices: must list at least one device`];
  return (devices ?? []).flatMap((name, at, all) => {
    const first = all.indexOf(name);
    if (first === at) return [];
    return [
      `${placeOf(i, all, at)}: device "${name}" is listed already in ${placeOf(i, all, first)}: a stage needs different devices`,
    ];
  });
}

/** Sizes that are none, numbers of devices that make no whole meshes, and shares that are not those of the tensor axis. */
function meshProblems({ devices, mesh = {}, shares }: StageParts, i: number): string[] {
  const problems = Object.entries(mesh).flatMap(([axis, size]) => {
    if (!meshAxisNames.includes(axis as MeshAxis)) return [`stages[${i}].mesh: ${unknownAxes([axis])}`];
    return size === undefined || (Number.isSafeInteger(size) && Number(size) > 0)
      ? []
      : [`stages[${i}].mesh.${axis}: must be a positive whole number, got ${show(size)}`];
  });
  if (problems.length > 0) return problems;
  if (shares !== undefined) problems.push(...shareProblems(shares, mesh, i));
  if (devices === undefined || devices.length === 0) return problems;
  const size = meshSize({ mesh });
  if (devices.length % size === 0) return problems;
  return [
    ...problems,
    `stages[${i}].devices: ${count(devices.length)} for a mesh of ${size} (${showMesh({ mesh })}): list ${size} for each replica`,
  ];
}

function shareProblems(shares: readonly unknown[], { tensor = 1 }: Mesh, i: number): string[] {
  if (tensor === 1)
    return [
      `stages[${i}].shares: are those of the tensor axis, which this stage does not have: leave them out, or add "mesh": {"tensor": ${shares.length}}`,
    ];
  if (shares.length !== tensor)
    return [`stages[${i}].shares: ${plural(shares.length, "share")} for tensor ${tensor}: list ${tensor}`];
  return shares.flatMap((share, at) =>
    Number.isSafeInteger(share) && Number(share) > 0
      ? []
      : [`stages[${i}].shares[${at}]: must be a positive whole number, got ${show(share)}`],
  );
}

/** Says that a mesh has no such axes, and which it has. */
export function unknownAxes(axes: readonly string[]): string {
  const names = axes.map((axis) => JSON.stringify(axis)).join(", ");
  return `unknown axis ${names}; the axes are ${meshAxisNames.join(", ")} (the devices beyond one mesh are replicas: the data axis)`;
}

/** The devices of one stage in one replica. */
interface Holding {
  readonly stage: number;
  readonly replica: number;
  readonly devices: readonly string[];
  /** Where in the document a rank stands. */
  place(rank: number): string;
}

/** Every replica is a whole pipeline on devices of its own, placed as the first one is. */
function replicaProblems(stages: readonly StageParts[]): readonly string[] {
  const counts = countProblems(stages);
  if (counts.length > 0) return counts;
  const holdings = stages.flatMap(holdingsOf);
  const problems = crossingProblems(holdings);
  return problems.length > 0 ? problems : copyProblems(holdings);
}

function countProblems(stages: readonly StageParts[]): readonly string[] {
  const [first] = stages;
  if (first === undefined) return [];
  return stages.flatMap((stage, i) =>
    replicasOf(stage) === replicasOf(first)
      ? []
      : [
          `stages[${i}].devices: ${plural(replicasOf(stage), "replica")} (${describe(stage)}), but stages[0] has ${replicasOf(first)} (${describe(first)}): every stage needs as many`,
        ],
  );
}

function replicasOf({ devices = [], mesh }: StageParts): number {
  return devices.length / meshSize(mesh === undefined ? {} : { mesh });
}

function describe({ devices = [], mesh = {} }: StageParts): string {
  return `${count(devices.length)}, ${meshSize({ mesh }) === 1 ? "no mesh" : `a mesh of ${showMesh({ mesh })}`}`;
}

function holdingsOf(stage: StageParts, i: number): readonly Holding[] {
  const { devices = [] } = stage;
  const size = devices.length / replicasOf(stage);
  return Array.from({ length: replicasOf(stage) }, (_, replica) => ({
    stage: i,
    replica,
    devices: devices.slice(replica * size, (replica + 1) * size),
    place: (rank) => placeOf(i, devices, replica * size + rank),
  }));
}

function crossingProblems(holdings: readonly Holding[]): readonly string[] {
  const seen = new Map<string, { readonly replica: number; readonly place: string }>();
  return holdings.flatMap(({ devices, replica, place }) =>
    devices.flatMap((name, rank) => {
      const known = seen.get(name) ?? { replica, place: place(rank) };
      seen.set(name, known);
      return known.replica === replica
        ? []
        : [
            `${place(rank)}: device "${name}" is in replica ${replica} here and in replica ${known.replica} by ${known.place}: replicas share no device`,
          ];
    }),
  );
}

/** Which device of a replica stands for a device of the first one is the same in all stages, both ways. */
function copyProblems(holdings: readonly Holding[]): readonly string[] {
  const copies = new Map<string, { readonly name: string; readonly place: string }>();
  const homes = new Map<string, { readonly name: string; readonly place: string }>();
  return holdings.flatMap(({ stage, replica, devices, place }) => {
    const first = holdings.find((other) => other.stage === stage && other.replica === 0)?.devices ?? [];
    return devices.flatMap((name, rank) => {
      const home = first[rank] ?? name;
      const copy = copies.get(`${home} ${replica}`) ?? { name, place: place(rank) };
      const origin = homes.get(name) ?? { name: home, place: place(rank) };
      copies.set(`${home} ${replica}`, copy);
      homes.set(name, origin);
      if (origin.name !== home)
        return [
          `${place(rank)}: device "${name}" is the copy of ${origin.name} by ${origin.place}, here of ${home}: stages that share a device share its copies`,
        ];
      if (copy.name !== name)
        return [
          `${place(rank)}: device "${name}", but the copy of ${home} is "${copy.name}" by ${copy.place}: use the same`,
        ];
      return [];
    });
  });
}

function placeOf(stage: number, devices: readonly string[], at: number): string {
  return devices.length === 1 ? `stages[${stage}].device` : `stages[${stage}].devices[${at}]`;
}

function count(devices: number): string {
  return plural(devices, "device");
}

function plural(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function show(value: unknown): string {
  return typeof value === "number" ? String(value) : (JSON.stringify(value) ?? typeof value);
}
