/**
 * Where the tensor axis starts: a layer whose weights are not split yet, and whose input does not split it, gets its output features
 * (columns) split. The next layer then finds its input split, and follows with its input features (rows):
 *
 *     x ── w₁ [H/tensor, I] ──► h [.., H/tensor] ── w₂ [O, H/tensor] ──► y + tensor      (one all-reduce for the pair)
 *
 * Shoeybi et al. 2019, "Megatron-LM", section 3.
 */

import { type Graph, type Node, typeOf } from "../graph/graph.ts";
import type { IterationSpace } from "../graph/op-rules.ts";
import { rulesOf } from "../graph/op-table.ts";
import { sameShape, sizeOf } from "../graph/shape.ts";
import { type LoopFactors, splitLoops } from "./follow.ts";
import type { Axis } from "./mesh.ts";
import { axesOf, type Factors } from "./sharding.ts";
import type { SplitSource } from "./split-source.ts";
import type { StagePlace, Values } from "./values.ts";

/** `loops` with a split along the tensor axis, where this node is the first to use a weight and no operand brings one. */
export function chooseLoops(
  source: SplitSource,
  values: Values,
  node: Node,
  place: StagePlace,
  space: IterationSpace,
  loops: LoopFactors,
): LoopFactors {
  const along = place.mesh.axes.find(({ axis }) => axis === "tensor");
  const isTaken = [...loops.values()].some((factors) => axesOf(factors).includes("tensor"));
  if (along === undefined || isTaken) return loops;
  for (const [operand, value] of node.inputs.entries()) {
    const entry = values.entry(value);
    if (entry.kind !== "open" || !entry.isParameter) continue;
    const dim = source.chosen.get(entry.name) ?? firstDim(node, space, operand);
    if (dim === undefined || dim === "whole") continue;
    const index = space.operands[operand]?.[dim] ?? [];
    const grain = grainOf(source.graph, node, space, index);
    const factors = splitDim(entry.type.shape[dim] as number, grain, along);
    const split = factors && splitLoops(space, index, factors);
    if (split?.every(([loop]) => !loops.has(loop) && space.loops[loop]?.kind !== "whole") === true)
      return new Map([...loops, ...split]);
  }
  return loops;
}

/**
 * The size of the pieces in which the results are used later, where a reshape takes them apart: the heads of an attention stay whole.
 * Followed through operations that keep the shape.
 */
function grainOf(graph: Graph, node: Node, space: IterationSpace, index: readonly number[]): number {
  const dim = space.results[0]?.findIndex((loops) => loops.some((loop) => index.includes(loop))) ?? -1;
  let value = node.outputs[0] as number;
  for (;;) {
    const current = value;
    const user = graph.nodes.find(({ inputs, phase }) => phase === node.phase && inputs.includes(current));
    if (user === undefined || dim < 0) return 1;
    const [from, to] = [typeOf(graph, value).shape, typeOf(graph, user.outputs[0] as number).shape];
    if (user.op.kind === "reshape") {
      const { operands, loops } = rulesOf("reshape").space(
        user.op,
        [typeOf(graph, value)],
        [typeOf(graph, user.outputs[0] as number)],
      );
      const inner = operands[0]?.[dim]?.slice(1) ?? [];
      return sizeOf(inner.map((loop) => loops[loop]?.size ?? 1));
    }
    if (!sameShape(from, to) || user.outputs.length > 1) return 1;
    value = user.outputs[0] as number;
  }
}

/** A dim in pieces of `grain` elements; `undefined` where there are fewer pieces than devices. */
export function splitDim(size: number, grain: number, along: Axis): Factors | undefined {
  const pieces = size / grain;
  if (!Number.isInteger(pieces) || pieces < along.size) return undefined;
  return [{ size: pieces, along }, ...(grain > 1 ? [{ size: grain }] : [])];
}

/** The dim of a layer's weight that its results have: output features of a linear layer, output channels of a convolution. */
function firstDim({ op }: Node, space: IterationSpace, operand: number): number | undefined {
  if (op.kind === "conv2d") return operand === 1 ? 0 : undefined;
  if (op.kind !== "matmul") return undefined;
  const dims = space.operands[operand] ?? [];
  if (dims.length !== 2) return undefined;
  const at = dims.findIndex(([loop]) => space.loops[loop ?? -1]?.kind === "parallel");
  return at < 0 ? undefined : at;
}
