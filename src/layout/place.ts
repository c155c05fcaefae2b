/**
 * Placement by hand, as MXNet's `group2ctx`: from the command line (`--devices cpu:2 --place "embed=cpu:0,layer*=cpu:1"`) or from the job
 * (`place: { embed: "cpu:0", "layer*": "cpu:1" }`). Where several rules match a group the last one counts, so that `*=cpu:0,decode=cpu:1`
 * means what it says.
 */

import { UserError } from "../base/errors.ts";
import type { LayoutDevice, LayoutStage } from "./layout.ts";
import { type GroupEdge, runsOf, stagesOf, unitsInOrder } from "./order.ts";

/** Groups whose whole name fits `pattern` (`*` any text, `?` any one character) go to `device`. */
export interface PlaceRule {
  readonly pattern: string;
  readonly device: string;
}

/** The rules of `pattern=device,pattern=device,...`. */
export function parsePlace(text: string): readonly PlaceRule[] {
  const parts = text.split(",").map((part) => part.trim());
  const rules = parts.map((part): PlaceRule => {
    const at = part.lastIndexOf("=");
    return { pattern: part.slice(0, Math.max(at, 0)).trim(), device: part.slice(at + 1).trim() };
  });
  const problems = rules.flatMap(({ pattern, device }, i) =>
    pattern !== "" && device !== "" ? [] : [`expected group=device, got "${parts[i]}"`],
  );
  if (problems.length > 0) throw new UserError(`cannot read the placement "${text}"`, problems);
  return rules;
}

/** The rules of a record from pattern to device, in its order. */
export function placeRules(place: { readonly [pattern: string]: string }): readonly PlaceRule[] {
  return Object.entries(place).map(([pattern, device]) => ({ pattern, device }));
}

/** More is taken for a slip of the keyboard. */
const mostDevices = 1024;

/**
 * Devices from a text: `cpu:2` is two devices, `cpu:2x4` two devices of 4 threads each, `cpu:0,cpu:1` names each one; `cpu:0x4` names one
 * with 4 threads. A single number above 0 is a count, several are names.
 */
export function parseDevices(text: string): readonly LayoutDevice[] {
  const parts = text.split(",").map((part) => part.trim());
  const read = parts.map((part) => {
    const match = /^([a-z][a-z0-9]*):(\d+)(?:x(\d+))?$/.exec(part);
    const [, kind = "", number = "", threads = "1"] = match ?? [];
    return { part, kind, number: Number(number), threads: Number(threads), isRead: match !== null };
  });
  const problems = read.flatMap(({ part, number, threads, isRead }) => [
    ...(isRead
      ? []
      : [`expected a count such as cpu:2 or cpu:2x4, or names such as cpu:0,cpu:1, got "${part}"`]),
    ...(parts.length === 1 && number > mostDevices ? [`at most ${mostDevices} devices, got "${part}"`] : []),
    ...(threads > 0 ? [] : [`"${part}" has no threads: give at least 1`]),
  ]);
  const [only] = read;
  const isCount = read.length === 1 && (only?.number ?? 0) > 0;
  const devices = isCount
    ? Array.from({ length: Math.min(only?.number ?? 0, mostDevices) }, (_, i) => ({
        name: `${only?.kind}:${i}`,
        threads: only?.threads ?? 1,
      }))
    : read.map(({ kind, number, threads }) => ({ name: `${kind}:${number}`, threads }));
  const names = devices.map(({ name }) => name);
  for (const name of new Set(names.filter((device, i) => names.indexOf(device) < i)))
    problems.push(`device "${name}" is given twice`);
  if (problems.length > 0) throw new UserError(`cannot read the devices "${text}"`, problems);
  return devices;
}

/** Stages, and the devices in the order in which the stages use them first. */
export interface HandPlacement {
  readonly devices: readonly LayoutDevice[];
  readonly stages: readonly LayoutStage[];
}

/**
 * The stages that `rules` ask for: runs of groups, in the order in which values flow (`edges`), on one device. A device may have several
 * stages. Throws a `UserError` that lists unknown devices, rules that fit no group, groups that no rule fits, and devices without groups.
 */
export function placeByHand(
  groups: readonly string[],
  edges: readonly GroupEdge[],
  rules: readonly PlaceRule[],
  devices: readonly LayoutDevice[],
): HandPlacement {
  const ruleOf = new Map(
    groups.map((group) => [group, rules.findLast(({ pattern }) => fits(pattern, group))]),
  );
  const problems = [...ruleProblems(groups, rules, devices), ...coverProblems(groups, ruleOf, devices)];
  if (problems.length > 0) throw new UserError("the placement cannot be used", problems);
  const units = unitsInOrder(groups, edges);
  const deviceOf = (group: string): string => ruleOf.get(group)?.device ?? "";
  const torn = units.filter((unit) => new Set(unit.map(deviceOf)).size > 1);
  if (torn.length > 0)
    throw new UserError(
      "the placement cannot be used",
      torn.map(
        (unit) => `groups ${unit.join(", ")} need each other's values in turn: put them on one device`,
      ),
    );
  const runs = runsOf(units, edges, deviceOf);
  const used = [...new Set(runs.map(({ device }) => device))];
  return {
    devices: used.map((name) => devices.find((device) => device.name === name) as LayoutDevice),
    stages: stagesOf(runs),
  };
}

function ruleProblems(
  groups: readonly string[],
  rules: readonly PlaceRule[],
  devices: readonly LayoutDevice[],
): string[] {
  const names = devices.map(({ name }) => name);
  return rules.flatMap(({ pattern, device }) => [
    ...(names.includes(device)
      ? []
      : [`"${pattern}=${device}": unknown device "${device}"; the devices are ${names.join(", ")}`]),
    ...(groups.some((group) => fits(pattern, group))
      ? []
      : [`"${pattern}=${device}": no group is called that; the groups are ${groups.join(", ")}`]),
  ]);
}

function coverProblems(
  groups: readonly string[],
  ruleOf: ReadonlyMap<string, PlaceRule | undefined>,
  devices: readonly LayoutDevice[],
): string[] {
  const missing = groups.filter((group) => ruleOf.get(group) === undefined);
  const idle = devices.filter(({ name }) => groups.every((group) => ruleOf.get(group)?.device !== name));
  return [
    ...(missing.length === 0
      ? []
      : [`no rule places ${missing.join(", ")}; a first rule "*=${devices[0]?.name}" would place the rest`]),
    ...idle.map(({ name }) => `device "${name}" gets no group: place one there or leave the device out`),
  ];
}

function fits(pattern: string, group: string): boolean {
  const source = pattern.replace(/[.*+?^${}()|[\]\\]/g, (character) =>
    character === "*" ? ".*" : character === "?" ? "." : `\\${character}`,
  );
  return new RegExp(`^${source}$`, "su").test(group);
}
