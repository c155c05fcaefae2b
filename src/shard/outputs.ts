/** Declares the outputs of the split graph: one for each rank, in the sharding of the input that they renew. */

import { typeOf } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { blockOf } from "./block.ts";
import { partName } from "./inputs.ts";
import { onRank, splitGroup } from "./sharded.ts";
import { type Sharding, whole } from "./sharding.ts";
import type { SplitContext } from "./site.ts";
import type { Part, Spread } from "./split-source.ts";
import type { StagePlace } from "./values.ts";

/** How each output lies, by its name in the whole graph. */
export function declareOutputs(context: SplitContext, parts: Map<string, Part>): ReadonlyMap<string, Spread> {
  const { source, builder, values } = context;
  const spreads = new Map<string, Spread>();
  for (const { name, value } of source.graph.outputs) {
    const place = placeOf(context, value);
    const target = targetOf(context, name, value);
    const given = values.get(value, place, target);
    const isRenewed = source.graph.inputs.some((input) => input.name === name && input.role === "parameter");
    spreads.set(name, { stage: place.stage, mesh: place.mesh, sharding: given.sharding });
    given.parts.forEach((part, rank) => {
      const own = partName(name, place.mesh, rank);
      const block = blockOf(given.sharding, place.mesh, rank);
      if (own !== name) parts.set(own, { of: name, rank, ...(block && { block }) });
      builder.output(own, isRenewed ? part : settled(context, place, rank, part));
    });
  }
  return spreads;
}

function placeOf({ source, builder, values }: SplitContext, value: number): StagePlace {
  const entry = values.entry(value);
  if (entry.kind !== "open") return entry.place;
  const { group } = source.graph.inputs[value] as { readonly group: string };
  return { builder, group, phase: "F", ...source.meshOf(group) };
}

/** The sharding of the input that the output renews or is the gradient of; whole for all others. */
function targetOf({ source, values }: SplitContext, name: string, value: number): Sharding {
  const like = source.pending.get(name) ?? renewedBy(name);
  const input = source.graph.inputs.findIndex((candidate) => candidate.name === like);
  const entry = input < 0 ? undefined : values.entry(input);
  const dims =
    entry?.kind === "made" ? entry.value.sharding.dims : whole(typeOf(source.graph, value).shape).dims;
  const own = values.entry(value);
  const partial = source.pending.has(name) && own.kind === "made" ? own.value.sharding.partial : [];
  return { dims, partial };
}

/** The gradient of a state is laid out like the state. */
function renewedBy(name: string): string {
  return name.startsWith("grad:state:") ? name.slice("grad:".length) : name;
}

/** What a collective gives is not an output itself, but for gathered parameters: an operation of one rank has to write what lasts. */
function settled({ builder }: SplitContext, place: StagePlace, rank: number, part: Tensor): Tensor {
  const maker = builder.groupOf(part);
  if (maker === undefined || splitGroup(maker).ranks.length === 1) return part;
  return onRank(
    place,
    rank,
    () => builder.apply({ kind: "reshape", shape: part.shape }, [part])[0] as Tensor,
  );
}
