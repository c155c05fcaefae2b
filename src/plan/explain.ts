/** Why a layout was chosen, in plain sentences for people. */

import { showBytes } from "../base/bytes.ts";
import type { BatchShape } from "../data/dataset.ts";
import { type Layout, type LayoutStage, meshSize, tensorShares } from "../layout/layout.ts";
import { hasBranches } from "../layout/order.ts";
import { type PlanDevice, speedOf } from "./balance.ts";
import { groupSeconds, type WorkBook } from "./item-work.ts";
import type { Prediction } from "./predict.ts";
import { type DeviceMemory, totalBytes } from "./predict-memory.ts";

export interface ChoiceFacts {
  readonly layout: Layout;
  readonly devices: readonly PlanDevice[];
  readonly seconds: number;
  readonly oneDeviceSeconds: number;
  readonly prediction: Prediction;
  readonly memory: readonly DeviceMemory[];
  readonly book: WorkBook;
  readonly shape: BatchShape;
}

/** Where the groups went, how items stream, what that gains, what it needs. */
export function explain(facts: ChoiceFacts): readonly string[] {
  return [
    ...facts.layout.devices.map((device, i) => placeSentence(facts, device.name, i)),
    ...unusedSentences(facts),
    ...sharedSentences(facts.layout),
    streamSentence(facts),
    ...gainSentences(facts),
  ];
}

function placeSentence(facts: ChoiceFacts, name: string, i: number): string {
  const { layout, devices, book, shape } = facts;
  const seconds = groupSeconds(book.item(shape, shape));
  const timeOf = ({ groups }: LayoutStage): number =>
    groups.reduce((sum, group) => {
      const { F, B, W } = seconds.get(group) ?? { F: 0, B: 0, W: 0 };
      return sum + F + B + W;
    }, 0);
  const stages = layout.stages.filter((stage) => stage.devices.includes(name));
  const total = layout.stages.reduce((sum, stage) => sum + timeOf(stage), 0);
  const partOf = (stage: LayoutStage): number => {
    const { tensor = 1 } = stage.mesh ?? {};
    return ((tensorShares(stage)[stage.devices.indexOf(name)] ?? 0) * tensor) / meshSize(stage);
  };
  const share = stages.reduce((sum, stage) => sum + timeOf(stage) * partOf(stage), 0) / total;
  const held = stages.map((stage) =>
    meshSize(stage) === 1 ? shorten(stage.groups) : `its part of ${shorten(stage.groups)}`,
  );
  const device = devices.find((candidate) => candidate.name === name);
  const isSpecial = devices.some((other) => device !== undefined && speedOf(other) !== speedOf(device));
  const speed = device !== undefined && isSpecial ? ` at speed ${speedOf(device)}` : "";
  const limit = device?.memory === undefined ? "" : ` of ${showBytes(device.memory)}`;
  const memory = facts.memory[i];
  const bytes = showBytes(memory === undefined ? 0 : totalBytes(memory));
  return `${name}${speed} holds ${held.join(", and then ")}: ${percent(share)} of the work and ${bytes}${limit}.`;
}

function unusedSentences({ layout, devices }: ChoiceFacts): readonly string[] {
  const unused = devices.filter(({ name }) => layout.devices.every((device) => device.name !== name));
  if (unused.length === 0) return [];
  const names = unused.map(({ name }) => name).join(", ");
  return [
    `${names} ${unused.length === 1 ? "is" : "are"} left out: using ${unused.length === 1 ? "it" : "them"} would not make the slowest stage faster.`,
  ];
}

/** Stages over devices that have others too. */
function sharedSentences({ stages }: Layout): readonly string[] {
  return stages.flatMap((stage) => {
    const isShared = meshSize(stage) > 1 && stages.some((other) => isPartOf(other, stage));
    if (!isShared) return [];
    const names = `${stage.devices.slice(0, -1).join(", ")} and ${stage.devices.at(-1)}`;
    return [
      `${names} split ${shorten(stage.groups)} between them${stage.shares ? ` (${stage.shares.join(" : ")})` : ""}, so that nobody waits for the device that has it when forward turns into backward.`,
    ];
  });
}

function isPartOf(some: LayoutStage, whole: LayoutStage): boolean {
  return (
    some.devices.length < whole.devices.length && some.devices.every((name) => whole.devices.includes(name))
  );
}

function streamSentence({ layout, book, shape }: ChoiceFacts): string {
  const { devices, stages, microBatches, chunks, schedule, weights } = layout;
  if (devices.length === 1) return "There is one device, so nothing streams.";
  const items = microBatches * chunks;
  if (items === 1)
    return `A mini-batch goes through as one item (${schedule}): only parallel branches can work at the same time; several micro-batches would make a pipeline.`;
  const cut = [
    ...(microBatches > 1 ? [`${microBatches} micro-batches`] : []),
    ...(chunks > 1 ? [`${chunks} chunks of time`] : []),
  ];
  const streams = `A mini-batch streams as ${items} items (${cut.join(" x ")}) in the order ${schedule}; ${weightSentences[weights]}.`;
  const own = stages.filter((stage) => meshSize(stage) === 1);
  const edges = book.flows(book.item(shape, shape)).filter(({ phase }) => phase === "F");
  const isChain = !hasBranches(
    own.map(({ groups }) => groups),
    edges,
  );
  return own.length > devices.length && isChain
    ? `${streams} Devices take several stages in turn, so that each waits less for the first and the last item.`
    : streams;
}

const weightSentences: { readonly [W in Layout["weights"]]: string } = {
  fused: "gradients of weights are computed together with those of inputs",
  "per-item": "gradients of weights are computed after those of inputs, item by item",
  "per-micro-batch": "gradients of weights wait and are computed once for each micro-batch",
  deferred: "gradients of weights wait and are computed once for the step",
};

function gainSentences({
  layout,
  seconds,
  oneDeviceSeconds,
  prediction,
  shape,
}: ChoiceFacts): readonly string[] {
  if (layout.devices.length === 1) return [];
  const gain = oneDeviceSeconds / seconds;
  const idle = prediction.idle.map((share, i) => `${layout.devices[i]?.name} ${percent(share)}`);
  const size =
    shape.time === undefined ? `batch ${shape.batch}` : `batch ${shape.batch}, ${shape.time} time steps`;
  return [
    `Predicted: ${gain.toFixed(2)} times as fast as one device; idle share at ${size}: ${idle.join(", ")}.`,
    ...(gain < 1
      ? ["One device alone is predicted to be faster: this model is too small to be worth splitting."]
      : []),
  ];
}

/** First and last of many names. */
function shorten(names: readonly string[]): string {
  return names.length <= 4
    ? names.join(", ")
    : `${names[0]}, ${names[1]}, ... ${names.at(-1)} (${names.length} groups)`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
