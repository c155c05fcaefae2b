/** Values that every rank makes for itself, in whatever sharding they are needed: constants, masks, repetitions. */

import { add, broadcast, constant } from "../graph/functions.ts";
import type { Node } from "../graph/graph.ts";
import type { Op, OpOf } from "../graph/op.ts";
import type { Shape, TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { reshard } from "./reshard.ts";
import { onEach, type Place, type Sharded } from "./sharded.ts";
import { localShape, type Sharding, shareOf, whole } from "./sharding.ts";
import type { Entry, StagePlace, Values } from "./values.ts";

/** The entry of a node's result, where the node is one that every rank can do for itself. */
export function freeValue(
  values: Values,
  node: Node,
  place: StagePlace,
  type: TensorType,
): Entry | undefined {
  const entry = (make: (at: Place, sharding: Sharding) => readonly Tensor[]): Entry => ({
    kind: "free",
    place,
    type,
    make: (at, sharding): Sharded => ({ ...type, mesh: at.mesh, sharding, parts: make(at, sharding) }),
  });
  const { op } = node;
  switch (op.kind) {
    case "constant":
      return entry((at, sharding) =>
        onEach(at, (rank) => constant(at.builder, op.dtype, localShape(sharding, at.mesh, rank), op.value)),
      );
    case "iota":
      return entry((at, sharding) => cutFromWhole(at, op, [], type, sharding));
    case "dropout-mask": {
      const operands = node.inputs.map((value) => values.whole(value, place));
      return entry((at, sharding) => maskParts(at, op, operands, type, sharding));
    }
    case "broadcast":
      return broadcastEntry(values, node, entry);
    default:
      return undefined;
  }
}

/** A repeated tensor, where what is repeated has no dim that could be split. */
function broadcastEntry(
  values: Values,
  node: Node,
  entry: (make: (at: Place, sharding: Sharding) => readonly Tensor[]) => Entry,
): Entry | undefined {
  const [operand = -1] = node.inputs;
  const source = values.entry(operand);
  const isPlain =
    values.shapeOf(operand).every((size) => size === 1) &&
    (source.kind !== "made" || source.value.sharding.partial.length === 0);
  if (!isPlain) return undefined;
  return entry((at, sharding) => {
    const place = at as StagePlace;
    const { parts } = values.whole(operand, place);
    return onEach(at, (rank) => broadcast(parts[rank] as Tensor, localShape(sharding, at.mesh, rank)));
  });
}

function cutFromWhole(
  at: Place,
  op: Op,
  operands: readonly Sharded[],
  type: TensorType,
  sharding: Sharding,
): readonly Tensor[] {
  const parts = onEach(
    at,
    (rank) =>
      at.builder.apply(
        op,
        operands.map((operand) => operand.parts[rank] as Tensor),
      )[0] as Tensor,
  );
  return reshard(at, { ...type, mesh: at.mesh, sharding: whole(type.shape), parts }, sharding).parts;
}

/** A rank's part of a dropout mask: element indices count from its own first element. */
function maskParts(
  at: Place,
  op: OpOf<"dropout-mask">,
  operands: readonly Sharded[],
  type: TensorType,
  sharding: Sharding,
): readonly Tensor[] {
  const isRange = sharding.dims.every((factors) => factors.length === 1);
  if (!isRange) return cutFromWhole(at, op, operands, type, sharding);
  return onEach(at, (rank) => {
    const [key, base] = operands.map(({ parts }) => parts[rank] as Tensor) as [Tensor, Tensor];
    const shift = sharding.dims.reduce((sum, [factor], dim) => {
      const [start] = factor === undefined ? [0] : shareOf(factor, at.mesh, rank);
      return sum + start * (op.strides[dim] as number);
    }, 0);
    const shape: Shape = localShape(sharding, at.mesh, rank);
    const moved = shift === 0 ? base : add(base, constant(at.builder, "i32", [], shift));
    return at.builder.apply({ ...op, shape }, [key, moved])[0] as Tensor;
  });
}
