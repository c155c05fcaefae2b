/** Layers split over threads with ONNX Runtime in float32 compute what one device computes. */

import { expect, test } from "vitest";
import { referenceEngine } from "../../../src/execute/reference-engine.ts";
import { Trainer } from "../../../src/execute/trainer.ts";
import { type Layout, type Mesh, meshSize, oneDevice } from "../../../src/layout/layout.ts";
import { threadCluster } from "../../../src/node/devices/thread-cluster.ts";
import { onnxRuntimeEngine } from "../../../src/node/onnxruntime/engine.ts";
import { batchOf, type Example, type ExampleName, exampleOf } from "../../partition/models.ts";
import { dataOf, expectSame, type Outcome, start } from "../../partition/train.ts";

/** Losses, norms, what lasts after two steps, and the loss of evaluation. */
async function outcomeOfSteps(example: Example, trainer: Trainer): Promise<Outcome> {
  const outcome = new Map<string, Float64Array>();
  for (let i = 0; i < 2; i++) {
    const { loss, gradientNorm } = await trainer.step(batchOf(example, i));
    outcome.set(`step ${i}`, Float64Array.of(loss, gradientNorm));
  }
  for (const [name, { data }] of await trainer.tensors())
    outcome.set(name, Float64Array.from(data as Float32Array));
  const { loss } = await trainer.evaluate(dataOf(example, 2).validation());
  return outcome.set("validation", Float64Array.of(loss));
}

async function trainInThreads(example: Example, layout: Layout): Promise<Outcome> {
  await using cluster = threadCluster({ devices: layout.devices, engine: "onnxruntime", deadline: 10 });
  const { source } = example;
  const data = dataOf(example, 2);
  const trainer = await Trainer.create({ source, data, layout, seed: 3, cluster, engine: referenceEngine() });
  return await outcomeOfSteps(example, trainer);
}

function meshed(groups: readonly string[], mesh: Mesh): Layout {
  const names = Array.from({ length: meshSize({ mesh }) }, (_, i) => `cpu:${i}`);
  return {
    ...oneDevice(groups),
    devices: names.map((name) => ({ name, threads: 1 })),
    stages: [{ devices: names, mesh, groups }],
  };
}

const cases: readonly (readonly [ExampleName, Mesh])[] = [
  ["transformer", { tensor: 2 }],
  ["transformer", { sequence: 2 }],
  ["lstm", { tensor: 2 }],
  ["convolution", { height: 2 }],
];

test.each(cases)(
  "%s on threads of the mesh %o agrees with one device, and with itself in every bit",
  async (name, mesh) => {
    const example = exampleOf(name, { dtype: "f32" });
    await using engine = onnxRuntimeEngine();
    const { trainer } = await start(example, oneDevice(example.groups), { engine });
    const expected = await outcomeOfSteps(example, trainer);
    const layout = meshed(example.groups, mesh);
    const first = await trainInThreads(example, layout);
    expectSame(first, expected, 1e-5, name);
    expect(await trainInThreads(example, layout)).toEqual(first);
  },
);
