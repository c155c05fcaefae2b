/** Means, maxima and sums of scalars over what is split. */

import { constant, mul } from "../../graph/functions.ts";
import { sizeOf } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { byLoops } from "../by-loops.ts";
import { isFirstAlong, type SplitAxis } from "../mesh.ts";
import { onEach, type Sharded, together } from "../sharded.ts";
import { axesOf } from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

/** A mean over split dims is a sum that is divided in every part. */
const mean: SplitRule = (site) => {
  const { node, place, operands, results } = site;
  if (node.op.kind !== "mean" || splitOver(site, node.op.dims).length === 0) return undefined;
  const [total] = byLoops({ ...site, node: { ...node, op: { ...node.op, kind: "sum" } } });
  if (total === undefined) return undefined;
  const share = sizeOf(results[0]?.shape ?? []) / sizeOf(operands[0]?.shape ?? []);
  const parts = onEach(place, (rank) => {
    const part = total.parts[rank] as Tensor;
    return mul(part, constant(place.builder, part.dtype, [], share));
  });
  return [{ ...total, parts }];
};

const reduceMax: SplitRule = (site) => {
  const { node, place } = site;
  if (node.op.kind !== "reduce-max") return undefined;
  const axes = splitOver(site, node.op.dims);
  if (axes.length === 0) return undefined;
  const [own] = byLoops({ ...site, node: { ...node, op: { ...node.op, kind: "sum" } } });
  const [input = -1] = node.inputs;
  if (own === undefined) return undefined;
  const { parts: x } = site.values.get(input, place, {
    dims: site.values.shardingOf(input, place)?.dims ?? [],
    partial: [],
  });
  const largest = onEach(place, (rank) => place.builder.apply(node.op, [x[rank] as Tensor])[0] as Tensor);
  const parts = together(place, axes, largest, () => ({ kind: "all-reduce", reduce: "max" }));
  return [{ ...own, parts, sharding: { ...own.sharding, partial: [] } }];
};

function splitOver({ node, place, values }: Site, dims: readonly number[]) {
  const sharding = values.shardingOf(node.inputs[0] as number, place);
  return dims.flatMap((dim) => axesOf(sharding?.dims[dim] ?? []));
}

/** The sum of a scalar that is partial and one that is not: the first rank adds the other one. */
const add: SplitRule = ({ node, place, values, uses, results }) => {
  if (results[0]?.shape.length !== 0) return undefined;
  const shardings = node.inputs.map((value) => values.shardingOf(value, place)?.partial ?? []);
  const open = shardings.findIndex((partial) => partial.length > 0);
  const [a = -1, b = -1] = node.inputs;
  if (open < 0 || shardings.every((partial) => partial.length > 0)) return undefined;
  const [sum, other] = open === 0 ? [a, b] : [b, a];
  if ((uses.get(sum) ?? 0) > 1) return undefined;
  const axes = shardings[open] as readonly SplitAxis[];
  const left = values.get(sum, place, { dims: [], partial: axes });
  const right = values.whole(other, place);
  const parts = onEach(place, (rank) => {
    const part = left.parts[rank] as Tensor;
    return isFirstAlong(place.mesh, rank, axes)
      ? (place.builder.apply({ kind: "add" }, [part, right.parts[rank] as Tensor])[0] as Tensor)
      : part;
  });
  const result: Sharded = { ...left, parts, sharding: { dims: [], partial: axes } };
  return [result];
};

export const reduce: SplitRules = { mean, "reduce-max": reduceMax, add };
