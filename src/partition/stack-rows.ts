/**
 * One large product instead of many small ones: a segment that only sums over the rows (dim 0) of what differs between items gives,
 * on the rows of all items under each other, the sum over the items. Whether that holds follows from the iteration spaces.
 *
 *     dw = dz₀ᵀ·x₀ + dz₁ᵀ·x₁ = [dz₀; dz₁]ᵀ·[x₀; x₁]
 */

import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Node, ValueId } from "../graph/graph.ts";
import type { Op } from "../graph/op.ts";
import { rulesOf } from "../graph/op-table.ts";
import type { Shape, TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";

export interface StackedSegment {
  readonly graph: Graph;
  /** Positions of the outputs that have the rows of all items; the others are sums over the items. */
  readonly stackedOutputs: readonly number[];
}

/**
 * `segment` for `count` items at once: the inputs `varying` have `count` times the rows. `undefined` where the results of the items
 * can be neither summed nor put under each other this way. A sum may only go through what is linear: f(a) + f(b) = f(a + b).
 */
export function stackRows(
  segment: Graph,
  varying: ReadonlySet<number>,
  count: number,
): StackedSegment | undefined {
  if ([...varying].some((value) => segment.types[value]?.shape.length === 0)) return undefined;
  const builder = new GraphBuilder();
  const rows: Rows = { stacked: new Set(varying), summed: new Set() };
  const tensors: Tensor[] = segment.inputs.map(({ name, role, group }, value) => {
    const type = segment.types[value] as TensorType;
    const shape = rows.stacked.has(value) ? moreRows(type.shape, count) : type.shape;
    return builder.within({ group }, () => builder.input(name, role, { dtype: type.dtype, shape }));
  });
  for (const node of segment.nodes) {
    const effect = effectOf(segment, node, rows);
    const op = effect === "stacked" ? withMoreRows(node.op, count) : node.op;
    if (effect === "impossible" || op === undefined) return undefined;
    if (effect !== "none") for (const value of node.outputs) rows[effect].add(value);
    const operands = node.inputs.map((value) => tensors[value] as Tensor);
    tensors.push(...builder.within(node, () => builder.apply(op, operands)));
  }
  if (segment.outputs.some(({ value }) => !rows.stacked.has(value) && !rows.summed.has(value)))
    return undefined;
  for (const { name, value } of segment.outputs) builder.output(name, tensors[value] as Tensor);
  const stackedOutputs = segment.outputs.flatMap(({ value }, position) =>
    rows.stacked.has(value) ? [position] : [],
  );
  return { graph: builder.build(), stackedOutputs };
}

/** Values that have the rows of all items, and values that are sums over the items; all others are the same for every item. */
interface Rows {
  readonly stacked: Set<ValueId>;
  readonly summed: Set<ValueId>;
}

type Effect = "none" | "stacked" | "summed" | "impossible";

/** What a node makes of the rows of its operands. */
function effectOf(segment: Graph, node: Node, { stacked, summed }: Rows): Effect {
  const hasRows = node.inputs.some((value) => stacked.has(value));
  const hasSums = node.inputs.some((value) => summed.has(value));
  if (hasRows) return hasSums ? "impossible" : effectOnRows(segment, node, stacked);
  if (!hasSums) return "none";
  const isSum = node.inputs.map((value) => summed.has(value));
  return isLinear(node.op, isSum) ? "summed" : "impossible";
}

/** Whether the results are linear in those operands that `isSum` marks, taken together. */
function isLinear(op: Op, isSum: readonly boolean[]): boolean {
  switch (op.kind) {
    case "add":
    case "sub":
    case "concat":
      return !isSum.includes(false);
    case "mul":
    case "matmul":
      return isSum.includes(false);
    case "div":
      return isSum[1] === false;
    case "neg":
    case "sum":
    case "mean":
    case "broadcast":
    case "reshape":
    case "transpose":
    case "slice":
    case "split":
      return true;
    case "pad":
      return op.value === 0;
    default:
      return false;
  }
}

/** The same for a node some of whose operands have rows, none a sum: they stay apart, are added up, or neither. */
function effectOnRows(segment: Graph, node: Node, stacked: ReadonlySet<ValueId>): Effect {
  const typesOf = (values: readonly number[]) => values.map((value) => segment.types[value] as TensorType);
  const space = rulesOf(node.op.kind).space(node.op, typesOf(node.inputs), typesOf(node.outputs));
  const rowLoops = new Set(
    node.inputs.flatMap((value, i) => (stacked.has(value) ? [space.operands[i]?.[0]?.[0] ?? -1] : [])),
  );
  const [loop = -1] = rowLoops;
  const kind = space.loops[loop]?.kind;
  if (rowLoops.size !== 1 || (kind !== "parallel" && kind !== "reduce")) return "impossible";
  const uses = (dims: readonly (readonly number[])[]): number[] =>
    dims.flatMap((loops, dim) => (loops.includes(loop) ? [dim] : []));
  const strays = node.inputs.some(
    (value, i) => !stacked.has(value) && uses(space.operands[i] ?? []).length > 0,
  );
  const deeper = node.inputs.some(
    (value, i) => stacked.has(value) && uses(space.operands[i] ?? []).some((dim) => dim > 0),
  );
  if (strays || deeper) return "impossible";
  const results = space.results.map((dims) => ({ dims: uses(dims), outermost: dims[0]?.[0] === loop }));
  if (kind === "reduce") return results.every(({ dims }) => dims.length === 0) ? "summed" : "impossible";
  return results.every(({ dims, outermost }) => outermost && dims.length === 1) ? "stacked" : "impossible";
}

/** The operation on `count` times the rows; `undefined` for one whose attributes fix its size in another way. */
function withMoreRows(op: Op, count: number): Op | undefined {
  switch (op.kind) {
    case "reshape":
    case "broadcast":
      return { ...op, shape: moreRows(op.shape, count) };
    case "slice":
      return op.start[0] === 0 && op.step[0] === 1
        ? { ...op, stop: op.stop.with(0, (op.stop[0] as number) * count) }
        : undefined;
    case "dropout-mask":
      return undefined;
    default:
      return op;
  }
}

/** `count` times the rows (dim 0) of a shape that has dims. */
export function moreRows(shape: Shape, count: number): Shape {
  return shape.with(0, (shape[0] as number) * count);
}
