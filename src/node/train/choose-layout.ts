/** Which layout a run uses: a document, a placement by hand, or the planner's choice; one device where nothing is said. */

import { UserError } from "../../base/errors.ts";
import type { BatchShape } from "../../data/dataset.ts";
import { parseDomain } from "../../layout/domain.ts";
import {
  devicesOfReplica,
  type Layout,
  type LayoutDevice,
  type LayoutStage,
  type Mesh,
  meshSize,
  positionsOf,
  replicaCount,
  type ScheduleName,
  showMesh,
  type WeightTiming,
  withMesh,
  withReplicas,
  type ZeroStage,
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
  /** What the replicas share: 1, the optimizer's state and the update; 2, gradients too; default 0, nothing. */
  readonly zero?: ZeroStage;
  /** Devices that share the weights of every layer: the size of the tensor axis. */
  readonly tensor?: number;
  /** Devices that share the positions of images or sequences: `height=2`, `width=2,height=2`, `sequence=2`. */
  readonly domain?: string;
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
  const mesh = meshOf(options);
  const replicas = shareDevices(devicesOf(request), data, mesh);
  const [positions = []] = replicas;
  const devices = positions.map(([first]) => first as LayoutDevice);
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
    // With a mesh every layer is split already.
    sharesTail: meshSize({ mesh }) === 1,
  });
  const reasons = devices.length === 1 ? [] : choice.reasons;
  const { zero } = options;
  if (data === 1 && meshSize({ mesh }) === 1 && zero === undefined) return { layout: choice.layout, reasons };
  const layout = { ...widen(choice.layout, mesh, replicas), ...(zero !== undefined && { zero }) };
  checkLayout(layout, layoutModel(source, shapes));
  return {
    layout,
    reasons: [...meshSentences(layout, choice.layout), ...replicaSentences(layout, shapes), ...reasons],
  };
}

type Devices = readonly LayoutDevice[];

/** By position of the pipeline, the devices that hold it together. */
type Positions = readonly Devices[];

function meshOf({ tensor, domain }: LayoutOptions): Mesh {
  return {
    ...(domain !== undefined && parseDomain(domain)),
    ...(tensor !== undefined && { tensor }),
  };
}

/** The positions of each replica: runs of as many devices as the mesh has ranks. Throws a `UserError` where they do not come out even. */
function shareDevices(all: Devices, data: number, mesh: Mesh): readonly Positions[] {
  const size = meshSize({ mesh });
  if (all.length % (data * size) !== 0) {
    const names = all.map(({ name }) => name).join(", ");
    const meshes = size === 1 ? "" : `meshes of ${size} (${showMesh({ mesh })})`;
    const between =
      data === 1 ? meshes : [`${data} replicas`, ...(size === 1 ? [] : [`of ${meshes}`])].join(" ");
    throw new UserError(`cannot share ${all.length} devices (${names}) between ${between}`, [
      `give a number of devices that ${data * size} divides, for example --devices cpu:${data * size}`,
    ]);
  }
  const each = all.length / data / size;
  return Array.from({ length: data }, (_, replica) =>
    Array.from({ length: each }, (__, position) => {
      const start = (replica * each + position) * size;
      return all.slice(start, start + size);
    }),
  );
}

/** A layout of the first devices of the first replica's positions, on all devices. The planner may have left positions out. */
function widen(layout: Layout, mesh: Mesh, replicas: readonly Positions[]): Layout {
  const [first = []] = replicas;
  const used = layout.devices.map(({ name }) => first.findIndex(([device]) => device?.name === name));
  const [ranks, ...copies] = replicas.map((positions) => used.map((position) => positions[position] ?? []));
  const split =
    meshSize({ mesh }) === 1
      ? layout
      : withMesh(layout, mesh, ranks?.map((devices) => devices.slice(1)) ?? []);
  return withReplicas(
    split,
    copies.map((positions) => positions.flat()),
  );
}

/** `planned` is the layout before its stages were split. */
function meshSentences(layout: Layout, planned: Layout): readonly string[] {
  const [stage] = layout.stages as readonly [LayoutStage, ...LayoutStage[]];
  const size = meshSize(stage);
  if (size === 1) return [];
  const positions = positionsOf(layout);
  const names = positions.map((ranks) => ranks.map((device) => layout.devices[device]?.name).join(" "));
  const split = `Every layer is split over ${size} devices (${showMesh(stage)}): ${names.join(" | ")}.`;
  if (positions.length === 1) return [split];
  const first = planned.devices.map(({ name }) => name).join(", ");
  return [
    split,
    `Where layers go was planned as if ${first} held them whole; so are the figures that follow. paraxis layout predicts the split.`,
  ];
}

function replicaSentences(layout: Layout, shapes: readonly BatchShape[]): readonly string[] {
  const count = replicaCount(layout);
  if (count === 1) return [];
  const names = Array.from({ length: count }, (_, replica) =>
    devicesOfReplica(layout, replica)
      .map((device) => layout.devices[device]?.name)
      .join(" "),
  );
  const shares = [...new Set(shapes.map(({ batch }) => Math.ceil(batch / count)))].join(" or ");
  return [
    `Every mini-batch is shared by ${count} replicas (${names.join(" | ")}), at most ${shares} samples each; they add up their gradients before the update.`,
  ];
}

/** The same devices, as far as there are groups, with as many on each, one item at a time: how layers are placed by people who only count. */
export function naiveLayout(layout: Layout, groups: readonly string[]): Layout {
  const { recompute } = layout;
  const devices = layout.devices.slice(0, groups.length);
  const stages = devices.map(({ name }, i): LayoutStage => {
    const cut = (device: number) => Math.round((device * groups.length) / devices.length);
    return { devices: [name], groups: groups.slice(cut(i), cut(i + 1)) };
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
  const { devices, place: rules, data, tensor, domain, zero } = options;
  const { microBatches, chunks, schedule, weights } = options;
  const meshes = { data, tensor, domain, zero };
  const others = { devices, place: rules, ...meshes, microBatches, chunks, schedule, weights };
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
