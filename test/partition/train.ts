/** Trains an example on devices of this thread, keeping everything that two layouts must agree on. */

import { expect } from "vitest";
import type { Batch, DataSet } from "../../src/data/dataset.ts";
import type { Engine } from "../../src/execute/engine.ts";
import { type HeldTensor, joinParts } from "../../src/execute/held-tensors.ts";
import { type LocalCluster, localCluster } from "../../src/execute/local-cluster.ts";
import { memoryTransports } from "../../src/execute/memory-transport.ts";
import { referenceEngine } from "../../src/execute/reference-engine.ts";
import { Trainer } from "../../src/execute/trainer.ts";
import type { Layout } from "../../src/layout/layout.ts";
import { channelPlan } from "../../src/program/channels.ts";
import type { Program } from "../../src/program/program.ts";
import { batchOf, type Example } from "./models.ts";

/** Everything that a layout must not change, by name. */
export type Outcome = ReadonlyMap<string, Float64Array>;

export function dataOf(example: Example, batches: number): DataSet {
  async function* all(): AsyncGenerator<Batch> {
    for (let i = 0; i < batches; i++) yield batchOf(example, i);
  }
  return {
    inputs: example.source.inputs,
    shapes: example.shapes,
    training: all,
    validation: all,
    batchesPerEpoch: batches,
    description: {},
  };
}

/** Channels in memory for the programs of each device. */
export function connect(programs: readonly ReadonlyMap<string, Program>[]) {
  const keys = [...(programs[0]?.keys() ?? [])];
  const sets = keys.map((key) => programs.flatMap((ofDevice) => ofDevice.get(key) ?? []));
  const timer = (milliseconds: number, action: () => void) => {
    const handle = setTimeout(action, milliseconds);
    return () => clearTimeout(handle);
  };
  return memoryTransports({ ...channelPlan(sets), size: programs.length }, timer);
}

export interface TrainOptions {
  readonly engine?: Engine;
  readonly now?: () => number;
  /** Where another trainer left off. */
  readonly from?: Trainer;
}

export interface Training {
  readonly trainer: Trainer;
  readonly cluster: LocalCluster;
}

export async function start(example: Example, layout: Layout, options: TrainOptions = {}): Promise<Training> {
  const { engine = referenceEngine(), now = () => 0, from } = options;
  const cluster = localCluster({ engine, deadline: 5, now, connect });
  const { source } = example;
  const trainer = await Trainer.create({
    source,
    data: dataOf(example, 2),
    layout,
    seed: 3,
    cluster,
    engine,
    ...(from && { start: { steps: from.steps, tensors: await from.tensors() } }),
  });
  return { trainer, cluster };
}

/** Two steps and an evaluation: losses, norms, gradients of the second step, and all that lasts. */
export async function outcomeOf(
  example: Example,
  layout: Layout,
  options: TrainOptions = {},
): Promise<Outcome> {
  const { trainer, cluster } = await start(example, layout, options);
  const outcome = new Map<string, Float64Array>();
  for (let i = 0; i < 2; i++) {
    const { loss, gradientNorm } = await trainer.step(batchOf(example, i));
    outcome.set(`loss ${i}`, Float64Array.of(loss));
    outcome.set(`norm ${i}`, Float64Array.of(gradientNorm));
    for (const [name, values] of gradientsOf(cluster)) outcome.set(`${name} ${i}`, values);
  }
  for (const [name, { data }] of await trainer.tensors())
    outcome.set(name, Float64Array.from(data as Float64Array));
  const { loss } = await trainer.evaluate(dataOf(example, 2).validation());
  outcome.set("validation", Float64Array.of(loss));
  await cluster[Symbol.asyncDispose]();
  return outcome;
}

/** The gradient of every parameter: the sum of its parts, each of which may be known to several devices. */
function gradientsOf({ devices }: LocalCluster): ReadonlyMap<string, Float64Array> {
  const held = new Map<string, HeldTensor[]>();
  for (const device of devices)
    for (const [name, part] of device.gradients) held.set(name, [...(held.get(name) ?? []), part]);
  const parts = [...held].map(([name, of]) => {
    return [name, Float64Array.from(joinParts(of, []).data as Float64Array)] as const;
  });
  const sums = new Map<string, Float64Array>();
  for (const [name, values] of parts.sort(([a], [b]) => (a < b ? -1 : 1))) {
    const whole = name.replace(/@.*/, "");
    const sum = sums.get(whole);
    if (sum === undefined) sums.set(whole, values);
    else
      values.forEach((value, i) => {
        sum[i] = (sum[i] as number) + value;
      });
  }
  return sums;
}

/** Everything agrees within `tolerance` times the largest element of its kind. */
export function expectSame(actual: Outcome, expected: Outcome, tolerance: number, message: string): void {
  expect([...actual.keys()].sort(), message).toEqual([...expected.keys()].sort());
  const faults: string[] = [];
  for (const [name, values] of expected) {
    const got = actual.get(name) as Float64Array;
    const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
    let worst = got.length === values.length ? 0 : Number.POSITIVE_INFINITY;
    for (let i = 0; i < values.length; i++) {
      const error = Math.abs((got[i] as number) - (values[i] as number)) / scale;
      worst = error <= worst ? worst : Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
    }
    if (worst > tolerance)
      faults.push(`${name} differs by ${worst}: ${[...got.slice(0, 4)]} expected ${[...values.slice(0, 4)]}`);
  }
  expect(faults, message).toEqual([]);
}
