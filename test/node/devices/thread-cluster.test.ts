/** Devices as threads compute what devices of one thread compute, in float32 with ONNX Runtime too. */

import { expect, test } from "vitest";
import { referenceEngine } from "../../../src/execute/reference-engine.ts";
import { Trainer } from "../../../src/execute/trainer.ts";
import { type Layout, oneDevice } from "../../../src/layout/layout.ts";
import type { EngineName } from "../../../src/node/devices/messages.ts";
import { threadCluster } from "../../../src/node/devices/thread-cluster.ts";
import { onnxRuntimeEngine } from "../../../src/node/onnxruntime/engine.ts";
import { layoutOf, nameLayout, replicated } from "../../partition/layouts.ts";
import { batchOf, type Example, type ExampleName, exampleOf } from "../../partition/models.ts";
import { dataOf, expectSame, type Outcome, outcomeOf, start } from "../../partition/train.ts";

/** Loss, norm, what lasts after two steps, and the loss of evaluation, with devices in threads. */
async function trainInThreads(
  example: Example,
  engine: EngineName,
  layout: Layout = pipelined(example),
): Promise<Outcome> {
  const { source } = example;
  await using cluster = threadCluster({ devices: layout.devices, engine, deadline: 10 });
  const data = dataOf(example, 2);
  const trainer = await Trainer.create({
    source,
    data,
    layout,
    seed: 3,
    cluster,
    engine: referenceEngine(),
  });
  return await outcomeOfSteps(example, trainer);
}

function pipelined({ groups }: Example): Layout {
  return layoutOf({ groups, devices: 2, microBatches: 2, schedule: "1f1b", weights: "per-item" });
}

async function outcomeOfSteps(example: Example, trainer: Trainer): Promise<Outcome> {
  const outcome = new Map<string, Float64Array>();
  for (let i = 0; i < 2; i++) {
    const { loss, gradientNorm } = await trainer.step(batchOf(example, i));
    outcome.set(`step ${i}`, Float64Array.of(loss, gradientNorm));
  }
  for (const [name, { data }] of await trainer.tensors())
    outcome.set(name, Float64Array.from(data as Float64Array));
  const { loss } = await trainer.evaluate(dataOf(example, 2).validation());
  return outcome.set("validation", Float64Array.of(loss));
}

test("threads give bit for bit what the same devices give in one thread", async () => {
  const example = exampleOf("lstm");
  const { trainer } = await start(example, pipelined(example));
  expect(await trainInThreads(example, "reference")).toEqual(await outcomeOfSteps(example, trainer));
});

test("two threads with ONNX Runtime agree with one device in float32, and with themselves in every bit", async () => {
  const example = exampleOf("lstm", { dtype: "f32" });
  await using engine = onnxRuntimeEngine();
  const { trainer } = await start(example, oneDevice(example.groups), { engine });
  const first = await trainInThreads(example, "onnxruntime");
  expectSame(first, await outcomeOfSteps(example, trainer), 1e-5, "two threads");
  expect(await trainInThreads(example, "onnxruntime")).toEqual(first);
});

test("two replicas of two threads each agree with one device in float32, and with themselves in every bit", async () => {
  const example = exampleOf("lstm", { dtype: "f32" });
  await using engine = onnxRuntimeEngine();
  const { trainer } = await start(example, oneDevice(example.groups), { engine });
  const layout = replicated(pipelined(example), 2);
  const first = await trainInThreads(example, "onnxruntime", layout);
  expectSame(first, await outcomeOfSteps(example, trainer), 1e-5, "two replicas");
  expect(await trainInThreads(example, "onnxruntime", layout)).toEqual(first);
});

const names: readonly ExampleName[] = [
  "lstm",
  "gru",
  "tied",
  "skip-mlp",
  "transformer",
  "convolution",
  "two-towers",
];

test.each(names)("%s: layouts agree with one device in float32 with ONNX Runtime", async (name) => {
  const example = exampleOf(name, { dtype: "f32" });
  await using engine = onnxRuntimeEngine();
  const expected = await outcomeOf(example, oneDevice(example.groups), { engine });
  const { groups, hasChunks } = example;
  const choice = { groups, devices: 3, microBatches: 2, chunks: hasChunks ? 2 : 1 };
  for (const layout of [
    layoutOf({ ...choice, schedule: "wavefront", weights: "deferred" }),
    layoutOf({ ...choice, schedule: "1f1b", weights: "fused" }),
    layoutOf({ ...choice, devices: 2, microBatches: 3, schedule: "zero-bubble-h1", weights: "per-item" }),
    replicated(layoutOf({ ...choice, devices: 2, schedule: "gpipe", weights: "per-item" }), 2),
  ])
    expectSame(await outcomeOf(example, layout, { engine }), expected, 1e-5, nameLayout(layout));
});
