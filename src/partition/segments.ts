/**
 * Cuts a graph into segments: the pieces that are compiled and run as a whole. A segment holds operations of one place (stage, group,
 * phase) and is convex: no path leaves it and comes back, so segments can be run one after another.
 *
 *     level(node) = max over operands of level(operand) + (0 if it has the same place, else 1)
 *
 * Nodes of one place and level form a segment. Nodes that only need little (a dropout mask, a constant) would start segments of their
 * own at level 0; they move up to the segment that uses them.
 */

import type { Graph, Node, ValueId } from "../graph/graph.ts";
import { subgraph } from "../graph/subgraph.ts";
import { type CollectiveOp, isExchange } from "../shard/exchanges.ts";

export interface Segment {
  readonly place: string;
  /** Its inputs and outputs are named by the values of the whole graph: input i is `inputs[i]`. */
  readonly graph: Graph;
  readonly inputs: readonly ValueId[];
  readonly outputs: readonly ValueId[];
  /** Group and phase of its first operation; the same for all where the place says so. */
  readonly group: string;
  readonly phase: Node["phase"];
  /** What it is, where it is an exchange between devices instead of work of one. */
  readonly exchange?: Node & { readonly op: CollectiveOp };
}

/** The segments of `graph` in an order in which they can run. Values that are graph outputs or used elsewhere are outputs. */
export function cutSegments(graph: Graph, placeOf: (node: Node) => string): readonly Segment[] {
  const levels = levelsOf(graph, placeOf);
  const members = new Map<string, Node[]>();
  graph.nodes.forEach((node, i) => {
    const key = `${String(levels[i]).padStart(8, "0")} ${placeOf(node)}`;
    members.set(key, [...(members.get(key) ?? []), node]);
  });
  const order = [...members.keys()].map((key, first) => ({ key, level: Number(key.slice(0, 8)), first }));
  order.sort((a, b) => a.level - b.level || a.first - b.first);
  const uses = usesOf(graph);
  return order.map(({ key }) => segmentOf(graph, members.get(key) as Node[], placeOf, uses));
}

function levelsOf(graph: Graph, placeOf: (node: Node) => string): readonly number[] {
  const maker = makersOf(graph);
  const places = graph.nodes.map(placeOf);
  const levels: number[] = [];
  graph.nodes.forEach((node, i) => {
    let level = 0;
    for (const value of node.inputs) {
      const from = maker.get(value);
      if (from !== undefined)
        level = Math.max(level, (levels[from] as number) + (places[from] === places[i] ? 0 : 1));
    }
    levels.push(level);
  });
  return raiseLevels(graph, places, levels);
}

/** Moves a node up to the first segment of its own place that uses it, where users at other places do not come earlier. */
function raiseLevels(graph: Graph, places: readonly string[], levels: readonly number[]): readonly number[] {
  const maker = makersOf(graph);
  const raised = [...levels];
  const nearest = levels.map(() => Number.POSITIVE_INFINITY);
  const before = levels.map(() => Number.POSITIVE_INFINITY);
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const target = nearest[i] as number;
    if (Number.isFinite(target) && target < (before[i] as number))
      raised[i] = Math.max(raised[i] as number, target);
    for (const value of (graph.nodes[i] as Node).inputs) {
      const from = maker.get(value);
      if (from === undefined) continue;
      const limits = places[from] === places[i] ? nearest : before;
      limits[from] = Math.min(limits[from] as number, raised[i] as number);
    }
  }
  return raised;
}

/** Index of the node that makes each value. */
function makersOf(graph: Graph): Map<ValueId, number> {
  return new Map(graph.nodes.flatMap((node, i) => node.outputs.map((value) => [value, i] as const)));
}

/** For each value the nodes that use it, and whether it is an output of the graph. */
function usesOf(graph: Graph): {
  readonly users: ReadonlyMap<ValueId, readonly Node[]>;
  readonly outputs: ReadonlySet<ValueId>;
} {
  const users = new Map<ValueId, Node[]>();
  for (const node of graph.nodes) {
    for (const value of node.inputs) users.set(value, [...(users.get(value) ?? []), node]);
  }
  return { users, outputs: new Set(graph.outputs.map(({ value }) => value)) };
}

function segmentOf(
  graph: Graph,
  nodes: readonly Node[],
  placeOf: (node: Node) => string,
  uses: ReturnType<typeof usesOf>,
): Segment {
  const inside = new Set(nodes);
  const made = nodes.flatMap((node) => node.outputs);
  const isMade = new Set(made);
  const inputs = [...new Set(nodes.flatMap((node) => node.inputs))].filter((value) => !isMade.has(value));
  const outputs = made.filter(
    (value) => uses.outputs.has(value) || (uses.users.get(value) ?? []).some((user) => !inside.has(user)),
  );
  const [first] = nodes as readonly [Node, ...Node[]];
  return {
    place: placeOf(first),
    graph: subgraph(
      graph,
      nodes,
      inputs,
      outputs.map((value) => ({ name: `%${value}`, value })),
    ),
    inputs,
    outputs,
    group: first.group,
    phase: first.phase,
    ...(isExchange(first) && { exchange: first }),
  };
}
