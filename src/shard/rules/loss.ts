/**
 * Cross-entropy over split classes: what is collected from all ranks is the logarithm of each one's sum of exponentials, never the logits
 * (Shoeybi et al. 2019, "Megatron-LM", section 3). Losses stay partial: the rank that has the target's logit subtracts it.
 *
 *     l_r = log Σ exp(own logits)     l = log Σ_r exp(l_r)     p = softmax(own logits)·exp(l_r - l)     loss = l - x[target]
 *
 * A rank keeps the softmax of its own classes, for which it needs no other; the factor is for the derivative, where it joins that of
 * the loss.
 */

import { invariant } from "../../base/errors.ts";
import {
  add,
  constant,
  equal,
  exp,
  log,
  mul,
  neg,
  reduceMax,
  reshape,
  scalar,
  softmax,
  sub,
  sum,
  take,
  where,
} from "../../graph/functions.ts";
import { sizeOf } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { isFirstAlong } from "../mesh.ts";
import { collected, eachRank, onEach, partsAt, type Sharded } from "../sharded.ts";
import { axesOf, type Factor, type Factors, isSplit, type Sharding, shareOf } from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

/** The split of the classes of operand 0, where they are split in one piece for each rank. */
function classesOf({ node, place, values }: Site): Factors | undefined {
  const classes = values.shardingOf(node.inputs[0] as number, place)?.dims.at(-1);
  return classes !== undefined && isSplit(classes) && classes.length === 1 ? classes : undefined;
}

/** log Σ exp over the ranks, whose logarithms are one under the other in `all`: [n·rows] → [rows]. */
function logSumOf(all: Tensor, rows: readonly number[]): Tensor {
  const each = reshape(all, [sizeOf(all.shape) / sizeOf(rows), ...rows]);
  const largest = reduceMax(each, [0], true);
  return add(log(sum(exp(sub(each, largest)), [0])), reshape(largest, rows));
}

const crossEntropy: SplitRule = (site) => {
  const { node, place, values, results } = site;
  const [logits = -1, targets = -1] = node.inputs;
  const classes = classesOf(site);
  if (classes === undefined || node.op.kind !== "cross-entropy") return undefined;
  const { ignore } = node.op;
  const { mesh } = place;
  const dims = values.shardingOf(logits, place)?.dims ?? [];
  const rows = dims.slice(0, -1);
  const axes = axesOf(classes);
  const x = values.get(logits, place, { dims, partial: [] }).parts;
  const y = values.get(targets, place, { dims: rows, partial: [] }).parts;
  const own = eachRank(place, (rank) => {
    const part = x[rank] as Tensor;
    const shares = softmax(part);
    const logSum = sub(reduceMax(part, [-1], true), log(reduceMax(shares, [-1], true)));
    return [shares, logSum];
  });
  const flat = onEach(place, (rank) => {
    const logSum = own[rank]?.[1] as Tensor;
    return reshape(logSum, [sizeOf(logSum.shape)]);
  });
  const gathered = collected(place, axes, flat);
  const made = eachRank(place, (rank) => {
    const [part, target] = [x[rank] as Tensor, y[rank] as Tensor];
    const [shares, logSum] = own[rank] as readonly [Tensor, Tensor];
    const total = logSumOf(gathered[rank] as Tensor, target.shape);
    const [start] = shareOf(classes[0] as Factor, mesh, rank);
    const local = add(target, constant(target.scope, "i32", [], -start));
    const less = neg(take(part, local));
    const loss = isFirstAlong(mesh, rank, axes) ? add(less, total) : less;
    const isIgnored = equal(target, constant(target.scope, "i32", [], ignore));
    site.factors.set(shares.id, exp(sub(logSum, reshape(total, logSum.shape))));
    return [where(isIgnored, scalar(loss, 0), loss), shares];
  });
  const [lossType, probabilityType] = results as [Site["results"][number], Site["results"][number]];
  return [
    { ...lossType, mesh, sharding: { dims: rows, partial: axes }, parts: partsAt(made, 0) },
    { ...probabilityType, mesh, sharding: { dims, partial: [] }, parts: partsAt(made, 1) },
  ] satisfies readonly Sharded[];
};

const crossEntropyGrad: SplitRule = (site) => {
  const { node, place, values, results } = site;
  const [probabilities = -1, targets = -1, dTarget = -1, dLogSum = -1] = node.inputs;
  const classes = classesOf(site);
  if (classes === undefined || node.op.kind !== "cross-entropy-grad") {
    const made = values.entry(probabilities);
    const parts = made.kind === "made" ? made.value.parts : [];
    invariant(!parts.some(({ id }) => site.factors.has(id)), "split probabilities lack a factor");
    return undefined;
  }
  const { op } = node;
  const dims = values.shardingOf(probabilities, place)?.dims ?? [];
  const rows: Sharding = { dims: dims.slice(0, -1), partial: [] };
  const shares = values.get(probabilities, place, { dims, partial: [] }).parts;
  const others = [targets, dTarget, dLogSum].map((value) => values.get(value, place, rows).parts);
  const parts = onEach(place, (rank) => {
    const [first] = shareOf(classes[0] as Factor, place.mesh, rank);
    const own = shares[rank] as Tensor;
    const [y, ofTarget, ofLogSum] = others.map((each) => each[rank] as Tensor) as [Tensor, Tensor, Tensor];
    const factor = site.factors.get(own.id);
    const ofShares = factor === undefined ? ofLogSum : mul(ofLogSum, reshape(factor, ofLogSum.shape));
    return place.builder.apply({ ...op, first }, [own, y, ofTarget, ofShares])[0] as Tensor;
  });
  const [type] = results as [Site["results"][number]];
  return [{ ...type, mesh: place.mesh, sharding: { dims, partial: [] }, parts }];
};

export const loss: SplitRules = { "cross-entropy": crossEntropy, "cross-entropy-grad": crossEntropyGrad };
