/**
 * Where the tensor axis starts: a layer whose weights are not split yet, and whose input does not split it, gets its output features
 * (columns) split. The next layer then finds its input split, and follows with its input features (rows).
 * A layer with fewer output features than devices gets its input features split at once:
 *
 *     x ── w₁ [H/tensor, I] ──► h [.., H/tensor] ── w₂ [O, H/tensor] ──► y + tensor      (one all-reduce for the pair)
 *
 * Shoeybi et al. 2019, "Megatron-LM", section 3.
 */

import { type Graph, type Node, typeOf } from "../graph/graph.ts";
import type { OpKind } from "../graph/op.ts";
import type { DimIndex, IterationSpace } from "../graph/op-rules.ts";
import { rulesOf } from "../graph/op-table.ts";
import { type Shape, sameShape, sizeOf } from "../graph/shape.ts";
import { type LoopFactors, splitLoops } from "./follow.ts";
import type { Axis } from "./mesh.ts";
import { axesOf, type Factors, type Sharding } from "./sharding.ts";
import type { Site } from "./site.ts";

/** Operations whose weights the tensor axis can split by their loops, and the operand and dims in question; all dims where it does not say. */
const weighty: { readonly [K in OpKind]?: { readonly operand?: number; readonly dims?: readonly number[] } } =
  {
    matmul: {},
    conv2d: { operand: 1, dims: [0, 1] },
  };

/**
 * The loops that the tensor axis splits because of the weights that this node is the first to use: as the layout says, else, where no
 * operand brings a split along that axis, the first dim that has a piece for every device.
 */
export function chooseLoops(site: Site, space: IterationSpace, isTaken: boolean): LoopFactors {
  const { source, node, place, values } = site;
  const along = place.mesh.axes.find(({ axis }) => axis === "tensor");
  const rule = weighty[node.op.kind];
  if (along === undefined || rule === undefined) return new Map();
  for (const [operand, value] of node.inputs.entries()) {
    const entry = values.entry(value);
    if (entry.kind !== "open" || !entry.isParameter || (rule.operand ?? operand) !== operand) continue;
    const asked = source.chosen.get(entry.name);
    if (asked === "whole" || (asked === undefined && isTaken)) continue;
    const wanted = asked === undefined ? defaultDims(node, space, operand) : [asked];
    const dims = wanted.filter((dim) => rule.dims?.includes(dim) !== false);
    const weight = { name: entry.name, shape: entry.type.shape, operand };
    const loops = loopsOfWeight(site, space, weight, dims, along);
    if (loops !== undefined) return loops;
  }
  return new Map();
}

/**
 * The loops that the tensor axis splits because of a weight that lies already: one that this node uses, or one whose gradient it makes.
 * Values come to the weights, which are larger as a rule.
 */
export function settledLoops(site: Site, space: IterationSpace): LoopFactors {
  const { source, node, place, values } = site;
  const lies = (value: number): Sharding | undefined => {
    const entry = values.entry(value);
    const isOwn = entry.kind === "made" && entry.input !== undefined && entry.place.stage === place.stage;
    return isOwn ? entry.value.sharding : undefined;
  };
  const made = source.graph.outputs.find(({ value }) => value === node.outputs[0]);
  const parameter = made && source.pending.get(made.name);
  if (parameter !== undefined) {
    const sharding = lies(source.graph.inputs.findIndex(({ name }) => name === parameter));
    return tensorLoops(space, space.results[0], sharding, ["parallel"]);
  }
  if (!usesWeights.includes(node.op.kind)) return new Map();
  for (const [operand, value] of node.inputs.entries()) {
    const loops = tensorLoops(space, space.operands[operand], lies(value), ["parallel", "reduce"]);
    if (loops.size > 0) return loops;
  }
  return new Map();
}

const usesWeights: readonly OpKind[] = ["matmul", "conv2d", "conv2d-input-grad"];

/** The loops that index the dims which the tensor axis splits; none where one is of another kind. */
function tensorLoops(
  space: IterationSpace,
  dims: readonly DimIndex[] | undefined,
  sharding: Sharding | undefined,
  kinds: readonly string[],
): LoopFactors {
  const loops = (sharding?.dims ?? []).flatMap((factors, dim) =>
    axesOf(factors).includes("tensor") ? (splitLoops(space, dims?.[dim] ?? [], factors) ?? []) : [],
  );
  return new Map(loops.every(([loop]) => kinds.includes(space.loops[loop]?.kind ?? "")) ? loops : []);
}

/** The loops of the first of some dims of a weight that has a piece for every device; heads are not tried another way. */
function loopsOfWeight(
  site: Site,
  space: IterationSpace,
  { name, shape, operand }: { readonly name: string; readonly shape: Shape; readonly operand: number },
  dims: readonly number[],
  along: Axis,
): LoopFactors | undefined {
  for (const dim of dims) {
    const index = space.operands[operand]?.[dim] ?? [];
    const grain = grainOf(site.source.graph, site.node, space, index);
    const factors = splitWeight(site, { name, shape, dim, grain }, along);
    const split = factors && splitLoops(space, index, factors);
    if (split?.every(([loop]) => space.loops[loop]?.kind !== "whole") === true) return new Map(split);
    if (grain > 1) return undefined;
  }
  return undefined;
}

/** One dim of a weight that is to be split. */
interface WeightDim {
  readonly name: string;
  readonly shape: Shape;
  readonly dim: number;
  /** Elements that stay together; default 1. */
  readonly grain?: number;
  /** Blocks that each have all pieces, such as the gates of a recurrent layer; default 1. */
  readonly blocks?: number;
  /** What a piece is called where it is one element. */
  readonly unit?: string;
}

/** A dim of a weight (one of its blocks) split along the axis; where it has fewer pieces than devices, that is kept in mind. */
export function splitWeight(
  { limits, place }: Pick<Site, "limits" | "place">,
  { name, shape, dim, grain = 1, blocks = 1, unit = "elements" }: WeightDim,
  along: Axis,
): Factors | undefined {
  const size = (shape[dim] ?? Number.NaN) / blocks;
  const factors = splitDim(size, grain, along);
  const pieces = size / grain;
  if (factors === undefined && Number.isInteger(pieces)) {
    const what = grain > 1 ? `heads of ${grain}` : unit;
    limits.push({ group: place.group, axis: along.axis, parameter: name, dim, pieces, unit: what });
  }
  return factors;
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

/** The dims of a layer's weight to try: first the one that its results have (output features, output channels), then input features. */
function defaultDims({ op }: Node, space: IterationSpace, operand: number): readonly number[] {
  if (op.kind === "conv2d") return [0];
  const dims = space.operands[operand] ?? [];
  if (dims.length !== 2) return [];
  const isOutput = ([loop]: readonly number[]) => space.loops[loop ?? -1]?.kind === "parallel";
  return [0, 1].toSorted((a, b) => Number(isOutput(dims[b] ?? [])) - Number(isOutput(dims[a] ?? [])));
}
