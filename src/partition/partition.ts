/**
 * From the training step, a placement and a schedule to one program for each device. Walks the schedule; each action becomes the
 * segments of its stage and phase, with a receive before the first use of what comes from elsewhere and a send after what is needed
 * elsewhere. Any value may go from any stage to any other: skip connections, several tensors, tied parameters.
 */

import { invariant } from "../base/errors.ts";
import type { Program } from "../program/program.ts";
import { type Action, piecesOf, type Weights } from "../schedule/action.ts";
import { DeviceWriter } from "./device-writer.ts";
import { ItemWriter } from "./item-writer.ts";
import { Mail } from "./mail.ts";
import type { PartitionSource } from "./source.ts";
import { UpdateWriter } from "./update-writer.ts";

/** The programs of all devices, by device; as many as the schedule has. */
export function partition(source: PartitionSource): readonly Program[] {
  const writers = source.schedule.map((_, device) => new DeviceWriter(device));
  const mail = new Mail(writers);
  const items = new ItemWriter(source, writers, mail);
  for (const [device, actions] of source.schedule.entries()) {
    for (const piece of piecesOf(inStageOrder(actions, source.weights), source.weights))
      items.write(device, piece);
  }
  const [first] = source.steps;
  invariant(first !== undefined, "at least one step");
  const { update } = first;
  if (update !== undefined) new UpdateWriter({ ...first, update }, source, writers, mail).write();
  return writers.map((writer) => writer.build());
}

/** With deferred weights, the W at the end of a device's actions stage by stage: the W of a stage are one piece. */
function inStageOrder(actions: readonly Action[], weights: Weights): readonly Action[] {
  if (weights !== "deferred") return actions;
  const rest = actions.filter(({ phase }) => phase !== "W");
  const deferred = actions.filter(({ phase }) => phase === "W").sort((a, b) => b.stage - a.stage);
  return [...rest, ...deferred];
}
