/**
 * From the training step, a placement and a schedule to one program for each device. Walks the schedule; each action becomes the
 * segments of its stage and phase, with a receive before the first use of what comes from elsewhere and a send after what is needed
 * elsewhere. Any value may go from any stage to any other: skip connections, several tensors, tied parameters. Every replica is a
 * pipeline of its own; they meet when they add up their gradients.
 */

import { invariant } from "../base/errors.ts";
import type { Program } from "../program/program.ts";
import { type Action, piecesOf, type Weights } from "../schedule/action.ts";
import { noMesh, rankCount } from "../shard/mesh.ts";
import type { SplitGraph } from "../shard/split-source.ts";
import { addUp } from "./add-up.ts";
import { DeviceWriter } from "./device-writer.ts";
import { ItemWriter } from "./item-writer.ts";
import { Mail } from "./mail.ts";
import { SharedGradients } from "./shared-gradients.ts";
import type { PartitionSource, ReplicaSource } from "./source.ts";
import { UpdateWriter } from "./update-writer.ts";

/** The programs of all devices, by device; replicas differ in their samples only. */
export function partition(source: PartitionSource): readonly Program[] {
  const writers = Array.from({ length: source.devices }, (_, device) => {
    const replica = source.replicas.findIndex(({ schedule }) => (schedule[device]?.length ?? 0) > 0);
    return new DeviceWriter(device, Math.max(0, replica));
  });
  const mail = new Mail(writers);
  const replicas = source.replicas.map((replica): ReplicaSource => ({ ...source, ...replica }));
  const whole = joined(replicas);
  const shared = source.zero === 2 ? new SharedGradients(whole) : undefined;
  const [split] = replicas.map((replica) => writeItems(replica, writers, mail, shared));
  invariant(split !== undefined, "at least one replica");
  addUp(source, split, writers);
  for (const replica of source.zero === 0 ? replicas : [whole]) {
    const [first] = replica.steps;
    invariant(first !== undefined, "at least one step");
    const { update } = first;
    if (update !== undefined)
      new UpdateWriter({ ...first, update }, split, replica, writers, mail, source.zero === 2).write();
  }
  return writers.map((writer) => writer.build());
}

/** All replicas as one, with a further axis `data` on every mesh. */
function joined(replicas: readonly ReplicaSource[]): ReplicaSource {
  const [first] = replicas;
  invariant(first !== undefined, "at least one replica");
  const { schedule, meshes } = first;
  return {
    ...first,
    schedule: schedule.map((_, device) => replicas.flatMap((replica) => replica.schedule[device] ?? [])),
    meshes: meshes.map(({ axes }) => ({ axes: [{ axis: "data", size: replicas.length }, ...axes] })),
    deviceOf: (stage, rank) => {
      const count = rankCount(meshes[stage] ?? noMesh);
      const replica = replicas[Math.floor(rank / count)] ?? first;
      return replica.deviceOf(stage, rank % count);
    },
  };
}

/** Writes all items of a replica; returns how the first one's graph is split. */
function writeItems(
  replica: ReplicaSource,
  writers: readonly DeviceWriter[],
  mail: Mail,
  shared: SharedGradients | undefined,
): SplitGraph {
  const items = new ItemWriter(replica, writers, mail, shared);
  for (const [device, actions] of replica.schedule.entries()) {
    for (const piece of piecesOf(inStageOrder(actions, replica.weights), replica.weights))
      items.write(device, piece);
  }
  return items.plan.split;
}

/** With deferred weights, the W at the end of a device's actions stage by stage: the W of a stage are one piece. */
function inStageOrder(actions: readonly Action[], weights: Weights): readonly Action[] {
  if (weights !== "deferred") return actions;
  const rest = actions.filter(({ phase }) => phase !== "W");
  const deferred = actions.filter(({ phase }) => phase === "W").sort((a, b) => b.stage - a.stage);
  return [...rest, ...deferred];
}
