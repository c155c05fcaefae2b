/**
 * Declares the inputs of the split graph. Scalars are whole everywhere; data are fed in whatever part is asked for; parameters, states
 * and arriving gradients have one part for each rank, as their first use or `given` settles.
 */

import { stateNames } from "../autodiff/training-step.ts";
import { type GraphInput, typeOf } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { blockOf } from "./block.ts";
import { splitDim } from "./choose.ts";
import { type Mesh, noMesh, rankCount } from "./mesh.ts";
import { reshard } from "./reshard.ts";
import { onEach, type Sharded } from "./sharded.ts";
import { type Factors, localShape, type Sharding, whole } from "./sharding.ts";
import type { SplitContext } from "./site.ts";
import type { Part, SplitSource } from "./split-source.ts";
import type { Entry, StagePlace, Values } from "./values.ts";

/** The name of a rank's part of an input or output; the name itself where there is one rank. */
export function partName(name: string, mesh: Mesh, rank: number): string {
  return rankCount(mesh) === 1 ? name : `${name}#${rank}`;
}

/** Declares every input; `parts` gets those of the split graph that are parts. */
export function declareInputs(context: SplitContext, parts: Map<string, Part>): void {
  const { graph } = context.source;
  graph.inputs.forEach((input, value) => {
    const type = typeOf(graph, value);
    const isShared = input.role === "data" || input.role === "scalar";
    const isGiven = context.source.given.has(input.name);
    context.values.set(
      value,
      isShared && !isGiven ? sharedInput(context, parts, input, type) : ownInput(context, parts, input, type),
    );
  });
}

function sharedInput(
  { source, builder }: SplitContext,
  parts: Map<string, Part>,
  { name, role, group }: GraphInput,
  type: TensorType,
): Entry {
  const place: StagePlace = { builder, group, phase: "F", stage: -1, mesh: noMesh };
  const make = (at: StagePlace, sharding: Sharding): Sharded => {
    const isRange = sharding.dims.every((factors) => factors.length === 1);
    if (!isRange) return reshard(at, make(at, whole(type.shape)), sharding);
    return { ...type, mesh: at.mesh, sharding, parts: onEach(at, (rank) => partOf(at, sharding, rank)) };
  };
  const partOf = (at: StagePlace, sharding: Sharding, rank: number): Tensor => {
    const block = blockOf(sharding, at.mesh, rank);
    const own = block === undefined ? name : `${name}@${block.start}:${block.size}`;
    if (block !== undefined) parts.set(own, { of: name, rank, block });
    const shape = localShape(sharding, at.mesh, rank);
    return builder.within({ group }, () => builder.input(own, role, { dtype: type.dtype, shape }));
  };
  return {
    kind: "free",
    place,
    type,
    make,
    anywhere: true,
    wishAt: (mesh) => wishOf(mesh, type, source.timeDims(name)),
  };
}

/** Time steps split along the sequence axis. */
function wishOf({ axes }: Mesh, { shape }: TensorType, timeDims: readonly number[]): Sharding | undefined {
  const along = axes.find(({ axis }) => axis === "sequence");
  const [dim] = timeDims;
  const factors: Factors | undefined =
    along && dim !== undefined ? splitDim(shape[dim] as number, 1, along) : undefined;
  if (factors === undefined || dim === undefined) return undefined;
  const { dims, partial } = whole(shape);
  return { dims: dims.with(dim, factors), partial };
}

function ownInput(
  { source, builder, values }: SplitContext,
  parts: Map<string, Part>,
  { name, role }: GraphInput,
  type: TensorType,
): Entry {
  const declare = (at: StagePlace, asked: Sharding): Sharded => {
    const sharding = { dims: stateLike(values, source, name)?.dims ?? asked.dims, partial: [] };
    return {
      ...type,
      mesh: at.mesh,
      sharding,
      parts: onEach(at, (rank): Tensor => {
        const own = partName(name, at.mesh, rank);
        const block = blockOf(sharding, at.mesh, rank);
        if (own !== name) parts.set(own, { of: name, rank, ...(block && { block }) });
        return builder.input(own, role, { dtype: type.dtype, shape: localShape(sharding, at.mesh, rank) });
      }),
    };
  };
  const given = source.given.get(name);
  if (given === undefined) return { kind: "open", name, type, isParameter: role === "parameter", declare };
  const { group, stage, mesh, isMade, sharding, summed } = given;
  const place: StagePlace = { builder, group, phase: isMade ? "U" : "F", stage, mesh };
  const declared = { ...declare(place, sharding), sharding };
  const value = summed === undefined ? declared : reshard(place, declared, summed);
  return { kind: "made", place, value, ...(!isMade && { input: name }) };
}

/** The gradient that arrives at a carried state lies as the state does. */
function stateLike(values: Values, { graph }: SplitSource, name: string): Sharding | undefined {
  if (!name.startsWith("arriving:")) return undefined;
  const state = stateNames(name.slice("arriving:".length)).value;
  const input = graph.inputs.findIndex((candidate) => candidate.name === state);
  const entry = input < 0 ? undefined : values.entry(input);
  return entry?.kind === "made" ? entry.value.sharding : undefined;
}
