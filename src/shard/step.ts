/** Splits both graphs of a training step, the update as the item graph has laid out the parameters. */

import { statisticNames, type TrainingStep } from "../autodiff/training-step.ts";
import { invariant } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { lossOutput } from "../model/forward.ts";
import { meetAfterForward, meetBeforeWeights } from "./exchanges.ts";
import { splitGraph } from "./expand.ts";
import { keepCollected } from "./keep-collected.ts";
import { type Axis, rankCount } from "./mesh.ts";
import { splitGroup } from "./sharded.ts";
import type { Sharding } from "./sharding.ts";
import type { GivenInput, SplitGraph, SplitOptions } from "./split-source.ts";

type Step = Pick<TrainingStep, "item" | "gradients" | "states">;

/**
 * The item graph over the meshes. Parameters and statistics lie as in `settled`.
 * Gradients and the loss may be left partial; they are summed over all items before they are summed over the ranks.
 */
export function splitItem(step: Step, options: SplitOptions, settled?: SplitGraph): SplitGraph {
  if (!isSplit(step.item, options)) return unsplit(step.item, options);
  const statistics = statisticNames(step.states);
  const lasting = step.item.inputs.filter(({ name, role }) => role === "parameter" || statistics.has(name));
  const given = new Map(
    lasting.flatMap(({ name, group }) => {
      const spread = settled?.inputs.get(name);
      return spread === undefined ? [] : [[name, { ...spread, group, isMade: false }] as const];
    }),
  );
  const pending = new Map<string, string | undefined>([
    ...step.gradients.map(({ input, output }) => [output, input] as const),
    [lossOutput, undefined],
  ]);
  const split = splitGraph({ ...options, graph: step.item, given, pending });
  const deviceOf = (name: string): string => {
    const { group, ranks } = splitGroup(name);
    return `${options.meshOf(group).stage} ${ranks}`;
  };
  const stageOf = (group: string): number => options.meshOf(group).stage;
  const graph = meetBeforeWeights(keepCollected(split.graph, deviceOf), stageOf);
  return { ...split, graph: meetAfterForward(graph, stageOf) };
}

/**
 * The update graph over the meshes: every rank updates what it has. Gradients and loss are summed over all ranks. On meshes with the
 * axis `data` the replicas share the update (ZeRO stage 1: Rajbhandari et al. 2020, section 5.1): gradients arrive as they are, each
 * replica gets its part of their sum, has that part of the optimizer's state, and updates that part of the parameter. Where they are
 * `dealt` out already, each replica has the part of the sum that it needs (stage 2).
 */
export function splitUpdate(
  { update, item }: Pick<TrainingStep, "update" | "item">,
  split: SplitGraph,
  options: SplitOptions,
  dealt = false,
): SplitGraph {
  if (!isSplit(item, options)) return unsplit(update, options);
  const makers = makersOf(item);
  const given = new Map(
    update.inputs.flatMap(({ name, role, group }): (readonly [string, GivenInput])[] => {
      if (role === "scalar") return [];
      const made = split.outputs.get(name);
      const spread = split.inputs.get(role === "state" ? parameterOf(name) : name) ?? made;
      if (spread === undefined) return [];
      const own = makers.get(name) ?? group;
      const place = options.meshOf(own);
      const data = place.mesh.axes.find(({ axis }) => axis === "data");
      const dims = spread.sharding.dims;
      const common = { ...place, group: own, isMade: made !== undefined };
      const whole = { dims, partial: [] };
      if (data === undefined || role === "parameter" || role === "data")
        return [[name, { ...common, sharding: whole }]];
      const shared = { dims: splitFirst(dims, data), partial: [] };
      if (role === "state" || dealt) return [[name, { ...common, sharding: shared }]];
      return [[name, { ...common, ...unsummed(spread.sharding, data) }]];
    }),
  );
  return splitGraph({ ...options, graph: update, given, pending: new Map() });
}

/** A gradient as the devices of its group have it in every replica. */
export interface LaidGradient {
  readonly name: string;
  /** Of the whole tensor. */
  readonly type: TensorType;
  readonly group: string;
  readonly sharding: Sharding;
}

/** The sum of a gradient over the replicas, as a graph over the mesh with the axis `data`: each replica gets the part that it updates. */
export function splitSum({ name, type, group, sharding }: LaidGradient, options: SplitOptions): SplitGraph {
  const place = options.meshOf(group);
  const data = place.mesh.axes.find(({ axis }) => axis === "data");
  invariant(data !== undefined, "a sum over replicas needs the axis data");
  const graph: Graph = {
    inputs: [{ name, role: "gradient", group }],
    nodes: [],
    outputs: [{ name, value: 0 }],
    types: [type],
  };
  const given = new Map([[name, { ...place, group, isMade: true, ...unsummed(sharding, data) }]]);
  return splitGraph({ ...options, graph, given, pending: new Map() });
}

/** A gradient that replicas have of their own samples, and how its sum is dealt out among them. */
function unsummed({ dims, partial }: Sharding, data: Axis): Pick<GivenInput, "sharding" | "summed"> {
  return {
    sharding: { dims, partial: [...partial, data.axis] },
    summed: { dims: splitFirst(dims, data), partial: [] },
  };
}

/** The dims with the first factor split that no axis splits yet and that is large enough; as they are where there is none. */
function splitFirst(dims: Sharding["dims"], along: Axis): Sharding["dims"] {
  for (const [dim, factors] of dims.entries()) {
    const at = factors.findIndex((factor) => factor.along === undefined && factor.size >= along.size);
    const { size } = factors[at] ?? { size: 0 };
    if (at >= 0) return dims.with(dim, factors.with(at, { size, along }));
  }
  return dims;
}

/** The parameter of an optimizer state `<state>:<parameter>`. */
function parameterOf(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

function isSplit({ nodes }: Graph, { meshOf }: SplitOptions): boolean {
  return [...new Set(nodes.map(({ group }) => group))].some((group) => rankCount(meshOf(group).mesh) > 1);
}

/** The group in which each output arises. */
function makersOf({ nodes, outputs }: Graph): ReadonlyMap<string, string> {
  const groups = new Map(nodes.flatMap((node) => node.outputs.map((value) => [value, node.group] as const)));
  return new Map(outputs.map(({ name, value }) => [name, groups.get(value) ?? ""]));
}

/** A graph of which nothing is split, as it is. */
function unsplit(graph: Graph, { meshOf }: SplitOptions): SplitGraph {
  const spread = (group: string, shape: readonly number[]) => ({
    ...meshOf(group),
    sharding: { dims: shape.map((size) => [{ size }]), partial: [] },
  });
  const makers = makersOf(graph);
  const shapeOf = (value: number) => graph.types[value]?.shape ?? [];
  return {
    graph,
    parts: new Map(),
    inputs: new Map(
      graph.inputs.flatMap(({ name, role, group }, value) =>
        role === "parameter" || role === "state" ? [[name, spread(group, shapeOf(value))] as const] : [],
      ),
    ),
    outputs: new Map(
      graph.outputs.map(({ name, value }) => [
        name,
        spread(makers.get(name) || (graph.inputs[value]?.group ?? ""), shapeOf(value)),
      ]),
    ),
  };
}
