/**
 * Splits a graph over the meshes of its groups: every operation becomes one for each rank, on its part of the tensors, with collective
 * operations between them where parts do not suffice. The split graph is a graph like any other, so the reference engine evaluates it.
 *
 *     y = matmul(x, w)   ⇒   y#0 = matmul(x#0, w#0)   y#1 = matmul(x#1, w#1)   y, y = all-reduce(y#0, y#1)
 *
 * Splits spread from operands to results through the iteration spaces. What starts them: the weights of layers (axis `tensor`), the
 * windows of convolutions (`height`, `width`), and the time steps of data inputs (`sequence`).
 */

import { UserError } from "../base/errors.ts";
import { GraphBuilder } from "../graph/builder.ts";
import { type Graph, typeOf } from "../graph/graph.ts";
import { withoutDeadNodes } from "../graph/subgraph.ts";
import { byLoops } from "./by-loops.ts";
import { unmetDemands } from "./demands.ts";
import { freeValue } from "./free.ts";
import { declareInputs } from "./inputs.ts";
import { rankCount } from "./mesh.ts";
import { declareOutputs } from "./outputs.ts";
import { specialRules } from "./rules.ts";
import type { Sharded } from "./sharded.ts";
import { axesOf } from "./sharding.ts";
import type { Site, SplitContext } from "./site.ts";
import type { Part, SplitGraph, SplitSource } from "./split-source.ts";
import { type StagePlace, Values } from "./values.ts";

/**
 * Throws a `UserError` that lists all reasons why it cannot be split as asked; where it `settles` how parameters lie, also why what the
 * layout asks for would split nothing.
 */
export function splitGraph(source: SplitSource, settles = false): SplitGraph {
  const { graph } = source;
  const builder = new GraphBuilder();
  const problems = new Set<string>();
  const context: SplitContext = {
    source,
    builder,
    values: new Values({ chosen: source.chosen, problems }),
    uses: usesOf(graph),
    positions: new Map(),
    tables: new Map(),
    stacks: new Map(),
    factors: new Map(),
    problems,
    limits: [],
    carried: new Map(),
  };
  const parts = new Map<string, Part>();
  declareInputs(context, parts);
  for (const node of graph.nodes) {
    const place: StagePlace = { builder, group: node.group, phase: node.phase, ...source.meshOf(node.group) };
    const operands = node.inputs.map((value) => typeOf(graph, value));
    const results = node.outputs.map((value) => typeOf(graph, value));
    splitNode({ ...context, node, place, operands, results });
  }
  if (settles) for (const problem of unmetDemands(context)) problems.add(problem);
  if (problems.size > 0) throw new UserError("the model cannot be split over these devices", [...problems]);
  const outputs = declareOutputs(context, parts);
  const inputs = new Map(
    graph.inputs.flatMap(({ name }, value) => {
      const entry = context.values.entry(value);
      if (entry.kind !== "made") return [];
      const { stage, mesh } = entry.place;
      return [[name, { stage, mesh, sharding: entry.value.sharding }] as const];
    }),
  );
  return { graph: withoutDeadNodes(builder.build()), parts, inputs, outputs };
}

function usesOf({ nodes, outputs }: Graph): ReadonlyMap<number, number> {
  const uses = new Map<number, number>();
  const count = (value: number) => uses.set(value, (uses.get(value) ?? 0) + 1);
  for (const node of nodes) for (const value of new Set(node.inputs)) count(value);
  for (const { value } of outputs) count(value);
  return uses;
}

function splitNode(site: Site): void {
  const { node, place, values, results } = site;
  const [result] = results;
  const isOne = rankCount(place.mesh) === 1;
  const free = isOne || result === undefined ? undefined : freeValue(values, node, place, result);
  if (free !== undefined) values.set(node.outputs[0] as number, free);
  else give(site, (isOne ? undefined : specialRules[node.op.kind]?.(site)) ?? byLoops(site));
}

function give({ node, place, values, carried }: Site, made: readonly Sharded[]): void {
  const axes = made.flatMap(({ sharding }) => [...sharding.dims.flatMap(axesOf), ...sharding.partial]);
  carried.set(place.stage, new Set([...(carried.get(place.stage) ?? []), ...axes]));
  made.forEach((value, i) => {
    values.set(node.outputs[i] as number, { kind: "made", place, value });
  });
}
