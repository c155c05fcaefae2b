/**
 * Adds up over the replicas what each computed from its samples, after the last item and before U: every gradient, and the loss. From
 * then on all replicas hold the same numbers and do the same update.
 *
 *     replica 0 | F B W ... ┐               ┌ U
 *     replica 1 | F B W ... ┴ all-reduce ───┴ U
 */

import { invariant } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { lossOutput } from "../model/forward.ts";
import type { BufferKind } from "../program/program.ts";
import type { DeviceWriter } from "./device-writer.ts";
import type { PartitionSource } from "./source.ts";

/** Writes one all-reduce for every gradient and for the loss; none where there is one replica. */
export function addUpReplicas(
  { replicas, stageOf }: PartitionSource,
  writers: readonly DeviceWriter[],
): void {
  const [first] = replicas;
  const [step] = first?.steps ?? [];
  if (replicas.length < 2 || step === undefined) return;
  for (const { output, group } of [...step.gradients, ...lossMaker(step.item)]) {
    const ranks = replicas.map(({ deviceOf }) => deviceOf(stageOf(group)));
    const spec = { name: output, type: outputType(step.item, output), kind: kindOf(output) };
    const [leader] = ranks;
    invariant(leader !== undefined, "at least one replica");
    for (const rank of ranks) {
      const writer = writers[rank] as DeviceWriter;
      writer.add({ kind: "all-reduce", buffer: writer.buffer(spec), group: leader, ranks });
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
