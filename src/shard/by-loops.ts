/** Splits an operation as its iteration space allows. */

import { rulesOf } from "../graph/op-table.ts";
import { sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { chooseLoops, settledLoops } from "./choose.ts";
import { loopsOf, partialBy, shardingBy } from "./follow.ts";
import { localise } from "./localise.ts";
import { passesSums } from "./partial.ts";
import { addedUp, notePositions } from "./positions.ts";
import { eachRank, type Sharded } from "./sharded.ts";
import { axesOf, localShape, type Sharding, sizeOfFactors } from "./sharding.ts";
import type { Site } from "./site.ts";

/** Splits an operation along its loops: parallel ones split the results, reduced ones leave them partial. */
export function byLoops(site: Site): readonly Sharded[] {
  const { node, place, values } = site;
  const passed = passing(site);
  const own = node.inputs.map((value) => {
    const sharding = values.shardingOf(value, place);
    return passed.length > 0 ? sharding : addedUp(site, sharding);
  });
  const plan = planLoops(site, own, passed);
  for (const sharding of plan.results) notePositions(site, sharding);
  const parts = node.inputs.map((value, i) => values.get(value, place, plan.operands[i] as Sharding).parts);
  return applyLocally(site, parts, plan.results);
}

/** How operands have to lie, and how the results then lie. */
export interface LoopPlan {
  readonly operands: readonly Sharding[];
  readonly results: readonly Sharding[];
}

/** What the loops make of operands that lie as `own` says; partial ones stay partial along `passed`, and so are the results. */
export function planLoops(
  site: Site,
  own: readonly (Sharding | undefined)[],
  passed: Sharding["partial"],
): LoopPlan {
  const { node, operands, results } = site;
  const space = rulesOf(node.op.kind).space(node.op, operands, results);
  const brought = (shardings: readonly (Sharding | undefined)[]) =>
    loopsOf(space, shardings, (loop) => {
      const kind = space.loops[loop]?.kind;
      return kind === "parallel" || kind === "reduce";
    });
  const given = brought(own);
  const isTaken = [...given.values()].some((factors) => axesOf(factors).includes("tensor"));
  const settled = settledLoops(site, space);
  const chosen = settled.size > 0 ? settled : chooseLoops(site, space, isTaken);
  const kept = isTaken && chosen.size > 0 ? brought(own.map(withoutTensor)) : given;
  const isFree = [...chosen.keys()].every((loop) => !kept.has(loop));
  const loops = isFree ? new Map([...kept, ...chosen]) : given;
  const targets = operands.map(({ shape }, i): Sharding => {
    const partial = own[i]?.partial.length ? passed : [];
    return { ...shardingBy(space, space.operands[i] ?? [], shape, loops), partial };
  });
  const partial = [...new Set([...passed, ...partialBy(space, loops)])];
  const shardings = results.map(({ shape }, i): Sharding => {
    return { ...shardingBy(space, space.results[i] ?? [], shape, loops), partial };
  });
  return { operands: targets, results: shardings };
}

/** A sharding whose splits along the tensor axis are to be given up. */
function withoutTensor(sharding: Sharding | undefined): Sharding | undefined {
  return (
    sharding && {
      ...sharding,
      dims: sharding.dims.map((factors) =>
        axesOf(factors).includes("tensor") ? [{ size: sizeOfFactors(factors) }] : factors,
      ),
    }
  );
}

/** Axes along which operands stay partial; none where another operand is split along one of them, since no rank would add up the rest. */
function passing({ node, place, values, uses, operands, results }: Site): Sharding["partial"] {
  const summands = node.inputs.map((value, i) => ({
    partial: values.shardingOf(value, place)?.partial ?? [],
    uses: uses.get(value) ?? 0,
    size: sizeOf(operands[i]?.shape ?? []),
  }));
  const passed = passesSums(node.op, summands, sizeOf(results[0]?.shape ?? []));
  const split = node.inputs.flatMap((value) => values.shardingOf(value, place)?.dims.flatMap(axesOf) ?? []);
  return passed.some((axis) => split.includes(axis)) ? [] : passed;
}

/** The operation on the parts of every rank. */
function applyLocally(
  { node, place, results, operands: types }: Pick<Site, "node" | "place" | "results" | "operands">,
  operands: readonly (readonly Tensor[])[],
  shardings: readonly Sharding[],
): readonly Sharded[] {
  const whole = { operand: types[0]?.shape ?? [], result: results[0]?.shape ?? [] };
  const made = eachRank(place, (rank) => {
    const own = operands.map((parts) => parts[rank] as Tensor);
    const shapes = {
      operands: own.map(({ shape }) => shape),
      results: shardings.map((sharding) => localShape(sharding, place.mesh, rank)),
      whole,
    };
    return place.builder.apply(localise(node.op, shapes), own);
  });
  return results.map((type, i): Sharded => {
    const sharding = shardings[i] as Sharding;
    return { ...type, mesh: place.mesh, sharding, parts: made.map((row) => row[i] as Tensor) };
  });
}
