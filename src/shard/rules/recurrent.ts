/**
 * LSTM and GRU layers split by hidden units: every rank has all gates of its units. The product with the input is one product over all
 * steps; then, step by step, every rank computes its units from the whole hidden state, and all ranks collect it:
 *
 *     forward    h[t-1] whole ──► step ──► h[t] own ── all-gather ──► h[t] whole
 *     backward   dh[t] own ──► step ──► dz[t] own ── · u ──► partial ── reduce-scatter ──► dh[t-1] own
 */

import { add, concat, matmul, reshape, split } from "../../graph/functions.ts";
import type { TensorType } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { splitWeight } from "../choose.ts";
import { reshard } from "../reshard.ts";
import { eachRank, onEach, partsAt, type Sharded } from "../sharded.ts";
import { axesOf, type Factors, isSplit, type Sharding, sizeOfFactors, whole } from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

/** How a layer's units are split; gates are blocks of units. */
interface Units {
  readonly units: Factors;
  readonly gates: Factors;
}

/** The split of the weight at operand `at` [gates·H, ...]: as it is, or along the tensor axis where this is its first use. */
function unitsOf(site: Site, at: number, gates: number): Units | undefined {
  const { source, node, place, values, operands } = site;
  const value = node.inputs[at] as number;
  const entry = values.entry(value);
  const { shape = [] } = operands[at] ?? {};
  if (entry.kind === "made") {
    const [rows = []] = values.shardingOf(value, place)?.dims ?? [];
    if (!isSplit(rows) || !axesOf(rows).includes("tensor")) return undefined;
    const units = rows.filter(({ along }) => along !== undefined);
    return sizeOfFactors(units) === (shape[0] ?? 0) / gates
      ? { units, gates: [{ size: gates }, ...units] }
      : undefined;
  }
  const along = place.mesh.axes.find(({ axis }) => axis === "tensor");
  if (entry.kind !== "open" || !entry.isParameter || along === undefined) return undefined;
  if ((source.chosen.get(entry.name) ?? 0) !== 0) return undefined;
  const units = splitWeight(site, { name: entry.name, shape, dim: 0, blocks: gates, unit: "units" }, along);
  return units && { units, gates: [{ size: gates }, ...units] };
}

const laid = (...dims: readonly Factors[]): Sharding => ({ dims, partial: [] });
const all = (size: number): Factors => [{ size }];

/** The steps of [T, B, n] as [B, n] each: what it was put together from, or else cut apart. */
function stepsOf({ stacks }: Site, x: Tensor): readonly Tensor[] {
  const [count, batch, width] = x.shape as [number, number, number];
  const sizes = Array.from({ length: count }, () => 1);
  return stacks.get(x.id) ?? split(x, 0, sizes).map((step) => reshape(step, [batch, width]));
}

/** The same on every rank. */
function stepsOfAll(site: Site, parts: readonly Tensor[]): readonly (readonly Tensor[])[] {
  return eachRank(site.place, (rank) => stepsOf(site, parts[rank] as Tensor));
}

/** [B, n] of every step under each other as [T, B, n]. */
function stacked(steps: readonly Tensor[]): Tensor {
  return concat(
    steps.map((step) => reshape(step, [1, ...step.shape])),
    0,
  );
}

/** Results by step, then by number, then by rank, as tensors over all steps. */
function overSteps(
  { place, stacks }: Site,
  type: TensorType,
  sharding: Sharding,
  steps: readonly (readonly Tensor[])[],
): Sharded {
  const parts = onEach(place, (rank) => {
    const own = steps.map((step) => step[rank] as Tensor);
    const whole = stacked(own);
    stacks.set(whole.id, own);
    return whole;
  });
  return { ...type, mesh: place.mesh, sharding, parts };
}

/** A layer while it is stepped through: by rank. */
interface Steps {
  /** x·wᵀ + b of all steps [T, B, gates·h]. */
  readonly zx: readonly Tensor[];
  /** What every step needs beside its share of zx and the state: u, and for a GRU p. */
  readonly weights: readonly (readonly Tensor[])[];
  readonly before: Sharded;
  /** Own units of c for an LSTM, of h for a GRU. */
  readonly own: readonly Tensor[];
}

interface Stepped {
  /** The results of every step: own h first, then for an LSTM own c, then what is saved. */
  readonly results: readonly (readonly (readonly Tensor[])[])[];
  /** The whole h before each step, and after the last. */
  readonly states: readonly Sharded[];
}

/** All steps, with all ranks collecting the whole h after each. */
function runSteps(site: Site, kind: "lstm-step" | "gru-step", steps: Steps, units: Factors): Stepped {
  const { place } = site;
  const { zx, weights, before } = steps;
  const [count = 0] = zx[0]?.shape ?? [];
  const results: (readonly (readonly Tensor[])[])[] = [];
  const states = [before];
  let own = steps.own;
  const inputs = stepsOfAll(site, zx);
  for (let t = 0; t < count; t++) {
    const state = states.at(-1) as Sharded;
    const made = eachRank(place, (rank) => {
      const [u, ...inner] = weights.map((parts) => parts[rank] as Tensor) as [Tensor, ...Tensor[]];
      const operands = [
        inputs[rank]?.[t] as Tensor,
        u,
        ...inner,
        state.parts[rank] as Tensor,
        own[rank] as Tensor,
      ];
      return place.builder.apply({ kind }, operands);
    });
    const parts = made.map(([h]) => h as Tensor);
    const next: Sharded = { ...state, parts, sharding: laid(all(state.shape[0] as number), units) };
    own = kind === "gru-step" ? parts : made.map((row) => row[1] as Tensor);
    results.push(made);
    states.push(reshard(place, next, whole(state.shape)));
  }
  return { results, states };
}

/** Operands: x, w, u, b, for a GRU p, then h0, for an LSTM c0. */
function forward(site: Site, kind: "lstm-step" | "gru-step"): readonly Sharded[] | undefined {
  const { node, place, values, operands, results } = site;
  const isLstm = kind === "lstm-step";
  const found = unitsOf(site, 1, isLstm ? 4 : 3);
  if (found === undefined) return undefined;
  const { units, gates } = found;
  const [x, w, u, b, ...rest] = node.inputs as [number, number, number, number, ...number[]];
  const [p, h0, c0] = isLstm ? [undefined, ...rest] : rest;
  const [xType, , uType] = operands as [TensorType, TensorType, TensorType];
  const [count, batch, width] = xType.shape as [number, number, number];
  const hidden = uType.shape[1] as number;
  const get = (value: number | undefined, sharding: Sharding) => values.get(value as number, place, sharding);
  const input = get(x, whole(xType.shape)).parts;
  const weight = get(w, laid(gates, all(width))).parts;
  const inner = [get(u, laid(gates, all(hidden))).parts];
  const bias = get(b, laid(gates)).parts;
  if (p !== undefined) inner.push(get(p, laid(gates)).parts);
  const zx = onEach(place, (rank) => {
    const product = matmul(input[rank] as Tensor, weight[rank] as Tensor, { transposeB: true });
    return add(product, bias[rank] as Tensor);
  });
  const state = laid(all(batch), units);
  const before = get(h0, whole([batch, hidden]));
  const own = isLstm ? get(c0, state).parts : reshard(place, before, state).parts;
  const stepped = runSteps(site, kind, { zx, weights: inner, before, own }, units);
  const sequence = whole([count, batch, hidden]);
  const [type, lastType] = results as [TensorType, TensorType];
  const wholes = stepped.states.map(({ parts }) => parts);
  const h = overSteps(site, type, sequence, wholes.slice(1));
  const hBefore = overSteps(site, type, sequence, wholes.slice(0, -1));
  const first = isLstm ? 2 : 1;
  const saved = results.slice(first + 2).map((savedType, i) =>
    overSteps(
      site,
      savedType,
      laid(all(count), all(batch), units),
      stepped.results.map((step) => partsAt(step, first + i)),
    ),
  );
  const last = { ...lastType, mesh: place.mesh };
  const cell = partsAt(stepped.results.at(-1) ?? [], 1);
  return [
    h,
    { ...last, sharding: whole(lastType.shape), parts: wholes.at(-1) as readonly Tensor[] },
    ...(isLstm ? [{ ...last, sharding: state, parts: cell }] : []),
    hBefore,
    ...saved,
  ];
}

/** What the derivatives of both have in common: operands are u, then factors that forward has saved, dh, and gradients of last states. */
function gradientGiven(site: Site, blocks: 3 | 4) {
  const { node, place, values, operands } = site;
  const found = unitsOf(site, 0, blocks);
  if (found === undefined) return undefined;
  const { dtype, shape } = operands[1] as TensorType;
  const [steps, batch, hidden] = shape as [number, number, number];
  const [u, ...others] = node.inputs as [number, ...number[]];
  const own = laid(all(steps), all(batch), found.units);
  const saved = blocks + 2;
  const byStep = others.slice(0, saved + 1).map((value) => values.get(value, place, own).parts);
  const [arriving = [], ...factors] = [byStep[saved] ?? [], ...byStep.slice(0, saved)].map((parts) =>
    stepsOfAll(site, parts),
  );
  const type: TensorType = { dtype, shape: [batch, hidden] };
  const recurrent = values.get(u, place, laid(found.gates, all(hidden))).parts;
  return {
    ...found,
    steps,
    batch,
    recurrent,
    factors,
    arriving,
    state: laid(all(batch), found.units),
    type,
    others,
  };
}

/** Operands of the derivative of an LSTM: u, f, Mi, Mf, Mg, Mo, K, dh, d(last h), d(last c). */
const lstmGrad: SplitRule = (site) => {
  const { place, values, results } = site;
  const given = gradientGiven(site, 4);
  if (given === undefined) return undefined;
  const { units, gates, steps, batch, recurrent, factors, arriving: dh, state, type, others } = given;
  let fromLater = values.get(others[7] as number, place, state).parts;
  let dc = values.get(others[8] as number, place, state).parts;
  const dz: (readonly Tensor[])[] = [];
  let product: Sharded | undefined;
  for (let t = steps - 1; t >= 0; t--) {
    const made = eachRank(place, (rank) => {
      const arriving = add(dh[rank]?.[t] as Tensor, fromLater[rank] as Tensor);
      const local = factors.map((parts) => parts[rank]?.[t] as Tensor);
      return place.builder.apply({ kind: "lstm-step-grad" }, [...local, arriving, dc[rank] as Tensor]);
    });
    dz.unshift(made.map(([part]) => part as Tensor));
    dc = made.map((row) => row[1] as Tensor);
    product = throughRecurrence(site, type, dz[0] as readonly Tensor[], recurrent, units);
    if (t > 0) fromLater = reshard(place, product, state).parts;
  }
  if (product === undefined) return undefined;
  const dcSharded: Sharded = { ...type, mesh: place.mesh, sharding: state, parts: dc };
  const gradient = overSteps(site, results[0] as TensorType, laid(all(steps), all(batch), gates), dz);
  return [gradient, product, dcSharded];
};

/** Operands of the derivative of a GRU: u, r, a, Mr, Ma, Mn, dh, d(last h). */
const gruGrad: SplitRule = (site) => {
  const { place, values, results } = site;
  const given = gradientGiven(site, 3);
  if (given === undefined) return undefined;
  const { units, gates, steps, batch, recurrent, factors, arriving: dh, state, type, others } = given;
  let fromLater = values.get(others[6] as number, place, state).parts;
  const [dz, dq]: [(readonly Tensor[])[], (readonly Tensor[])[]] = [[], []];
  for (let t = steps - 1; t >= 0; t--) {
    const later = fromLater;
    const made = eachRank(place, (rank) => {
      const arriving = add(dh[rank]?.[t] as Tensor, later[rank] as Tensor);
      const local = factors.map((parts) => parts[rank]?.[t] as Tensor);
      return place.builder.apply({ kind: "gru-step-grad" }, [...local, arriving]);
    });
    dz.unshift(made.map(([part]) => part as Tensor));
    dq.unshift(made.map((row) => row[1] as Tensor));
    const product = throughRecurrence(site, type, dq[0] as readonly Tensor[], recurrent, units);
    const { parts } = reshard(place, product, state);
    fromLater = onEach(place, (rank) => add(made[rank]?.[2] as Tensor, parts[rank] as Tensor));
  }
  const sharding = laid(all(steps), all(batch), gates);
  const dh0: Sharded = { ...type, mesh: place.mesh, sharding: state, parts: fromLater };
  return [
    overSteps(site, results[0] as TensorType, sharding, dz),
    overSteps(site, results[1] as TensorType, sharding, dq),
    dh0,
  ];
};

/** The gradient of a whole hidden state, as far as the units of each rank contribute to it. */
function throughRecurrence(
  { place }: Site,
  type: TensorType,
  dz: readonly Tensor[],
  recurrent: readonly Tensor[],
  units: Factors,
): Sharded {
  const parts = onEach(place, (rank) => matmul(dz[rank] as Tensor, recurrent[rank] as Tensor));
  return { ...type, mesh: place.mesh, sharding: { ...whole(type.shape), partial: axesOf(units) }, parts };
}

export const recurrent: SplitRules = {
  lstm: (site: Site) => forward(site, "lstm-step"),
  "lstm-grad": lstmGrad,
  gru: (site: Site) => forward(site, "gru-step"),
  "gru-grad": gruGrad,
};
