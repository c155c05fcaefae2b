/**
 * Pairs of devices in plain words. Devices that stand alike to all others are named together, so that a grid of machines takes few lines:
 *
 *     cpu:0 and cpu:2, cpu:1 and cpu:3: same layer at the same time
 *     {cpu:0, cpu:2} and {cpu:1, cpu:3}: through the stream only
 */
import type { DevicePair, PairKind } from "./pairs.ts";

/**
 * One line for each kind of pair, with the shares of what both did at the same time; `names` are those of `Trace.devices`. None where no
 * two devices ever compute at the same time.
 */
export function describePairs(names: readonly string[], pairs: readonly DevicePair[]): readonly string[] {
  const kinds = order.filter((kind) => pairs.some((pair) => pair.kind === kind));
  if (kinds.every((kind) => kind === "never")) return [];
  const classes = twinClasses(names.length, pairs);
  return kinds.map((kind, line) => {
    const alike = pairs.filter((pair) => pair.kind === kind);
    const of = line === 0 ? " of the less busy one's computing time" : "";
    return `${namePairs(names, classes, alike)}: ${describeKind(kind, alike, of)}.`;
  });
}

const words: { readonly [K in PairKind]: string } = {
  layer: "same layer at the same time",
  ahead: "one ahead of the other in the same layers",
  samples: "different samples of the same layer",
  replicas: "different samples in different layers",
  stream: "through the stream",
  branches: "parallel branches",
  weights: "gradients of weights, for which no device waits",
};

/** In the order in which lines are written. */
const order: readonly DevicePair["kind"][] = [...(Object.keys(words) as PairKind[]), "never"];

/** `through the stream only (60 %)`, `through the stream (34 %), parallel branches (up to 20 %)`; `of` says of what. */
function describeKind(kind: DevicePair["kind"], alike: readonly DevicePair[], of: string): string {
  if (kind === "never") return "never at the same time";
  const others = order.filter(
    (other): other is PairKind => other !== "never" && alike.some(({ also }) => also.includes(other)),
  );
  const share = (other: PairKind) => range(alike.map(({ kinds }) => kinds[other] ?? 0));
  const only = kind === "stream" && others.length === 0 ? " only" : "";
  const rest = others.map((other) => `, ${words[other]} (${share(other)})`).join("");
  return `${words[kind]}${only} (${share(kind)}${of})${rest}`;
}

/** More than this many sets of devices in a line are counted, not named. */
const namedSets = 6;

/** All of `alike`, which are all pairs of one kind, by the classes that their devices belong to. */
function namePairs(
  names: readonly string[],
  classes: readonly (readonly number[])[],
  alike: readonly DevicePair[],
): string {
  const classOf = (device: number): number => classes.findIndex((devices) => devices.includes(device));
  const keys = alike.map(({ devices }) =>
    [...new Set(devices.map(classOf))].toSorted((a, b) => a - b).join(),
  );
  const sets = [...new Set(keys)].map((key) => {
    const [first = [], second] = key.split(",").map((index) => classes[Number(index)] ?? []);
    if (second !== undefined) return `${nameSet(names, first)} and ${nameSet(names, second)}`;
    const [one = 0, two = 0, ...more] = first;
    return more.length === 0
      ? `${names[one]} and ${names[two]}`
      : `${nameList(names, first)} with each other`;
  });
  if (sets.length <= namedSets) return sets.join(", ");
  return `${sets.slice(0, namedSets).join(", ")}, ... (${alike.length} pairs)`;
}

/** `cpu:0`, `{cpu:0, cpu:2}`. */
function nameSet(names: readonly string[], devices: readonly number[]): string {
  return devices.length === 1 ? nameList(names, devices) : `{${nameList(names, devices)}}`;
}

/** `cpu:0, cpu:2`; from four neighbours on `cpu:0 to cpu:3`. */
function nameList(names: readonly string[], devices: readonly number[]): string {
  const [first = 0] = devices;
  const isRun = devices.length > 3 && devices.every((device, i) => device === first + i);
  return isRun
    ? `${names[first]} to ${names[devices.at(-1) ?? first]}`
    : devices.map((device) => names[device]).join(", ");
}

/**
 * Devices that make the same kind of pair with every other device, together; by the first of them. Being such twins is transitive: of
 * three devices, what two pairs of twins share makes the third pair twins too.
 */
function twinClasses(count: number, pairs: readonly DevicePair[]): readonly (readonly number[])[] {
  const kinds = new Map(pairs.map(({ devices, kind }) => [devices.join(), kind]));
  const kindOf = (a: number, b: number) => kinds.get(a < b ? `${a},${b}` : `${b},${a}`);
  const all = Array.from({ length: count }, (_, device) => device);
  const classes: number[][] = [];
  for (const device of all) {
    const twins = classes.find(([first = 0]) =>
      all.every(
        (other) => other === first || other === device || kindOf(first, other) === kindOf(device, other),
      ),
    );
    if (twins === undefined) classes.push([device]);
    else twins.push(device);
  }
  return classes;
}

function range(values: readonly number[]): string {
  const [least, most] = [percent(Math.min(...values)), percent(Math.max(...values))];
  return least === most ? most : `${least.replace(" %", "")} to ${most}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}
