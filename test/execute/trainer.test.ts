/** Whole training steps through the trainer: what a step is, evaluation, checkpoints, and steps that go wrong. */

import { describe, expect, test } from "vitest";
import { trainingStep } from "../../src/autodiff/training-step.ts";
import { deriveKey } from "../../src/base/random.ts";
import type { Batch, TensorData } from "../../src/data/dataset.ts";
import { NonFiniteError } from "../../src/execute/non-finite.ts";
import { add, mean, reciprocal, square, sub } from "../../src/graph/functions.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";
import { buildForward, lossScale } from "../../src/model/forward.ts";
import type { LossFunction } from "../../src/model/loss.ts";
import { postponable } from "../../src/program/postpone.ts";
import type { Program } from "../../src/program/program.ts";
import { layoutOf, replicated } from "../partition/layouts.ts";
import { batchOf, type Example, exampleNames, exampleOf } from "../partition/models.ts";
import { dataOf, expectSame, type Outcome, start } from "../partition/train.ts";

async function tensorsOf({ trainer }: Awaited<ReturnType<typeof start>>): Promise<Outcome> {
  const tensors = [...(await trainer.tensors())];
  return new Map(tensors.map(([name, { data }]) => [name, Float64Array.from(data as Float64Array)]));
}

describe("a step", () => {
  test.each(exampleNames)(
    "of %s on one device is its item graph and its update graph, evaluated once",
    async (name) => {
      const example = exampleOf(name);
      const training = await start(example, oneDevice(example.groups));
      const batch = batchOf(example, 0);
      const before = await training.trainer.tensors();
      const { loss, gradientNorm, targets } = await training.trainer.step(batch);
      const [shape] = example.shapes;
      const { source } = example;
      const forward = buildForward(source, {
        shape: { item: shape as { batch: number }, total: shape as { batch: number } },
        training: true,
        dtype: "f64",
      });
      const { item, update } = trainingStep(forward, { optimizer: source.optimizer });
      const known = new Map<string, Dense>(
        [...before].map(([key, { type, data }]) => [
          key,
          { shape: type.shape, data: Float64Array.from(data as Float64Array) },
        ]),
      );
      for (const [key, { shape: dims, data }] of Object.entries(batch.inputs))
        known.set(key, { shape: dims, data: Float64Array.from(data as Int32Array) });
      const scalars = { ...source.optimizer.scalars(0), [lossScale]: 1 / targets };
      for (const [key, value] of Object.entries(scalars))
        known.set(key, { shape: [], data: Float64Array.of(value) });
      for (const { name: key } of item.inputs)
        if (key.startsWith("key:"))
          known.set(key, { shape: [], data: Float64Array.of(deriveKey(3, 0, key) | 0) });
      const results = evaluateGraph(item, known);
      const updated = evaluateGraph(update, new Map([...known, ...results]));
      const expected = new Map<string, Float64Array>();
      for (const key of before.keys())
        expected.set(key, ((updated.get(key) ?? results.get(key)) as Dense).data);
      expected.set("loss", (results.get("loss") as Dense).data);
      expected.set("norm", (updated.get("norm") as Dense).data);
      const actual = new Map(await tensorsOf(training));
      actual.set("loss", Float64Array.of(loss)).set("norm", Float64Array.of(gradientNorm));
      expectSame(actual, expected, 1e-12, name);
    },
  );

  test("divides the loss by the number of valid targets, and repeats it for the same seed", async () => {
    const example = exampleOf("lstm");
    const [first, second] = [
      await start(example, oneDevice(example.groups)),
      await start(example, oneDevice(example.groups)),
    ];
    const batch = batchOf(example, 0);
    const result = await first.trainer.step(batch);
    expect(result.targets).toBe(batch.validTargets);
    expect(batch.validTargets).toBeLessThan(16);
    expect((await second.trainer.step(batch)).loss).toBe(result.loss);
    expect(first.trainer.steps).toBe(1);
  });

  test("refuses a batch of a shape that the data did not declare", async () => {
    const example = exampleOf("lstm");
    const { trainer } = await start(example, oneDevice(example.groups));
    await expect(trainer.step({ ...batchOf(example, 0), shapeKey: "batch=4 time=9" })).rejects.toThrow(
      "the data gave a batch of shape batch=4 time=9, but declared only batch=4 time=4; batch=4 time=3",
    );
    const { tokens, ...others } = batchOf(example, 0).inputs;
    expect(tokens).toBeDefined();
    await expect(trainer.step({ ...batchOf(example, 0), inputs: others })).rejects.toThrow(
      'the batch has no input "tokens"; it has targets',
    );
  });
});

describe("updates that wait for the next step", () => {
  /** Replicas have no batch norm. */
  const layoutsOf = ({ name, groups, hasChunks }: Example): readonly Layout[] => [
    oneDevice(groups),
    layoutOf({
      groups,
      devices: 2,
      stages: Math.min(4, groups.length),
      microBatches: 2,
      schedule: "wavefront",
    }),
    layoutOf({ groups, devices: 3, chunks: hasChunks ? 2 : 1, schedule: "wavefront", weights: "deferred" }),
    ...(name === "batch-norm" ? [] : [{ ...replicated(oneDevice(groups), 2), zero: 1 as const }]),
  ];

  test.each(exampleNames)(
    "of %s are the same, bit for bit, whoever reads or evaluates in between",
    async (name) => {
      const example = exampleOf(name);
      for (const layout of layoutsOf(example)) {
        const [silent, read, evaluated] = [
          await start(example, layout),
          await start(example, layout),
          await start(example, layout),
        ];
        for (let step = 0; step < 4; step++) {
          const batch = batchOf(example, step);
          const { loss } = await silent.trainer.step(batch);
          expect((await read.trainer.step(batch)).loss).toBe(loss);
          await read.trainer.tensors();
          expect((await evaluated.trainer.step(batch)).loss).toBe(loss);
          await evaluated.trainer.evaluate(dataOf(example, 1).validation());
        }
        const expected = await tensorsOf(silent);
        expect(await tensorsOf(read)).toEqual(expected);
        expect(await tensorsOf(evaluated)).toEqual(expected);
      }
    },
  );

  test("have not been carried out when the step ends, and have when the device is settled", async () => {
    const example = exampleOf("lstm");
    const { trainer, cluster } = await start(example, layoutOf({ groups: example.groups, devices: 2 }));
    const values = () =>
      cluster.devices.map(({ tensors }) => [...tensors].map(([name, { data }]) => [name, [...data]]));
    const before = values();
    await trainer.step(batchOf(example, 0));
    expect(values()).toEqual(before);
    for (const device of cluster.devices) await device.settle();
    values().forEach((held, device) => {
      for (const [i, tensor] of held.entries()) expect(tensor).not.toEqual(before[device]?.[i]);
    });
  });

  test("are timed in the step that carries them out", async () => {
    const example = exampleOf("lstm");
    let clock = 0;
    const options = { now: () => clock++ };
    const { trainer } = await start(example, layoutOf({ groups: example.groups, devices: 2 }), options);
    for (let step = 0; step < 3; step++) {
      const { times, program } = await trainer.step(batchOf(example, step));
      const { programs } = trainer.compiled.get(program) as { readonly programs: readonly Program[] };
      programs.forEach((one, device) => {
        const own = times[device] as Float64Array;
        const first = Math.min(...own.filter((time) => !Number.isNaN(time)));
        for (const index of postponable(one)) {
          if (step === 0) expect(own[2 * index]).toBeNaN();
          else expect(own[2 * index + 1]).toBeGreaterThan(own[2 * index] as number);
          if (step > 0) expect(own[2 * index]).toBeGreaterThanOrEqual(first);
        }
      });
    }
  });
});

describe("evaluation", () => {
  test.each(exampleNames)("of %s is the same on every layout and changes nothing", async (name) => {
    const example = exampleOf(name);
    const { validation } = dataOf(example, 3);
    const single = await start(example, oneDevice(example.groups));
    await single.trainer.step(batchOf(example, 0));
    const before = await tensorsOf(single);
    const expected = await single.trainer.evaluate(validation());
    expect(await tensorsOf(single)).toEqual(before);
    for (const devices of [2, 4]) {
      const layout = layoutOf({ groups: example.groups, devices, microBatches: 2, weights: "deferred" });
      const split = await start(example, layout);
      await split.cluster.write(
        new Map([...(await single.trainer.tensors())].map(([key, { data }]) => [key, data])),
      );
      const actual = await split.trainer.evaluate(validation());
      expect(actual.loss).toBeCloseTo(expected.loss, 12);
      expect(actual.targets).toBe(expected.targets);
    }
  });

  test("is NaN over no batches", async () => {
    const example = exampleOf("two-towers");
    const { trainer } = await start(example, oneDevice(example.groups));
    expect(await trainer.evaluate(dataOf(example, 0).validation())).toEqual({ loss: Number.NaN, targets: 0 });
  });
});

describe("a checkpoint", () => {
  test("taken from one layout and written to another goes on with the same next step", async () => {
    const example = exampleOf("batch-norm");
    const single = await start(example, { ...oneDevice(example.groups), microBatches: 2 });
    await single.trainer.step(batchOf(example, 0));
    const saved = new Map([...(await single.trainer.tensors())].map(([key, { data }]) => [key, data]));
    const split = await start(example, layoutOf({ groups: example.groups, devices: 3, microBatches: 2 }));
    await split.cluster.write(saved);
    expect(await tensorsOf(split)).toEqual(await tensorsOf(single));
    const [expected, actual] = [
      await single.trainer.step(batchOf(example, 1)),
      await split.trainer.step(batchOf(example, 1)),
    ];
    expect(actual.loss).toBeCloseTo(expected.loss, 12);
    expectSame(await tensorsOf(split), await tensorsOf(single), 1e-12, "after the next step");
  });

  test.each(["gru", "lstm"] as const)(
    "of %s, dropout on, is where another trainer goes on: bit for bit on the same layout, and the same on another",
    async (name) => {
      const example = exampleOf(name);
      const layouts = [
        oneDevice(example.groups),
        layoutOf({ groups: example.groups, devices: 3, microBatches: 2, chunks: 2, schedule: "wavefront" }),
      ];
      for (const [i, layout] of layouts.entries()) {
        const whole = await start(example, layout);
        for (const step of [0, 1]) await whole.trainer.step(batchOf(example, step));
        const same = await start(example, layout, { from: whole.trainer });
        const other = await start(example, layouts[1 - i] as Layout, { from: whole.trainer });
        expect(same.trainer.steps).toBe(2);
        expect(await tensorsOf(other)).toEqual(await tensorsOf(whole));
        for (const step of [2, 3]) {
          const batch = batchOf(example, step);
          const { times: _, ...expected } = await whole.trainer.step(batch);
          expect(await same.trainer.step(batch)).toMatchObject(expected);
          expect((await other.trainer.step(batch)).loss).toBeCloseTo(expected.loss, 12);
        }
        expect(await tensorsOf(same)).toEqual(await tensorsOf(whole));
        expectSame(await tensorsOf(other), await tensorsOf(whole), 1e-10, "on another layout");
        const late = await start(example, layout);
        await late.cluster.write(
          new Map([...(await whole.trainer.tensors())].map(([key, { data }]) => [key, data])),
        );
        const [onTime, tooEarly] = [
          await same.trainer.step(batchOf(example, 4)),
          await late.trainer.step(batchOf(example, 4)),
        ];
        expect(tooEarly.loss).not.toBe(onTime.loss);
      }
    },
  );

  test("names the tensors of the model and those of the optimizer once each, copies too", async () => {
    const example = exampleOf("batch-norm");
    const { trainer } = await start(example, layoutOf({ groups: example.groups, devices: 3 }));
    const names = [...(await trainer.tensors()).keys()];
    expect(names).toEqual(names.toSorted());
    expect(new Set(trainer.modelTensors)).toEqual(
      new Set(names.filter((name) => !name.startsWith("momentum:"))),
    );
    expect(names).toContain("state:stem.batchNorm0.mean");
    const tied = await start(exampleOf("tied"), layoutOf({ groups: exampleOf("tied").groups, devices: 4 }));
    expect([...(await tied.trainer.tensors()).keys()].filter((name) => name.startsWith("embed"))).toEqual([
      "embed.table",
    ]);
    const copies = (await tied.cluster.read()).flatMap((held) => [...(held.get("embed.table")?.data ?? [])]);
    expect(copies.slice(0, 21)).toEqual(copies.slice(21));
  });
});

test("tensors of another size are refused, and none is written", async () => {
  const example = exampleOf("skip-mlp");
  const training = await start(example, layoutOf({ groups: example.groups, devices: 1 }));
  const before = await tensorsOf(training);
  const given = new Map([
    ["a.bias", new Float64Array(4).fill(7)],
    ["a.weight", new Float64Array(3)],
    ["b.weight", new Float64Array(99)],
  ]);
  await expect(training.cluster.write(given)).rejects.toThrow(
    'the tensors do not fit the model:\n  - "a.weight" is f64[3,4] in the model, but 3 elements were given\n  - "b.weight" is f64[4,3]',
  );
  expect(await tensorsOf(training)).toEqual(before);
});

describe("a step whose gradient or loss is not finite", () => {
  function broken(example: Example, index: number): Batch {
    const batch = batchOf(example, index);
    const [name] = Object.keys(batch.inputs).filter((key) => batch.inputs[key]?.dtype === "f64");
    const input = batch.inputs[name as string] as Batch["inputs"][string];
    const data = Float64Array.from(input.data as Float64Array).fill(Number.NaN, 0, 1);
    return { ...batch, inputs: { ...batch.inputs, [name as string]: { ...input, data } } };
  }

  test.each(["batch-norm", "skip-mlp", "gru", "two-towers"] as const)(
    "of %s changes nothing that lasts on any device, says where, and the next one is as if it had not been",
    async (name) => {
      const example = exampleOf(name);
      for (const devices of [1, 3]) {
        const layout = layoutOf({ groups: example.groups, devices, microBatches: 2, weights: "deferred" });
        const [training, other] = [await start(example, layout), await start(example, layout)];
        await training.trainer.step(batchOf(example, 0));
        const before = await tensorsOf(training);
        const error = await training.trainer.step(broken(example, 1)).catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(NonFiniteError);
        expect((error as Error).message).toMatch(
          /^step 2: the loss is NaN and the gradient's norm NaN; the first tensor that is not finite is the input "\w+" f64\[[\d,]+\]; the parameters are those before this step$/,
        );
        expect(await tensorsOf(training)).toEqual(before);
        await other.trainer.step(batchOf(example, 0));
        await training.trainer.step(batchOf(example, 1));
        await other.trainer.step(batchOf(example, 1));
        expect(await tensorsOf(training)).toEqual(await tensorsOf(other));
      }
    },
  );

  test("changes nothing where only the loss is not, wherever it is computed", async () => {
    const plain = exampleOf("skip-mlp");
    const loss: LossFunction = (output, { targets }) =>
      mean(add(square(sub(output, targets as Tensor)), reciprocal(targets as Tensor)), [1]);
    const example = { ...plain, source: { ...plain.source, loss } };
    const batch = batchOf(example, 1);
    const targets = batch.inputs["targets"] as TensorData;
    const data = Float64Array.from(targets.data as Float64Array).fill(0, 0, 1);
    const infinite = { ...batch, inputs: { ...batch.inputs, targets: { ...targets, data } } };
    for (const devices of [1, 2, 5]) {
      const training = await start(example, layoutOf({ groups: example.groups, devices, microBatches: 2 }));
      await training.trainer.step(batchOf(example, 0));
      const before = await tensorsOf(training);
      await expect(training.trainer.step(infinite)).rejects.toThrow(
        /^step 2: the loss is Infinity and the gradient's norm \d[\d.]*; the first tensor that is not finite is the result of reciprocal f64\[4,2\] in group "e" \(forward\); the parameters are those before this step$/,
      );
      expect(await tensorsOf(training)).toEqual(before);
      expect((await training.trainer.step(batch)).loss).toBeLessThan(Number.POSITIVE_INFINITY);
    }
  });

  test("of a tied model ends on the device that only holds a copy too", async () => {
    const example = exampleOf("tied");
    const { trainer, cluster } = await start(example, layoutOf({ groups: example.groups, devices: 4 }));
    const data = new Float64Array(36).fill(Number.POSITIVE_INFINITY);
    await cluster.write(new Map([["layer0.weight", data]]));
    await expect(trainer.step(batchOf(example, 0))).rejects.toThrow('the input "layer0.weight" f64[12,3]');
    await cluster.write(new Map([["layer0.weight", data.fill(0.1)]]));
    expect((await trainer.step(batchOf(example, 0))).loss).toBeGreaterThan(0);
  });

  test("is traced to the operation that made the first such value", async () => {
    const example = exampleOf("skip-mlp");
    const { trainer, cluster } = await start(example, layoutOf({ groups: example.groups, devices: 2 }));
    await cluster.write(new Map([["e.weight", new Float64Array(20).fill(1e308)]]));
    await expect(trainer.step(batchOf(example, 0))).rejects.toThrow(
      /^step 1: .* is the result of square f64\[4,2\] in group "e" \(forward\); the parameters are those before this step$/,
    );
  });
});
