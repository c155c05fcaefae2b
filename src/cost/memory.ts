/**
 * The memory of groups that are placed together: what lasts, and what one item leaves behind between its phases. How many items are
 * alive at once is the schedule's business.
 *
 *     F ──────── untilB ────────► B
 *     F ──────────────── untilW ──────────────► W
 *                                 B ── fromB ─► W
 */

import { sliceWeightGradients } from "../autodiff/slice.ts";
import { stateNames, statisticNames, type TrainingStep } from "../autodiff/training-step.ts";
import type { Graph, Phase, ValueId } from "../graph/graph.ts";
import { bytesOfType, type TensorType } from "../graph/shape.ts";

/** Bytes of a place (the groups that one stage holds). */
export interface PlaceMemory extends ItemMemory {
  /** Its own parameters, and its copies of tied ones. */
  readonly parameters: number;
  /** Gradients that arise here, and those that come from elsewhere for parameters that are owned here. */
  readonly gradients: number;
  readonly optimizer: number;
  /** Running statistics. */
  readonly statistics: number;
  /** Data inputs of one item. */
  readonly data: number;
}

/** Bytes of one item's values. */
export interface ItemMemory {
  /** What is kept from F to B, from F to W, and from B to W. */
  readonly untilB: number;
  readonly untilW: number;
  readonly fromB: number;
  /** The most that other values take: those that one segment (a group in a phase) gets from, or leaves to, other segments. */
  readonly passing: number;
}

/**
 * The item graph with phases as they are when `groups` are one place: only what leaves the place, or goes to the next item, is B. With
 * `fused` weights the whole derivative stays B.
 */
export function slicedFor(
  step: Pick<TrainingStep, "item" | "states">,
  placeOf: (group: string) => string,
  fused: boolean,
): Graph {
  if (fused) return step.item;
  const carried = step.states.filter(({ kind }) => kind === "carried");
  return sliceWeightGradients(
    step.item,
    new Set(carried.map(({ name }) => stateNames(name).leaving)),
    placeOf,
  );
}

/** The memory of `groups` as one place, for items of the shape of `step`. */
export function placeMemory(step: TrainingStep, groups: ReadonlySet<string>, fused: boolean): PlaceMemory {
  const graph = slicedFor(step, (group) => (groups.has(group) ? "here" : "elsewhere"), fused);
  const sum = (values: Iterable<ValueId>): number => bytesOfValues(graph, values);
  const used = usedInputs(graph, groups);
  const named = new Set([...used].map((value) => graph.inputs[value]?.name));
  const statistics = statisticNames(step.states);
  return {
    ...trainedBytes(step, groups, named),
    statistics: sum([...used].filter((value) => statistics.has(graph.inputs[value]?.name ?? ""))),
    data: sum([...used].filter((value) => graph.inputs[value]?.role === "data")),
    ...itemMemory(graph, groups, statistics),
  };
}

/** What `groups` keep of one item, without inputs of these names, which last. */
export function itemMemory(
  graph: Graph,
  groups: ReadonlySet<string>,
  lasting: ReadonlySet<string>,
): ItemMemory {
  const sum = (values: Iterable<ValueId>): number => bytesOfValues(graph, values);
  const held = heldValues(graph, groups, lasting);
  return {
    untilB: sum(held.untilB),
    untilW: sum(held.untilW),
    fromB: sum(held.fromB),
    passing: Math.max(0, ...passingValues(graph, groups, held).map(sum)),
  };
}

function bytesOfValues(graph: Graph, values: Iterable<ValueId>): number {
  return [...values].reduce((bytes, value) => bytes + bytesOfType(graph.types[value] as TensorType), 0);
}

function trainedBytes(
  step: TrainingStep,
  groups: ReadonlySet<string>,
  used: ReadonlySet<string | undefined>,
): Pick<PlaceMemory, "parameters" | "gradients" | "optimizer"> {
  const types = new Map(step.parameters.map(({ name, type }) => [name, type]));
  const owned = new Set(step.parameters.flatMap(({ name, group }) => (groups.has(group) ? [name] : [])));
  const sum = (names: readonly string[]): number =>
    names.reduce((bytes, name) => bytes + bytesOfType(types.get(name) as TensorType), 0);
  return {
    parameters: sum([...types.keys()].filter((name) => owned.has(name) || used.has(name))),
    gradients: sum(
      step.gradients.flatMap(({ input, group }) => (groups.has(group) || owned.has(input) ? [input] : [])),
    ),
    optimizer: sum(
      step.optimizerStates.flatMap(({ parameter }) => (owned.has(parameter) ? [parameter] : [])),
    ),
  };
}

function usedInputs(graph: Graph, groups: ReadonlySet<string>): ReadonlySet<ValueId> {
  const inputs = graph.inputs.length;
  return new Set(
    graph.nodes.flatMap((node) =>
      groups.has(node.group) ? node.inputs.filter((value) => value < inputs) : [],
    ),
  );
}

/** For each segment the values at its borders that are not held anyway. */
function passingValues(
  graph: Graph,
  groups: ReadonlySet<string>,
  held: ReturnType<typeof heldValues>,
): readonly ReadonlySet<ValueId>[] {
  const makers = new Map<ValueId, string>();
  const borders = new Map<string, Set<ValueId>>();
  const isHeld = (value: ValueId): boolean =>
    held.untilB.has(value) || held.untilW.has(value) || held.fromB.has(value);
  for (const { group, phase, inputs, outputs } of graph.nodes) {
    const segment = `${phase} ${group}`;
    if (groups.has(group) && !borders.has(segment)) borders.set(segment, new Set());
    for (const value of inputs) {
      const maker = makers.get(value);
      if (maker === undefined || maker === segment || isHeld(value)) continue;
      borders.get(segment)?.add(value);
      borders.get(maker)?.add(value);
    }
    for (const value of outputs) makers.set(value, segment);
  }
  return [...borders.values()];
}

/** Values that are made, or arrive, in one phase and are used here in a later one. */
function heldValues(
  graph: Graph,
  groups: ReadonlySet<string>,
  lasting: ReadonlySet<string>,
): { readonly [K in "untilB" | "untilW" | "fromB"]: ReadonlySet<ValueId> } {
  const madeIn = phasesOfValues(graph, lasting);
  const heldFrom = (from: Phase, until: Phase): Set<ValueId> => {
    const users = graph.nodes.filter(({ group, phase }) => groups.has(group) && phase === until);
    return new Set(users.flatMap(({ inputs }) => inputs).filter((value) => madeIn.get(value) === from));
  };
  const untilW = heldFrom("F", "W");
  const untilB = new Set([...heldFrom("F", "B")].filter((value) => !untilW.has(value)));
  return { untilB, untilW, fromB: heldFrom("B", "W") };
}

/** The phase that makes each value of an item; carried state counts as made in F. Data, parameters and scalars have none. */
function phasesOfValues(graph: Graph, lasting: ReadonlySet<string>): ReadonlyMap<ValueId, Phase> {
  const carried = graph.inputs.flatMap(({ role, name }, value): [ValueId, Phase][] =>
    role === "state" && !lasting.has(name) ? [[value, "F"]] : [],
  );
  const made = graph.nodes.flatMap(({ outputs, phase }) =>
    outputs.map((value): [ValueId, Phase] => [value, phase]),
  );
  return new Map([...carried, ...made]);
}
