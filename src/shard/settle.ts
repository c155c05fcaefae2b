/** The first split of a model: it settles how its parameters and statistics lie, for training and evaluation and items of any shape. */

import { UserError } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import { lossOutput } from "../model/forward.ts";
import { shardingProblems } from "./demands.ts";
import { splitGraph } from "./expand.ts";
import { rankCount } from "./mesh.ts";
import type { SplitGraph, SplitOptions } from "./split-source.ts";
import { splitItem } from "./step.ts";

/**
 * The forward graph `graph` over the meshes. Throws a `UserError` with everything that keeps it from being split as the layout asks: axes
 * that split nothing, shardings of parameters that cannot lie so, tied parameters on different meshes, halos that are too wide.
 */
export function settleParameters(graph: Graph, options: SplitOptions): SplitGraph {
  const source = { ...options, graph, given: new Map(), pending: new Map([[lossOutput, undefined]]) };
  if (graph.nodes.some(({ group }) => rankCount(options.meshOf(group).mesh) > 1))
    return splitGraph(source, true);
  const problems = shardingProblems({ source, limits: [] });
  if (problems.length > 0) throw new UserError("the model cannot be split over these devices", problems);
  return splitItem({ item: graph, states: [], gradients: [] }, options);
}
