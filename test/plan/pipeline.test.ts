import fc from "fast-check";
import { expect, test } from "vitest";
import { typicalRates } from "../../src/cost/node-work.ts";
import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import { concat } from "../../src/graph/functions.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import type { Layout, LayoutStage } from "../../src/layout/layout.ts";
import { parseLayout, printLayout } from "../../src/layout/parse.ts";
import { parseDevices } from "../../src/layout/place.ts";
import type { Layer } from "../../src/model/layer.ts";
import { embedding, layerNorm, linear, sequential } from "../../src/model/layers/basic.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { adam, sgd } from "../../src/model/optimizer.ts";
import { type CompileSource, compileTraining } from "../../src/partition/compile.ts";
import type { PlanDevice } from "../../src/plan/balance.ts";
import { checkLayout, layoutModel } from "../../src/plan/check-layout.ts";
import { choosePipeline, type PipelineChoice, type PipelineRequest } from "../../src/plan/pipeline.ts";
import { totalBytes } from "../../src/plan/predict-memory.ts";
import { predictStep } from "../../src/plan/predict-step.ts";
import { planMemory } from "../../src/program/memory.ts";
import { languageModel, mainModel, textInputs } from "../cost/models.ts";

const optimizer = sgd({ rate: 0.1, clipNorm: 5 });
const main: CompileSource = { ...mainModel, dtype: "f32", optimizer };
const mainGroups = ["embed", ...Array.from({ length: 8 }, (_, i) => `layer${i}`), "decode"];
const sentences: BatchShape = { batch: 20, time: 32 };

/** `count` groups on the first device, the rest on the second. */
function cutAfter(count: number): readonly LayoutStage[] {
  return [
    { devices: ["cpu:0"], groups: mainGroups.slice(0, count) },
    { devices: ["cpu:1"], groups: mainGroups.slice(count) },
  ];
}

function bytesOf({ memory }: Pick<PipelineChoice, "memory">, device: number): number {
  const held = memory[device];
  return held === undefined ? 0 : totalBytes(held);
}

function speedUp(request: Partial<PipelineRequest>): number {
  const devices = parseDevices("cpu:2");
  const choice = choosePipeline({ source: main, shapes: [sentences], devices, ...request });
  return choice.oneDeviceSeconds / choice.seconds;
}

test("the main model goes to both devices in turn and streams in chunks, which beats layers 0-3 | 4-7 with the decoder", () => {
  const devices = parseDevices("cpu:2");
  const { layout, reasons, ...choice } = choosePipeline({ source: main, shapes: [sentences], devices });
  expect(layout.stages.length).toBeGreaterThan(2);
  expect(layout.stages.map(({ devices: [device] }) => device)).toEqual(
    layout.stages.map((_, i) => `cpu:${i % 2}`),
  );
  expect(layout.stages.flatMap(({ groups }) => groups)).toEqual(mainGroups);
  const automatic = choice.oneDeviceSeconds / choice.seconds;
  const byHand = speedUp({ stages: cutAfter(5) });
  const naive = speedUp({ stages: cutAfter(5), fixed: { schedule: "naive", weights: "fused" } });
  expect(automatic).toBeGreaterThan(byHand + 0.2);
  expect(automatic).toBeGreaterThan(1.5);
  expect(automatic).toBeLessThan(2);
  expect(naive).toBeGreaterThan(0.9);
  expect(naive).toBeLessThan(1.05);
  expect(reasons.join("\n")).toMatch(
    /cpu:0 holds embed.*and then layer.*streams as \d items \(\d chunks of time\).*in turn.*Predicted: 1\.\d\d times as fast/s,
  );
});

test("of placements near the best it takes the one with the most stages: single layers in turn, for one and for several mini-batches", () => {
  for (const [batch, microBatches] of [
    [20, 1],
    [80, 4],
  ] as const) {
    const request = {
      source: main,
      shapes: [{ batch, time: 32 }],
      devices: parseDevices("cpu:2"),
      microBatches,
    };
    const { layout } = choosePipeline(request);
    expect(layout.stages.map(({ groups }) => groups)).toEqual([
      ["embed", "layer0"],
      ...mainGroups.slice(2).map((group) => [group]),
    ]);
  }
});

test("a layer that does two chunks in a row is predicted to find its weights in the cache, a pair of layers is not", () => {
  const gainOf = (size: number): number => {
    const inner = Array.from({ length: 8 / size }, (_, i) =>
      mainGroups.slice(1 + i * size, 1 + (i + 1) * size),
    );
    const stages = [["embed"], ...inner, ["decode"]].map((groups, i) => ({
      devices: [`cpu:${i % 2}`],
      groups,
    }));
    const fixed = { chunks: 2, schedule: "wavefront", weights: "per-item" } as const;
    const request = { source: main, shapes: [sentences], devices: parseDevices("cpu:2"), stages, fixed };
    const cold = choosePipeline({ ...request, rates: { ...typicalRates, cacheBytes: 0 } }).seconds;
    return cold - choosePipeline(request).seconds;
  };
  const { packedPerSecond, repackedPerSecond } = typicalRates;
  const perByte = 1 / packedPerSecond - 1 / repackedPerSecond;
  const inputs = [200, 400, 400, 400, 400, 400, 400, 400];
  const weights = inputs.reduce((sum, width) => sum + 4 * 4 * 400 * (width + 400), 0);
  // In F and in B at most, and less where it is not what others wait for.
  expect(gainOf(1)).toBeGreaterThan(0);
  expect(gainOf(1)).toBeLessThan(2 * weights * perByte);
  expect(gainOf(2)).toBe(0);
});

test("several sentence batches for each update fill the pipeline better", () => {
  const idleWith = (batch: number, microBatches: number): number => {
    const request = { stages: cutAfter(7), shapes: [{ batch, time: 32 }], microBatches };
    const { idle } = choosePipeline({ source: main, devices: parseDevices("cpu:2"), ...request }).prediction;
    return idle.reduce((sum, share) => sum + share, 0);
  };
  expect(idleWith(80, 4)).toBeLessThan(0.2);
  expect(idleWith(20, 1)).toBeGreaterThan(2 * idleWith(80, 4));
});

test("measured seconds decide instead of estimates", () => {
  const costs = new Map(mainGroups.map((group) => [group, { F: 1, B: 1, W: 1 }]));
  const { layout, oneDeviceSeconds } = choosePipeline({
    source: main,
    shapes: [sentences],
    devices: parseDevices("cpu:2"),
    measured: { shape: sentences, costs },
  });
  const held = (name: string): number =>
    layout.stages.reduce(
      (sum, { devices, groups }) => sum + (devices.includes(name) ? groups.length / devices.length : 0),
      0,
    );
  expect(Math.abs(held("cpu:0") - held("cpu:1"))).toBeLessThanOrEqual(1);
  expect(oneDeviceSeconds).toBeGreaterThan(29);
  expect(oneDeviceSeconds).toBeLessThan(31);
});

test("a device with less memory gets less, and what cannot fit says how much is lacking", () => {
  const mebi = 2 ** 20;
  const devices = (first: number, second: number) =>
    parseDevices("cpu:2").map((device, i) => ({ ...device, memory: (i === 0 ? first : second) * mebi }));
  const roomy = choosePipeline({ source: main, shapes: [sentences], devices: devices(400, 400) });
  const tight = choosePipeline({ source: main, shapes: [sentences], devices: devices(400, 110) });
  const held = ({ layout }: { readonly layout: Layout }, name: string) =>
    layout.stages.reduce(
      (sum, { devices: [device], groups }) => sum + (device === name ? groups.length : 0),
      0,
    );
  const sizeOf = (choice: ReturnType<typeof choosePipeline>, name: string): number =>
    bytesOf(
      choice,
      choice.layout.devices.findIndex((device) => device.name === name),
    );
  expect(held(roomy, "cpu:0") + held(roomy, "cpu:1")).toBe(10);
  expect(sizeOf(tight, "cpu:1")).toBeLessThanOrEqual(110 * mebi);
  expect(sizeOf(tight, "cpu:0")).toBeGreaterThan(sizeOf(tight, "cpu:1"));
  expect(() => choosePipeline({ source: main, shapes: [sentences], devices: devices(60, 60) })).toThrow(
    /does not fit on 2 devices: the best placement found needs \d+\.\d MiB on cpu:[01], which has 60\.0 MiB; \d+\.\d MiB are lacking/,
  );
});

test("two towers go to two devices, and work at the same time", () => {
  const { layout, oneDeviceSeconds, seconds, reasons } = choosePipeline({
    source: towers(2),
    shapes: [{ batch: 512 }],
    devices: parseDevices("cpu:2"),
    microBatches: 2,
  });
  expect(layout.stages.length).toBeGreaterThan(2);
  expect(reasons.join("\n")).not.toContain("in turn");
  const deviceOf = (group: string) => layout.stages.find(({ groups }) => groups.includes(group))?.devices[0];
  expect(deviceOf("user1")).toBe(deviceOf("user0"));
  expect(deviceOf("item1")).toBe(deviceOf("item0"));
  expect(deviceOf("user0")).not.toBe(deviceOf("item0"));
  expect(oneDeviceSeconds / seconds).toBeGreaterThan(1.5);
});

test("what the planner is told to take it takes, or says why it cannot", () => {
  const devices = parseDevices("cpu:2");
  const fixed = { schedule: "gpipe", weights: "deferred", chunks: 2 } as const;
  const { layout } = choosePipeline({
    source: main,
    shapes: [sentences],
    devices,
    fixed,
    stages: cutAfter(4),
  });
  expect(layout).toMatchObject({ ...fixed, stages: cutAfter(4) });
  const [head, tail] = cutAfter(9) as [LayoutStage, LayoutStage];
  const shared = [head, { ...tail, devices: ["cpu:0", "cpu:1"], mesh: { tensor: 2 } }];
  const ways = { schedule: "wavefront", weights: "per-item" } as const;
  const byHand = choosePipeline({ source: main, shapes: [sentences], devices, stages: shared, fixed: ways });
  expect(byHand.layout.stages).toEqual(shared);
  expect(() =>
    choosePipeline({ source: main, shapes: [sentences], devices, fixed: { ...fixed, chunks: 33 } }),
  ).toThrow(/no layout was found: chunks: 33 chunks/);
  expect(() =>
    choosePipeline({ source: main, shapes: [sentences], devices, stages: cutAfter(9).slice(0, 1) }),
  ).toThrow(/group "decode" of the model is in no stage/);
});

test("stages that are split by hand are planned with the work of a rank", () => {
  const choose = (stages: readonly LayoutStage[]) =>
    choosePipeline({ source: main, shapes: [sentences], devices: parseDevices("cpu:4"), stages });
  const whole = choose(cutAfter(5));
  const split = choose(
    cutAfter(5).map(({ groups }, i) => ({
      devices: [`cpu:${i}`, `cpu:${i + 2}`],
      mesh: { tensor: 2 },
      groups,
    })),
  );
  expect(split.seconds).toBeLessThan(0.7 * whole.seconds);
  expect(split.seconds).toBeGreaterThan(0.5 * whole.seconds);
  const { programs } = compileTraining(main, split.layout, sentences);
  const inPrograms = predictStep(programs, { speeds: [1, 1, 1, 1] });
  expect(Math.abs(inPrograms.seconds / split.seconds - 1)).toBeLessThan(0.1);
  const [first, , second] = split.prediction.idle;
  expect(split.layout.devices.map(({ name }) => name)).toEqual(["cpu:0", "cpu:2", "cpu:1", "cpu:3"]);
  expect(split.prediction.idle).toEqual([first, first, second, second]);
});

test("a large output layer is split over all devices, in shares that make up for what else they do and how fast they are", () => {
  const request = { source: main, shapes: [sentences], devices: parseDevices("cpu:2") };
  const { layout, reasons, seconds } = choosePipeline(request);
  expect(layout.stages.at(-1)).toEqual({
    devices: ["cpu:0", "cpu:1"],
    mesh: { tensor: 2 },
    shares: [17, 15],
    groups: ["decode"],
  });
  expect(reasons).toContain(
    "cpu:0 and cpu:1 split decode between them (17 : 15), so that nobody waits for the device that has it when forward turns into backward.",
  );
  const alone = choosePipeline({ ...request, fixed: { schedule: "interleaved-1f1b" } });
  expect(alone.layout.stages.every(({ mesh }) => mesh === undefined)).toBe(true);
  expect(seconds).toBeLessThan(0.95 * alone.seconds);
  const [one, two] = parseDevices("cpu:2") as readonly [PlanDevice, PlanDevice];
  const unequal = choosePipeline({ ...request, devices: [one, { ...two, speed: 2 }] });
  const [slow = 0, fast = 0] = unequal.layout.stages.at(-1)?.shares ?? [];
  expect(fast / slow).toBeGreaterThan(1.5);
  expect(fast / slow).toBeLessThan(3);
  const inner: CompileSource = {
    ...main,
    model: sequential([
      embedding({ vocabulary: 50, dim: 64, group: "embed" }),
      ...[0, 1, 2].map((i) => lstm({ units: 64, group: `layer${i}` })),
      layerNorm({ group: "last" }),
    ]),
    loss: "mean-squared-error",
    inputs: [
      textInputs[0] as InputSpec,
      { name: "targets", dtype: "f32", dims: ["time", "batch", { size: 64 }] },
    ],
  };
  expect(
    choosePipeline({ ...request, source: inner }).layout.stages.every(({ mesh }) => mesh === undefined),
  ).toBe(true);
});

test("unequal devices get work by their speed, and the reasons say so", () => {
  const { layout, reasons } = choosePipeline({
    source: main,
    shapes: [sentences],
    devices: [
      { name: "cpu:0", threads: 1 },
      { name: "cpu:1", threads: 1, speed: 3 },
    ],
  });
  const small = layout.stages.find(({ devices: [device] }) => device === "cpu:0")?.groups;
  expect(small?.length).toBeLessThan(5);
  expect(reasons.join("\n")).toMatch(/cpu:1 at speed 3 holds/);
});

/** Two towers of `layers` layers, written in turns, and a score. */
function towers(layers: number): CompileSource {
  const tower = (name: string): readonly Layer[] =>
    Array.from({ length: layers }, (_, i) => linear({ units: 1024, group: `${name}${i}` }));
  const [user, item] = [tower("user"), tower("item")];
  const score = linear({ units: 1, group: "score" });
  return {
    model: (inputs: { readonly [name: string]: Tensor }) => {
      let [a, b] = [inputs["user"] as Tensor, inputs["item"] as Tensor];
      for (let i = 0; i < layers; i++) {
        a = (user[i] as Layer)(a);
        b = (item[i] as Layer)(b);
      }
      return score(concat([a, b], 1));
    },
    loss: "mean-squared-error",
    inputs: [
      { name: "user", dtype: "f32", dims: ["batch", { size: 256 }] },
      { name: "item", dtype: "f32", dims: ["batch", { size: 256 }] },
      { name: "targets", dtype: "f32", dims: ["batch", { size: 1 }] },
    ],
    dtype: "f32",
    optimizer,
  };
}

test("no placement on devices in turn is predicted to be much faster than the one that is chosen", () => {
  const source: CompileSource = {
    ...main,
    ...languageModel({ vocabulary: 4000, dim: 200, units: 256, layers: 5 }),
  };
  const groups = ["embed", ...Array.from({ length: 5 }, (_, i) => `layer${i}`), "decode"];
  const request = { source, shapes: [{ batch: 16, time: 28 }], devices: parseDevices("cpu:2") };
  const chosen = choosePipeline(request).seconds;
  const placements = Array.from({ length: 2 ** (groups.length - 1) }, (_, cuts) => {
    const stages: { devices: string[]; groups: string[] }[] = [];
    groups.forEach((group, i) => {
      if (i === 0 || (cuts >> (i - 1)) & 1)
        stages.push({ devices: [`cpu:${stages.length % 2}`], groups: [] });
      stages.at(-1)?.groups.push(group);
    });
    return stages;
  });
  const fastest = Math.min(...placements.map((stages) => choosePipeline({ ...request, stages }).seconds));
  expect(chosen).toBeLessThan(fastest * 1.05);
});

/** A small language model: some recurrent layers, perhaps tied, perhaps with linear layers between. */
const sources: fc.Arbitrary<CompileSource> = fc
  .record({
    kinds: fc.array(fc.constantFrom("lstm", "gru", "linear"), { maxLength: 5 }),
    tied: fc.boolean(),
    adaptive: fc.boolean(),
  })
  .map(({ kinds, tied, adaptive }) => {
    const width = 6;
    const embed = embedding({ vocabulary: 11, dim: width, group: "embed" });
    const layers = kinds.map((kind, i) => {
      const options = { units: width, group: `layer${i}` };
      return kind === "lstm"
        ? lstm({ ...options, dropout: 0.5 })
        : kind === "gru"
          ? gru(options)
          : linear(options);
    });
    const decode = tied ? embed.decode : linear({ units: 11, group: "decode" });
    return {
      model: sequential([embed, ...layers, decode]),
      loss: "cross-entropy" as const,
      inputs: textInputs,
      dtype: "f32" as const,
      optimizer: adaptive ? adam({ rate: 0.01 }) : optimizer,
    };
  });

const requests: fc.Arbitrary<PipelineRequest> = fc
  .record({
    source: fc.oneof(sources, fc.integer({ min: 1, max: 2 }).map(towers)),
    devices: fc.array(fc.record({ threads: fc.integer({ min: 1, max: 3 }) }), { minLength: 1, maxLength: 4 }),
    batch: fc.integer({ min: 3, max: 6 }),
    times: fc.array(fc.integer({ min: 1, max: 17 }), { minLength: 1, maxLength: 2 }),
    microBatches: fc.integer({ min: 1, max: 3 }),
    recompute: fc.constantFrom("none", "full"),
  })
  .map(({ source, devices, batch, times, microBatches, recompute }) => ({
    source,
    devices: devices.map((device, i) => ({ ...device, name: `cpu:${i}` })),
    shapes: source.inputs === textInputs ? times.map((time) => ({ batch, time })) : [{ batch }],
    microBatches,
    recompute: recompute as "none" | "full",
  }));

test("every layout that the planner makes passes the checks, survives its text and compiles", () => {
  fc.assert(
    fc.property(requests, (request) => {
      const { layout, reasons } = choosePipeline(request);
      checkLayout(layout, layoutModel(request.source, request.shapes));
      expect(parseLayout(printLayout(layout))).toEqual(layout);
      expect(reasons.length).toBeGreaterThan(1);
      for (const shape of request.shapes) {
        const { programs } = compileTraining(request.source, layout, shape);
        expect(programs).toHaveLength(layout.devices.length);
      }
    }),
    { numRuns: 40 },
  );
});

test("parameters, gradients, optimizer state and data are predicted exactly, activations roughly", () => {
  fc.assert(
    fc.property(requests, (request) => {
      const { layout, memory } = choosePipeline(request);
      const shape = request.shapes.toSorted((a, b) => (b.time ?? 1) - (a.time ?? 1))[0] as BatchShape;
      const { programs } = compileTraining(request.source, layout, shape);
      const isEven = shape.batch % layout.microBatches === 0 && (shape.time ?? 1) % layout.chunks === 0;
      const isExact = isEven && layout.stages.length === layout.devices.length;
      programs.forEach((program, device) => {
        const { parameter, gradient, optimizer: states, data, activation } = planMemory(program).bytesByKind;
        const { lasting = 0, activations = 0 } = memory[device] ?? {};
        if (isExact) expect(lasting).toBe(parameter + gradient + states + data);
        expect(lasting).toBeGreaterThanOrEqual(parameter + gradient + states + data);
        const padding = 64 * program.buffers.filter(({ kind }) => kind === "activation").length;
        expect(activations).toBeGreaterThan(0.7 * activation - padding);
        expect(activations).toBeLessThan(5 * activation + 1024);
      });
    }),
    { numRuns: 40 },
  );
});

test("the predicted bytes of the main model are those of its compiled programs", () => {
  for (const microBatches of [1, 4]) {
    const shape = { batch: 20 * microBatches, time: 32 };
    const { layout, memory } = choosePipeline({
      source: main,
      shapes: [shape],
      devices: parseDevices("cpu:2"),
      microBatches,
    });
    const { programs } = compileTraining(main, layout, shape);
    programs.forEach((program, device) => {
      const { peakBytes } = planMemory(program);
      expect(bytesOf({ memory }, device) / peakBytes).toBeGreaterThan(0.8);
      expect(bytesOf({ memory }, device) / peakBytes).toBeLessThan(1.25);
    });
  }
});

test("a language model of few units is predicted to be faster on one device, and the reasons say so", () => {
  const { reasons } = choosePipeline({
    source: { ...languageModel({ vocabulary: 10, dim: 4, units: 4, layers: 1 }), dtype: "f32", optimizer },
    shapes: [{ batch: 2, time: 4 }],
    devices: parseDevices("cpu:2"),
  });
  expect(reasons.at(-1)).toMatch(/One device alone is predicted to be faster/);
});
