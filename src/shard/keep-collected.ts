/**
 * Keeps a collected image for backward, and not the slab in it beside it: what derivatives read of the slab they cut out of the image.
 *
 *     F   x ──────────┬─► relu ...              F   x ──────────┐
 *         halo, x ────┴─► c = concat ─┐             halo, x ────┴─► c = concat ─┐
 *     B   reads x and c               ▼         B   reads x' = slice(c), and c  ▼
 *
 * A chain of convolutions would otherwise keep nearly every image twice on every device.
 */

import { GraphBuilder, replay } from "../graph/builder.ts";
import { sliceDim } from "../graph/functions.ts";
import { type Graph, type Node, typeOf, type ValueId } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";

/** Where a value lies in another one, both made on one device. */
interface Home {
  readonly device: string;
  readonly collected: ValueId;
  readonly dim: number;
  readonly start: number;
  readonly stop: number;
}

/** A graph that computes the same; `deviceOf` tells where the operations of a group run. */
export function keepCollected(graph: Graph, deviceOf: (group: string) => string): Graph {
  const homes = homesOf(graph, deviceOf);
  if (homes.size === 0) return graph;
  const builder = new GraphBuilder();
  const cut = (value: ValueId, tensors: readonly Tensor[]): Tensor => {
    const home = homes.get(value);
    if (home === undefined) return tensors[value] as Tensor;
    const { collected, dim, start, stop } = home;
    return sliceDim(cut(collected, tensors), dim, start, stop);
  };
  const tensors = replay(builder, graph, (value, node, made) => {
    const isHere = isLater(node) && deviceOf(node.group) === homes.get(value)?.device;
    return isHere ? cut(value, made) : (made[value] as Tensor);
  });
  for (const { name, value } of graph.outputs) builder.output(name, tensors[value] as Tensor);
  return builder.build();
}

/** The values that derivatives can cut out of another one that is kept for them in any case. */
function homesOf(graph: Graph, deviceOf: (group: string) => string): ReadonlyMap<ValueId, Home> {
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
  const later = new Set(graph.nodes.flatMap((node) => (isLater(node) ? node.inputs : [])));
  const homes = new Map<ValueId, Home>();
  for (const node of graph.nodes.toReversed()) {
    const [collected] = node.outputs;
    if (node.op.kind !== "concat" || isLater(node) || collected === undefined) continue;
    if (!later.has(collected) && !homes.has(collected)) continue;
    const { dim } = node.op;
    const device = deviceOf(node.group);
    let start = 0;
    for (const value of node.inputs) {
      const stop = start + (typeOf(graph, value).shape[dim] as number);
      const maker = makers.get(value);
      if (maker !== undefined && deviceOf(maker.group) === device && !homes.has(value))
        homes.set(value, { device, collected, dim, start, stop });
      start = stop;
    }
  }
  return homes;
}

function isLater({ phase }: Node): boolean {
  return phase !== "F";
}
