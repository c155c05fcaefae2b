/** Splits both graphs of a training step, the update as the item graph has laid out the parameters. */

import { stateNames, type TrainingStep } from "../autodiff/training-step.ts";
import type { Graph } from "../graph/graph.ts";
import { lossOutput } from "../model/forward.ts";
import { splitGraph } from "./expand.ts";
import { rankCount } from "./mesh.ts";
import type { GivenInput, SplitGraph, SplitSource } from "./split-source.ts";

export type SplitOptions = Pick<SplitSource, "meshOf" | "chosen" | "timeDims">;

type Step = Pick<TrainingStep, "item" | "gradients" | "states">;

/**
 * The item graph over the meshes. Parameters and statistics lie as in `settled`.
 * Gradients and the loss may be left partial; they are summed over all items before they are summed over the ranks.
 */
export function splitItem(step: Step, options: SplitOptions, settled?: SplitGraph): SplitGraph {
  if (!isSplit(step.item, options)) return unsplit(step.item, options);
  const statistics = step.states.flatMap(({ name, kind }) =>
    kind === "statistic" ? [stateNames(name).value] : [],
  );
  const lasting = step.item.inputs.filter(
    ({ name, role }) => role === "parameter" || statistics.includes(name),
  );
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
  return splitGraph({ ...options, graph: step.item, given, pending });
}

/** The update graph over the meshes: every rank updates what it has. Gradients and loss are summed over all ranks. */
export function splitUpdate(
  { gradients, update, item }: Pick<TrainingStep, "gradients" | "update" | "item">,
  split: SplitGraph,
  options: SplitOptions,
): SplitGraph {
  if (!isSplit(item, options)) return unsplit(update, options);
  const makers = new Map(gradients.map(({ output, group }) => [output, group]));
  const given = new Map(
    update.inputs.flatMap(({ name, role, group }): (readonly [string, GivenInput])[] => {
      if (role === "scalar") return [];
      const made = split.outputs.get(name);
      const spread = split.inputs.get(role === "state" ? parameterOf(name) : name) ?? made;
      if (spread === undefined) return [];
      const sharding = { ...spread.sharding, partial: [] };
      return [[name, { ...spread, sharding, group: makers.get(name) ?? group, isMade: made !== undefined }]];
    }),
  );
  return splitGraph({ ...options, graph: update, given, pending: new Map() });
}

/** The parameter of an optimizer state `<state>:<parameter>`. */
function parameterOf(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

function isSplit({ nodes }: Graph, { meshOf }: SplitOptions): boolean {
  return [...new Set(nodes.map(({ group }) => group))].some((group) => rankCount(meshOf(group).mesh) > 1);
}

/** A graph of which nothing is split, as it is. */
function unsplit(graph: Graph, { meshOf }: SplitOptions): SplitGraph {
  const spread = (group: string, shape: readonly number[]) => ({
    ...meshOf(group),
    sharding: { dims: shape.map((size) => [{ size }]), partial: [] },
  });
  const makers = new Map(
    graph.nodes.flatMap(({ outputs, group }) => outputs.map((value) => [value, group] as const)),
  );
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
        spread(makers.get(value) ?? graph.inputs[value]?.group ?? "", shapeOf(value)),
      ]),
    ),
  };
}
