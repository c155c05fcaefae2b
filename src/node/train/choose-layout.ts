/** Which layout a run uses: a document, a placement by hand, or the planner's choice; one device where nothing is said. */

import { UserError } from "../../base/errors.ts";
import type { BatchShape } from "../../data/dataset.ts";
import type { Layout, LayoutDevice, LayoutStage, ScheduleName, WeightTiming } from "../../layout/layout.ts";
import { parseLayout } from "../../layout/parse.ts";
import { type PlaceRule, parseDevices, parsePlace, placeByHand, placeRules } from "../../layout/place.ts";
import type { CompileSource } from "../../partition/compile.ts";
import { layoutChecks, layoutModel } from "../../plan/check-layout.ts";
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
  const devices = devicesOf(request);
  const hand = handPlaced(request, devices);
  const { microBatches, chunks, schedule, weights } = options;
  const choice = choosePipeline({
    source,
    shapes,
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
  return { layout: choice.layout, reasons: devices.length === 1 ? [] : choice.reasons };
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
  const { devices, place: rules, microBatches, chunks, schedule, weights } = options;
  const others = { devices, place: rules, microBatches, chunks, schedule, weights };
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
