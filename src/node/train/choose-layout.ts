/** Which layout a run uses: a document, a placement by hand, or the planner's choice; one device where nothing is said. */

import { UserError } from "../../base/errors.ts";
import type { BatchShape } from "../../data/dataset.ts";
import {
  devicesOfReplica,
  type Layout,
  type LayoutDevice,
  type LayoutStage,
  replicaCount,
  type ScheduleName,
  type WeightTiming,
  withReplicas,
} from "../../layout/layout.ts";
import { parseLayout } from "../../layout/parse.ts";
import { type PlaceRule, parseDevices, parsePlace, placeByHand, placeRules } from "../../layout/place.ts";
import type { CompileSource } from "../../partition/compile.ts";
import { checkLayout, layoutChecks, layoutModel } from "../../plan/check-layout.ts";
import { choosePipeline } from "../../plan/pipeline.ts";
import { readTextFile } from "../files/text-file.ts";

/** What a user may say about the split; what is left out is chosen. */
export interface LayoutOptions {
  /** `cpu:2`, `cpu:2x4`, `cpu:0,cpu:1`. */
  readonly devices?: string;
  /** `embed=cpu:0,layer*=cpu:1`. */
  readonly place?: string;
  /** Path of a layout document; excludes the others. */
  readonly layout?: string;
  /** Copies of the pipeline that share the samples of every mini-batch: the size of the data axis. */
  readonly data?: number;
  readonly microBatches?: number;
  readonly chunks?: number;
  readonly schedule?: ScheduleName;
  readonly weights?: WeightTiming;
}

export interface LayoutRequest {
  readonly source: CompileSource;
  readonly shapes: readonly BatchShape[];
  readonly options: LayoutOptions;
  /** Placement from the job, from group pattern to device. */
  readonly place?: { readonly [pattern: string]: string };
  readonly recompute: Layout["recompute"];
  /** Threads of each device where `devices` does not say. */
  readonly threads: number;
}

export interface LayoutChoice {
  readonly layout: Layout;
  /** Plain sentences: what was chosen and why; empty where the user chose. */
  readonly reasons: readonly string[];
}

export function chooseLayout(request: LayoutRequest): LayoutChoice {
  const { source, shapes, options, recompute } = request;
  if (options.layout !== undefined) return { layout: readLayout(options.layout, request), reasons: [] };
  const { microBatches, chunks, schedule, weights, data = 1 } = options;
  const { devices, copies } = shareDevices(devicesOf(request), data);
  const hand = handPlaced(request, devices);
  const choice = choosePipeline({
    source,
    shapes: shapes.map((shape) => ({ ...shape, batch: Math.ceil(shape.batch / data) })),
    devices: hand?.devices ?? devices,
    recompute,
    fixed: {
      ...(chunks !== undefined && { chunks }),
      ...(schedule && { schedule }),
      ...(weights && { weights }),
    },
    ...(hand && { stages: hand.stages }),
    ...(microBatches !== undefined && { microBatches }),
  });
  const reasons = devices.length === 1 ? [] : choice.reasons;
  if (data === 1) return { layout: choice.layout, reasons };
  const layout = withReplicas(
    choice.layout,
    copies.map((copy) => copiesOf(choice.layout, devices, copy)),
  );
  checkLayout(layout, layoutModel(source, shapes));
  return { layout, reasons: [replicaSentence(layout, shapes), ...reasons] };
}

type Devices = readonly LayoutDevice[];

/** The devices of the first replica, and those of the others. Throws a `UserError` where they cannot be shared out evenly. */
function shareDevices(
  all: Devices,
  data: number,
): { readonly devices: Devices; readonly copies: readonly Devices[] } {
  const each = all.length / data;
  if (!Number.isInteger(each)) {
    const names = all.map(({ name }) => name).join(", ");
    throw new UserError(`cannot share ${all.length} devices (${names}) between ${data} replicas`, [
      `give a number of devices that ${data} divides, for example --devices cpu:${data}`,
    ]);
  }
  const copies = Array.from({ length: data - 1 }, (_, i) => all.slice((i + 1) * each, (i + 2) * each));
  return { devices: all.slice(0, each), copies };
}

/** The devices of `copy` that stand where those of `layout` stand among `devices`: the planner may leave some out. */
function copiesOf(layout: Layout, devices: Devices, copy: Devices): Devices {
  return layout.devices.map(
    ({ name }) => copy[devices.findIndex((device) => device.name === name)] as LayoutDevice,
  );
}

function replicaSentence(layout: Layout, shapes: readonly BatchShape[]): string {
  const count = replicaCount(layout);
  const names = Array.from({ length: count }, (_, replica) =>
    devicesOfReplica(layout, replica)
      .map((device) => layout.devices[device]?.name)
      .join(" "),
  );
  const shares = [...new Set(shapes.map(({ batch }) => Math.ceil(batch / count)))].join(" or ");
  return `Every mini-batch is shared by ${count} replicas (${names.join(" | ")}), at most ${shares} samples each; they add up their gradients before the update.`;
}

/** The same devices with as many groups on each, one item at a time: how layers are placed by people who only count them. */
export function naiveLayout(layout: Layout, groups: readonly string[]): Layout {
  const { devices, recompute } = layout;
  const stages = devices.map(({ name }, i): LayoutStage => {
    const cut = (device: number) => Math.round((device * groups.length) / devices.length);
    return { device: name, groups: groups.slice(cut(i), cut(i + 1)) };
  });
  return {
    version: 1,
    devices,
    stages,
    microBatches: 1,
    chunks: 1,
    schedule: "naive",
    weights: "fused",
    recompute,
  };
}

function readLayout(path: string, { source, shapes, options, place }: LayoutRequest): Layout {
  const { devices, place: rules, data, microBatches, chunks, schedule, weights } = options;
  const others = { devices, place: rules, data, microBatches, chunks, schedule, weights };
  const given = Object.entries(others).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  const excluded = place === undefined ? given : [...given, "place (of the job)"];
  if (excluded.length > 0) {
    throw new UserError(
      `the layout document ${path} says everything`,
      excluded.map((name) => `leave out ${name}`),
    );
  }
  return parseLayout(readTextFile(path), ...layoutChecks(layoutModel(source, shapes)));
}

function devicesOf({ options, threads }: LayoutRequest): readonly LayoutDevice[] {
  if (options.devices === undefined) return [{ name: "cpu:0", threads }];
  return parseDevices(options.devices).map((device) =>
    device.threads === 1 ? { ...device, threads } : device,
  );
}

function handPlaced({ source, shapes, options, place }: LayoutRequest, devices: readonly LayoutDevice[]) {
  const rules: readonly PlaceRule[] = [
    ...(place ? placeRules(place) : []),
    ...(options.place === undefined ? [] : parsePlace(options.place)),
  ];
  if (rules.length === 0) return undefined;
  const { groups, flows } = layoutModel(source, shapes);
  return placeByHand(groups, flows, rules, devices);
}
