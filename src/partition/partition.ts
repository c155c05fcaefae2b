/**
 * From the training step, a placement and a schedule to one program for each device. Walks the schedule; each action becomes the
 * segments of its stage and phase, with a receive before the first use of what comes from elsewhere and a send after what is needed
 * elsewhere. Any value may go from any stage to any other: skip connections, several tensors, tied parameters.
 */

import type { TrainingStep } from "../autodiff/training-step.ts";
import { invariant } from "../base/errors.ts";
import type { InputSpec } from "../data/dataset.ts";
import type { Graph } from "../graph/graph.ts";
import type { Program } from "../program/program.ts";
import { type Action, piecesOf, type Schedule, type Weights } from "../schedule/action.ts";
import { DeviceWriter } from "./device-writer.ts";
import { ItemWriter } from "./item-writer.ts";
import { Mail } from "./mail.ts";
import { UpdateWriter } from "./update-writer.ts";

/** One item of the mini-batch: which of the steps' graphs it uses, and the samples and time steps it covers (from, to). */
export interface ItemSlice {
  readonly step: number;
  readonly batch: readonly [number, number];
  readonly time: readonly [number, number];
}

/** A training step, or for evaluation one without the update. */
export type PartitionStep = Pick<TrainingStep, "item" | "states" | "gradients"> & { readonly update?: Graph };

export interface PartitionSource {
  /** One step for each distinct item shape; they differ in shapes only. */
  readonly steps: readonly PartitionStep[];
  /** Items by micro-batch and chunk. */
  readonly items: readonly (readonly ItemSlice[])[];
  readonly schedule: Schedule;
  readonly weights: Weights;
  readonly inputs: readonly InputSpec[];
  readonly stageOf: (group: string) => number;
  readonly deviceOf: (stage: number) => number;
}

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
  if (first.update !== undefined)
    new UpdateWriter(first.update, first.gradients, source, writers, mail).write();
  return writers.map((writer) => writer.build());
}

/** With deferred weights, the W at the end of a device's actions stage by stage: the W of a stage are one piece. */
function inStageOrder(actions: readonly Action[], weights: Weights): readonly Action[] {
  if (weights !== "deferred") return actions;
  const rest = actions.filter(({ phase }) => phase !== "W");
  const deferred = actions.filter(({ phase }) => phase === "W").sort((a, b) => b.stage - a.stage);
  return [...rest, ...deferred];
}
