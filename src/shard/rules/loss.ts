/**
 * Cross-entropy over split classes: the largest logit and the sum of exponentials are collected from all ranks, never the logits
 * (Shoeybi et al. 2019, "Megatron-LM", section 3).
 */

import {
  add,
  concat,
  constant,
  div,
  equal,
  exp,
  log,
  mul,
  reduceMax,
  reshape,
  scalar,
  sliceDim,
  sub,
  sum,
  take,
  where,
} from "../../graph/functions.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { onEach, type Sharded, together } from "../sharded.ts";
import { axesOf, type Factor, type Factors, isSplit, type Sharding, shareOf } from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

/** The split of the classes of operand 0, where they are split in one piece for each rank. */
function classesOf({ node, place, values }: Site): Factors | undefined {
  const classes = values.shardingOf(node.inputs[0] as number, place)?.dims.at(-1);
  return classes !== undefined && isSplit(classes) && classes.length === 1 ? classes : undefined;
}

/** [...rows] → [...rows, 1]. */
function column(x: Tensor): Tensor {
  return reshape(x, [...x.shape, 1]);
}

/** Targets counted from the first class of this rank; those of other ranks fall outside. */
function localTargets(targets: Tensor, start: number): Tensor {
  return add(targets, constant(targets.scope, "i32", [], -start));
}

const crossEntropy: SplitRule = (site) => {
  const { node, place, values, results } = site;
  const [logits = -1, targets = -1] = node.inputs;
  const classes = classesOf(site);
  if (classes === undefined || node.op.kind !== "cross-entropy") return undefined;
  const { ignore } = node.op;
  const dims = values.shardingOf(logits, place)?.dims ?? [];
  const rows: Sharding = { dims: dims.slice(0, -1), partial: [] };
  const x = values.get(logits, place, { dims, partial: [] });
  const y = values.get(targets, place, rows);
  const axes = axesOf(classes);
  const own = onEach(place, (rank) => reduceMax(x.parts[rank] as Tensor, [-1], true));
  const largest = together(place, axes, own, () => ({ kind: "all-reduce", reduce: "max" }));
  const powers = onEach(place, (rank) => exp(sub(x.parts[rank] as Tensor, largest[rank] as Tensor)));
  const sums = onEach(place, (rank) => {
    const [start] = shareOf(classes[0] as Factor, place.mesh, rank);
    const chosen = take(x.parts[rank] as Tensor, localTargets(y.parts[rank] as Tensor, start));
    return concat([sum(powers[rank] as Tensor, [-1], true), column(chosen)], -1);
  });
  const totals = together(place, axes, sums, () => ({ kind: "all-reduce", reduce: "sum" }));
  const losses = onEach(place, (rank) => {
    const [target, pair] = [y.parts[rank] as Tensor, totals[rank] as Tensor];
    const row = (part: Tensor) => reshape(part, target.shape);
    const logSum = add(log(row(sliceDim(pair, -1, 0, 1))), row(largest[rank] as Tensor));
    const own = sub(logSum, row(sliceDim(pair, -1, 1, 2)));
    return where(equal(target, constant(target.scope, "i32", [], ignore)), scalar(own, 0), own);
  });
  const probabilities = onEach(place, (rank) =>
    div(powers[rank] as Tensor, sliceDim(totals[rank] as Tensor, -1, 0, 1)),
  );
  const [lossType, probabilityType] = results as [Site["results"][number], Site["results"][number]];
  const { mesh } = place;
  return [
    { ...lossType, mesh, sharding: rows, parts: losses },
    { ...probabilityType, mesh, sharding: { dims, partial: [] }, parts: probabilities },
  ] satisfies readonly Sharded[];
};

const crossEntropyGrad: SplitRule = (site) => {
  const { node, place, values, results } = site;
  const [probabilities = -1, targets = -1, dLoss = -1] = node.inputs;
  const classes = classesOf(site);
  if (classes === undefined || node.op.kind !== "cross-entropy-grad") return undefined;
  const { ignore } = node.op;
  const dims = values.shardingOf(probabilities, place)?.dims ?? [];
  const rows: Sharding = { dims: dims.slice(0, -1), partial: [] };
  const p = values.get(probabilities, place, { dims, partial: [] });
  const y = values.get(targets, place, rows);
  const dy = values.get(dLoss, place, rows);
  const parts = onEach(place, (rank) => {
    const [start, size] = shareOf(classes[0] as Factor, place.mesh, rank);
    const [target, gradient] = [y.parts[rank] as Tensor, dy.parts[rank] as Tensor];
    const isIgnored = equal(target, constant(target.scope, "i32", [], ignore));
    const counted = where(isIgnored, scalar(gradient, 0), gradient);
    const hits = place.builder.apply({ kind: "take-grad", size }, [localTargets(target, start), counted]);
    return sub(mul(p.parts[rank] as Tensor, column(counted)), hits[0] as Tensor);
  });
  const [type] = results as [Site["results"][number]];
  return [{ ...type, mesh: place.mesh, sharding: { dims, partial: [] }, parts }];
};

export const loss: SplitRules = { "cross-entropy": crossEntropy, "cross-entropy-grad": crossEntropyGrad };
