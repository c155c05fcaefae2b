/**
 * Normalisation over dims that are split: sums over the own part, one all-reduce for each round of sums, the rest locally. A layer norm
 * may have its features split, a batch norm its samples and positions.
 */

import {
  add,
  concat,
  div,
  mul,
  reshape,
  scalar,
  sliceDim,
  sqrt,
  square,
  sub,
  sum,
} from "../../graph/functions.ts";
import { sizeOf } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import type { SplitAxis } from "../mesh.ts";
import { onEach, type Sharded, together } from "../sharded.ts";
import { axesOf, type Factors, type Sharding, whole } from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

/** What is normalised over, how it is split, and how statistics and scales lie. */
interface Region {
  readonly x: Sharding;
  /** Dims that are summed over. */
  readonly dims: readonly number[];
  readonly axes: readonly SplitAxis[];
  /** Elements of the whole tensor for each statistic. */
  readonly count: number;
  /** Statistics, as the operation gives them. */
  readonly statistic: Sharding;
  readonly scale: Sharding;
}

type RegionOf = (sharding: Sharding, shape: readonly number[]) => Omit<Region, "axes" | "x" | "count">;

const features: RegionOf = (sharding, shape) => ({
  dims: [shape.length - 1],
  statistic: { dims: [...sharding.dims.slice(0, -1), [{ size: 1 }]], partial: [] },
  scale: { dims: sharding.dims.slice(-1), partial: [] },
});

const channels: RegionOf = (sharding, shape) => {
  const own: Sharding = { dims: [sharding.dims[1] as Factors], partial: [] };
  return { dims: shape.flatMap((_, dim) => (dim === 1 ? [] : [dim])), statistic: own, scale: own };
};

function regionOf({ node, place, values, operands }: Site, kind: RegionOf): Region | undefined {
  const shape = operands[0]?.shape ?? [];
  const sharding = values.shardingOf(node.inputs[0] as number, place) ?? whole(shape);
  const region = kind(sharding, shape);
  const axes = region.dims.flatMap((dim) => axesOf(sharding.dims[dim] as Factors));
  if (axes.length === 0) return undefined;
  const count = sizeOf(region.dims.map((dim) => shape[dim] as number));
  return { ...region, x: { dims: sharding.dims, partial: [] }, axes, count };
}

/** [C] → [1, C, 1, ...] for a batch norm; what has the right shape stays. */
function beside(x: Tensor, like: Tensor, { dims }: Region): Tensor {
  if (x.shape.length !== 1 || dims.length === 1) return x;
  return reshape(
    x,
    like.shape.map((_, dim) => (dim === 1 ? (x.shape[0] as number) : 1)),
  );
}

/** Means over the whole region of one tensor of every rank. */
function meansOf(site: Site, region: Region, parts: readonly Tensor[]): readonly Tensor[] {
  const sums = onEach(site.place, (rank) => sum(parts[rank] as Tensor, region.dims, true));
  const totals = together(site.place, region.axes, sums, () => ({ kind: "all-reduce", reduce: "sum" }));
  return onEach(site.place, (rank) => {
    const total = totals[rank] as Tensor;
    return mul(total, scalar(total, 1 / region.count));
  });
}

function forward(site: Site, kind: RegionOf, epsilon: number): readonly Sharded[] | undefined {
  const { node, place, values, results } = site;
  const region = regionOf(site, kind);
  if (region === undefined) return undefined;
  const [x = -1, scale = -1, shift = -1] = node.inputs;
  const own = values.get(x, place, region.x);
  const [scales, shifts] = [scale, shift].map((value) => values.get(value, place, region.scale)) as [
    Sharded,
    Sharded,
  ];
  const isLayer = node.op.kind === "layer-norm";
  const means = meansOf(site, region, own.parts);
  const centred = onEach(place, (rank) => sub(own.parts[rank] as Tensor, means[rank] as Tensor));
  const variances = meansOf(
    site,
    region,
    onEach(place, (rank) => square(centred[rank] as Tensor)),
  );
  const inverses = onEach(place, (rank) => inverseOf(variances[rank] as Tensor, epsilon));
  const normal = onEach(place, (rank) => {
    const c = centred[rank] as Tensor;
    const scaled = mul(mul(c, inverses[rank] as Tensor), beside(scales.parts[rank] as Tensor, c, region));
    return add(scaled, beside(shifts.parts[rank] as Tensor, c, region));
  });
  const kept = (parts: readonly Tensor[]) =>
    isLayer
      ? parts
      : onEach(place, (rank) => {
          const part = parts[rank] as Tensor;
          return reshape(part, [sizeOf(part.shape)]);
        });
  const made = [normal, kept(means), kept(isLayer ? inverses : variances)];
  return results.map((type, i) => ({
    ...type,
    mesh: place.mesh,
    sharding: i === 0 ? region.x : region.statistic,
    parts: made[i] as readonly Tensor[],
  }));
}

function inverseOf(variance: Tensor, epsilon: number): Tensor {
  return div(scalar(variance, 1), sqrt(add(variance, scalar(variance, epsilon))));
}

/** dx = r·(g - mean(g) - x̂·mean(g·x̂)); a batch norm's dScale = Σ dy·x̂ and dShift = Σ dy come from the same sums. */
function backward(site: Site, kind: RegionOf, epsilon: number | undefined): readonly Sharded[] | undefined {
  const { node, place, values, results } = site;
  const region = regionOf(site, kind);
  if (region === undefined) return undefined;
  const [x = -1, scale = -1, mean = -1, spread = -1, dy = -1] = node.inputs;
  const get = (value: number, sharding: Sharding) => values.get(value, place, sharding).parts;
  const [xs, dys] = [get(x, region.x), get(dy, region.x)];
  const scales = get(scale, region.scale);
  const [means, spreads] = [get(mean, region.statistic), get(spread, region.statistic)];
  const inverses = onEach(place, (rank) => {
    const part = beside(spreads[rank] as Tensor, xs[rank] as Tensor, region);
    return epsilon === undefined ? part : inverseOf(part, epsilon);
  });
  const normals = onEach(place, (rank) => {
    const part = xs[rank] as Tensor;
    return mul(sub(part, beside(means[rank] as Tensor, part, region)), inverses[rank] as Tensor);
  });
  const isLayer = node.op.kind === "layer-norm-grad";
  const gradients = onEach(place, (rank) => {
    const part = dys[rank] as Tensor;
    return isLayer ? mul(part, scales[rank] as Tensor) : part;
  });
  const pairs = onEach(place, (rank) => {
    const g = gradients[rank] as Tensor;
    const sums = [g, mul(g, normals[rank] as Tensor)].map((part) => sum(part, region.dims, true));
    return concat(
      sums.map((part) => reshape(part, [1, ...part.shape])),
      0,
    );
  });
  const totals = together(place, region.axes, pairs, () => ({ kind: "all-reduce", reduce: "sum" }));
  const total = (rank: number, which: 0 | 1): Tensor => {
    const part = sliceDim(totals[rank] as Tensor, 0, which, which + 1);
    return reshape(part, part.shape.slice(1));
  };
  const dx = onEach(place, (rank) => {
    const [g, n, r] = [gradients[rank], normals[rank], inverses[rank]] as [Tensor, Tensor, Tensor];
    const share = scalar(g, 1 / region.count);
    const inner = sub(sub(g, mul(total(rank, 0), share)), mul(n, mul(total(rank, 1), share)));
    const scaled = isLayer ? r : mul(r, beside(scales[rank] as Tensor, g, region));
    return mul(inner, scaled);
  });
  const flat = (which: 0 | 1) =>
    onEach(place, (rank) => {
      const part = total(rank, which);
      return reshape(part, [sizeOf(part.shape)]);
    });
  const made = isLayer ? [dx] : [dx, flat(1), flat(0)];
  return results.map((type, i) => ({
    ...type,
    mesh: place.mesh,
    sharding: i === 0 ? region.x : region.scale,
    parts: made[i] as readonly Tensor[],
  }));
}

const layerNorm: SplitRule = (site) =>
  site.node.op.kind === "layer-norm" ? forward(site, features, site.node.op.epsilon) : undefined;
const layerNormGrad: SplitRule = (site) => backward(site, features, undefined);
const batchNorm: SplitRule = (site) =>
  site.node.op.kind === "batch-norm" ? forward(site, channels, site.node.op.epsilon) : undefined;
const batchNormGrad: SplitRule = (site) =>
  site.node.op.kind === "batch-norm-grad" ? backward(site, channels, site.node.op.epsilon) : undefined;

export const normalization: SplitRules = {
  "layer-norm": layerNorm,
  "layer-norm-grad": layerNormGrad,
  "batch-norm": batchNorm,
  "batch-norm-grad": batchNormGrad,
};
