/**
 * Tables whose rows are split (the vocabulary of an embedding): every rank looks up the rows it has, all others are zero, and the sum
 * is the whole (Shoeybi et al. 2019, "Megatron-LM", section 3).
 */

import {
  add,
  and,
  constant,
  gather as gatherRows,
  greater,
  less,
  reshape,
  scalar,
  scatterAdd,
  where,
} from "../../graph/functions.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { splitWeight } from "../choose.ts";
import { onEach, type Sharded } from "../sharded.ts";
import {
  axesOf,
  type Factor,
  type Factors,
  isSplit,
  type Sharding,
  shareOf,
  sizeOfFactors,
  whole,
} from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

const gather: SplitRule = (site) => {
  const { node, place, values, operands, results, tables } = site;
  const [table = -1, indices = -1] = node.inputs;
  const rows = rowsOf(site);
  const [type, indexType] = operands;
  const [result] = results;
  if (rows === undefined || type === undefined || indexType === undefined || result === undefined)
    return undefined;
  tables.set(indices, rows);
  const spread: Sharding = { dims: [rows, ...whole(type.shape).dims.slice(1)], partial: [] };
  const source = values.get(table, place, spread);
  const { dims: lead } = values.shardingOf(indices, place) ?? whole(indexType.shape);
  const wanted = values.get(indices, place, { dims: lead, partial: [] });
  const parts = onEach(place, (rank) => {
    const [start, length] = shareOf(rows[0] as Factor, place.mesh, rank);
    const { at, isOwn } = ownRows(wanted.parts[rank] as Tensor, start, length);
    const found = gatherRows(source.parts[rank] as Tensor, at);
    return where(spreadOver(isOwn, found), found, scalar(found, 0));
  });
  const sharding: Sharding = {
    dims: [...lead, ...whole(type.shape).dims.slice(1)],
    partial: axesOf(rows),
  };
  return [{ ...result, mesh: place.mesh, sharding, parts }];
};

/** How the table's rows are split: as it is already, or along the tensor axis where this is its first use. */
function rowsOf(site: Site): Factors | undefined {
  const { source, node, place, values, operands } = site;
  const [table = -1] = node.inputs;
  const entry = values.entry(table);
  const { shape = [] } = operands[0] ?? {};
  if (entry.kind === "made") {
    const [rows] = values.shardingOf(table, place)?.dims ?? [];
    return rows !== undefined && isSplit(rows) && rows.length === 1 ? rows : undefined;
  }
  const along = place.mesh.axes.find(({ axis }) => axis === "tensor");
  if (entry.kind !== "open" || !entry.isParameter || along === undefined) return undefined;
  if ((source.chosen.get(entry.name) ?? 0) !== 0) return undefined;
  return splitWeight(site, { name: entry.name, shape, dim: 0, unit: "rows" }, along);
}

const scatter: SplitRule = ({ node, place, values, operands, results, tables }) => {
  const [indices = -1, updates = -1] = node.inputs;
  const rows = tables.get(indices);
  const [indexType, type] = operands;
  const [result] = results;
  if (rows === undefined || indexType === undefined || type === undefined || result === undefined)
    return undefined;
  if (sizeOfFactors(rows) !== result.shape[0]) return undefined;
  const { dims: lead } = values.shardingOf(indices, place) ?? whole(indexType.shape);
  const tail = whole(type.shape).dims.slice(lead.length);
  const wanted = values.get(indices, place, { dims: lead, partial: [] });
  const added = values.get(updates, place, { dims: [...lead, ...tail], partial: [] });
  const parts = onEach(place, (rank) => {
    const [start, length] = shareOf(rows[0] as Factor, place.mesh, rank);
    const { at, isOwn } = ownRows(wanted.parts[rank] as Tensor, start, length);
    const update = added.parts[rank] as Tensor;
    return scatterAdd(at, where(spreadOver(isOwn, update), update, scalar(update, 0)), length);
  });
  const sharded: Sharded = {
    ...result,
    mesh: place.mesh,
    sharding: { dims: [rows, ...tail], partial: lead.flatMap(axesOf) },
    parts,
  };
  return [sharded];
};

/** Indices counted from `start`, 0 where they are outside of `length` rows, and whether they are inside. */
function ownRows(
  indices: Tensor,
  start: number,
  length: number,
): { readonly at: Tensor; readonly isOwn: Tensor } {
  const { scope } = indices;
  const shifted = add(indices, constant(scope, "i32", [], -start));
  const isOwn = and(
    greater(shifted, constant(scope, "i32", [], -1)),
    less(shifted, constant(scope, "i32", [], length)),
  );
  return { at: where(isOwn, shifted, constant(scope, "i32", [], 0)), isOwn };
}

/** [...lead] → [...lead, 1, ...] so that it broadcasts to `like`. */
function spreadOver(x: Tensor, like: Tensor): Tensor {
  return reshape(x, [...x.shape, ...like.shape.slice(x.shape.length).map(() => 1)]);
}

export const lookup: SplitRules = { gather, "scatter-add": scatter };
