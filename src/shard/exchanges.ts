/** Where the devices of a mesh exchange values, and the phases in which they should. */

import { type Graph, type Node, typeOf, type ValueId } from "../graph/graph.ts";
import type { OpOf } from "../graph/op.ts";
import { sizeOf } from "../graph/shape.ts";
import { lossOutput } from "../model/forward.ts";
import { splitGroup } from "./sharded.ts";

export type CollectiveOp = OpOf<"all-reduce" | "all-gather" | "reduce-scatter">;

/** Whether a node is an exchange between devices. */
export function isExchange(node: Node): node is Node & { readonly op: CollectiveOp } {
  return node.op.kind === "all-reduce" || node.op.kind === "all-gather" || node.op.kind === "reduce-scatter";
}

/** The stage of a group of the whole graph. */
type StageOf = (group: string) => number;

/**
 * Tells of the nodes of a split graph in which ranks of one stage wait for each other: exchanges, and those that use what another rank
 * makes in the same phase. What it made in an earlier phase is a message like any other.
 */
export function meetingsOf(graph: Graph, stageOf: StageOf): ReadonlySet<Node> {
  const comesFromPeer = peerFinder(graph, stageOf);
  return new Set(
    graph.nodes.filter((node) => isExchange(node) || node.inputs.some((value) => comesFromPeer(value, node))),
  );
}

/** Whether a node uses a value that another rank of its stage makes in the same phase, not in an exchange. */
function peerFinder(graph: Graph, stageOf: StageOf): (value: ValueId, user: Node) => boolean {
  const makers = makersOf(graph);
  const placeOf = ({ group: name, phase }: Node) => {
    const { group, ranks } = splitGroup(name);
    return { common: `${stageOf(group)} ${phase}`, ranks: ranks.join() };
  };
  return (value, user) => {
    const maker = makers.get(value);
    if (maker === undefined || isExchange(maker)) return false;
    const [own, other] = [placeOf(user), placeOf(maker)];
    return other.common === own.common && other.ranks !== own.ranks;
  };
}

/**
 * `graph` with every exchange of phase W, what ranks send each other in it, and what that needs of the phase, in phase B. Nobody waits for a
 * W, so each device of a mesh does its own when it has nothing more urgent to do; it must not wait in it for the others.
 */
export function meetBeforeWeights(graph: Graph, stageOf: StageOf): Graph {
  const comesFromPeer = peerFinder(graph, stageOf);
  const needed = new Set<ValueId>();
  const nodes = graph.nodes.toReversed().map((node): Node => {
    if (node.phase !== "W") return node;
    const isEarly = isExchange(node) || node.outputs.some((value) => needed.has(value));
    for (const value of node.inputs) if (isEarly || comesFromPeer(value, node)) needed.add(value);
    return isEarly ? { ...node, phase: "B" } : node;
  });
  return { ...graph, nodes: nodes.reverse() };
}

/**
 * `graph` with the end of phase F, from where the ranks of a stage meet, in phase B: each device of a mesh does its F by itself, as soon as
 * it has what that needs. Only behind the last layer, where nobody waits for what comes so late but for the loss, and where it is no
 * larger than what they exchange.
 */
export function meetAfterForward(graph: Graph, stageOf: StageOf): Graph {
  const stageAt = ({ group }: Node): number => stageOf(splitGroup(group).group);
  const goesBack = new Set(graph.nodes.flatMap((node) => (node.phase === "B" ? [stageAt(node)] : [])));
  const meetings = [...meetingsOf(graph, stageOf)].filter(
    (node) => node.phase === "F" && goesBack.has(stageAt(node)),
  );
  const late = new Set(
    [...new Set(meetings.map(stageAt))].flatMap((stage) => {
      const own = meetings.filter((node) => stageAt(node) === stage);
      const end = endFrom(graph, own, (node) => node.phase === "F" && stageAt(node) === stage);
      return own.every((node) => end.has(node)) ? [...end] : [];
    }),
  );
  if (late.size === 0) return graph;
  return { ...graph, nodes: graph.nodes.map((node) => (late.has(node) ? { ...node, phase: "B" } : node)) };
}

/** The nodes behind some `meetings` that nobody but each other and later phases needs: without parameters, nothing larger than those. */
function endFrom(
  graph: Graph,
  meetings: readonly Node[],
  isHere: (node: Node) => boolean,
): ReadonlySet<Node> {
  const makers = makersOf(graph);
  const sizeOfResults = ({ outputs }: Node): number =>
    Math.max(...outputs.map((value) => sizeOf(typeOf(graph, value).shape)));
  const largest = Math.max(0, ...meetings.map(sizeOfResults));
  const behind = new Set(meetings);
  for (const node of graph.nodes)
    if (isHere(node) && node.inputs.some((value) => behind.has(makers.get(value) as Node))) behind.add(node);
  const awaited = new Set(
    graph.outputs.flatMap(({ name, value }) => (splitGroup(name).group === lossOutput ? [] : [value])),
  );
  const end = new Set<Node>();
  for (const node of graph.nodes.toReversed()) {
    const isSmall = sizeOfResults(node) <= largest;
    const isLayer = node.inputs.some((value) => graph.inputs[value]?.role === "parameter");
    const mayWait = isSmall && !isLayer && !node.outputs.some((value) => awaited.has(value));
    if (behind.has(node) && mayWait) end.add(node);
    else if (node.phase === "F") for (const value of node.inputs) awaited.add(value);
  }
  return end;
}

function makersOf({ nodes }: Graph): ReadonlyMap<ValueId, Node> {
  return new Map(nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
}
