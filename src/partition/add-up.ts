/**
 * Adds up what devices computed from different samples or positions, after the last item and before U: every gradient, and the loss.
 * From then on all devices that have the same part of a parameter hold the same gradient and do the same update.
 *
 *     replica 0 | F B W ... ┐               ┌ U
 *     replica 1 | F B W ... ┴ all-reduce ───┴ U
 */

import { invariant } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { lossOutput } from "../model/forward.ts";
import type { BufferKind } from "../program/program.ts";
import { partName } from "../shard/inputs.ts";
import { ranksAlong } from "../shard/mesh.ts";
import { partOf, type SplitGraph } from "../shard/split-source.ts";
import type { DeviceWriter } from "./device-writer.ts";
import type { PartitionSource } from "./source.ts";

/**
 * Writes one all-reduce for every gradient and for the loss, over the replicas and the axes along which they are partial. Where replicas
 * share the update, gradients are added up there, or are already.
 */
export function addUp(
  { replicas, numberOf, zero }: PartitionSource,
  split: SplitGraph,
  writers: readonly DeviceWriter[],
): void {
  const [step] = replicas[0]?.steps ?? [];
  if (step === undefined) return;
  const summed = zero === 0 ? step.gradients : [];
  for (const { output } of [...summed, ...lossMaker(step.item)]) {
    const spread = split.outputs.get(output);
    invariant(spread !== undefined, `the item graph has no output "${output}"`);
    const { mesh, stage, sharding } = spread;
    for (const alike of ranksAlong(mesh, sharding.partial)) {
      const ranks = replicas.flatMap(({ deviceOf }) => alike.map((rank) => deviceOf(stage, rank)));
      if (ranks.length < 2) continue;
      const [first = 0] = alike;
      const name = partName(output, mesh, first);
      const { block } = partOf(split, name);
      const spec = {
        name: output,
        type: outputType(split.graph, name),
        kind: kindOf(output),
        ...(block && { block }),
      };
      for (const rank of ranks) {
        const writer = writers[rank] as DeviceWriter;
        const buffer = writer.buffer(spec);
        writer.add({ kind: "all-reduce", reduce: "sum", buffer, group: numberOf(ranks), ranks });
      }
    }
  }
}

/** The group in which the loss arises, as for a gradient. */
export function lossMaker({
  nodes,
  outputs,
}: Graph): readonly { readonly output: string; readonly group: string }[] {
  const loss = outputs.find(({ name }) => name === lossOutput);
  const node = nodes.find((candidate) => loss !== undefined && candidate.outputs.includes(loss.value));
  return node === undefined ? [] : [{ output: lossOutput, group: node.group }];
}

function kindOf(output: string): BufferKind {
  return output === lossOutput ? "result" : "gradient";
}

function outputType({ outputs, types }: Graph, name: string): TensorType {
  const value = outputs.find((output) => output.name === name)?.value;
  invariant(value !== undefined, `the item graph has no output "${name}"`);
  return types[value] as TensorType;
}
