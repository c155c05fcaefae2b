/** What each device holds, in counted bytes. */

import { expect, test } from "vitest";
import { Device } from "../../src/execute/device.ts";
import { nullEngine } from "../../src/execute/null-engine.ts";
import type { Transport } from "../../src/execute/transport.ts";
import { bytesOfType } from "../../src/graph/shape.ts";
import { linear, sequential, tanh } from "../../src/model/layers/basic.ts";
import { type CompiledStep, type CompileSource, compileTraining } from "../../src/partition/compile.ts";
import { planMemory } from "../../src/program/memory.ts";
import { type BufferKind, type Program, readsOf, writesOf } from "../../src/program/program.ts";
import { layoutOf } from "./layouts.ts";
import { exampleNames, exampleOf } from "./models.ts";
import { connect } from "./train.ts";

function namesOf({ buffers }: Program, kind: BufferKind): string[] {
  return buffers.flatMap((spec) => (spec.kind === kind ? [spec.name] : [])).sort();
}

function bytesOf(step: CompiledStep, names: readonly string[]): number {
  return step.parameters.reduce(
    (sum, { name, type }) => sum + (names.includes(name) ? bytesOfType(type) : 0),
    0,
  );
}

test.each(exampleNames.filter((name) => name !== "tied"))(
  "%s: each device holds the parameters, gradients and optimizer state of its groups, nothing else",
  (name) => {
    const { source, groups, shapes } = exampleOf(name);
    const layout = layoutOf({ groups, devices: 3, microBatches: 2, weights: "deferred" });
    const step = compileTraining(source, layout, shapes[0] as { batch: number });
    step.programs.forEach((program, device) => {
      const own = step.parameters.filter(({ group }) => layout.stages[device]?.groups.includes(group));
      const names = own.map((parameter) => parameter.name).sort();
      const states = source.optimizer.states.flatMap((state) =>
        names.map((parameter) => `${state}:${parameter}`),
      );
      expect(namesOf(program, "parameter")).toEqual(names);
      expect(namesOf(program, "gradient")).toEqual(names.map((parameter) => `grad:${parameter}`));
      expect(namesOf(program, "optimizer")).toEqual(states.sort());
      const { bytesByKind } = planMemory(program);
      const bytes = bytesOf(step, names);
      expect(bytesByKind.parameter).toBe(bytes);
      expect(bytesByKind.gradient).toBe(bytes);
      expect(bytesByKind.optimizer).toBe(bytes * source.optimizer.states.length);
    });
  },
);

test("a tied parameter is held by both devices that compute with it and optimised by one", () => {
  const { source, groups, shapes } = exampleOf("tied");
  const layout = layoutOf({ groups, devices: 4 });
  const step = compileTraining(
    { ...source, optimizer: exampleOf("gru").source.optimizer },
    layout,
    shapes[0] as { batch: number },
  );
  const holders = (kind: BufferKind, part: string) =>
    step.programs.flatMap((program, device) =>
      namesOf(program, kind).some((name) => name.includes(part)) ? [device] : [],
    );
  expect(holders("parameter", "embed.table")).toEqual([0, 3]);
  expect(holders("optimizer", "embed.table")).toEqual([0]);
  expect(holders("gradient", "grad:embed.table@decode")).toEqual([0, 3]);
  expect(holders("gradient", "grad:embed.table@embed")).toEqual([0]);
});

test("a device allocates what its programs plan, and programs share what lasts", async () => {
  const { source, groups, shapes } = exampleOf("lstm");
  const layout = layoutOf({ groups, devices: 2, microBatches: 2, chunks: 2, schedule: "wavefront" });
  const compiled = shapes.map((shape) => compileTraining(source, layout, shape).programs);
  const [long, short] = compiled.map(([, program]) => program as Program);
  const transports = connect(
    [0, 1].map((device) => new Map(compiled.map((programs, i) => [`${i}`, programs[device] as Program]))),
  );
  const options = { engine: nullEngine(), transport: transports[1] as Transport, deadline: 1, now: () => 0 };
  const device = new Device(options);
  await device.load(new Map([["long", long as Program]]));
  const plan = planMemory(long as Program);
  expect(device.bytes).toEqual({ lasting: plan.peakBytes - plan.arenaBytes, activations: plan.arenaBytes });
  const both = new Device(options);
  await both.load(
    new Map([
      ["long", long as Program],
      ["short", short as Program],
    ]),
  );
  expect(both.bytes.activations).toBe(device.bytes.activations);
  const { parameter, gradient, optimizer } = plan.bytesByKind;
  const other = planMemory(short as Program);
  expect(both.bytes.lasting).toBeLessThanOrEqual(
    device.bytes.lasting + other.peakBytes - other.arenaBytes - parameter - gradient - optimizer,
  );
});

/** Equal layers in a chain, one for each stage. */
function chain(stages: number): { readonly source: CompileSource; readonly groups: readonly string[] } {
  const groups = Array.from({ length: stages }, (_, i) => `g${i}`);
  const model = sequential(
    groups.map((group) =>
      sequential([
        linear({ units: 16, group }),
        tanh({ group }),
        linear({ units: 16, group }),
        tanh({ group }),
      ]),
    ),
  );
  const inputs = ["x", "targets"].map((name) => ({
    name,
    dtype: "f32" as const,
    dims: ["batch", { size: 16 }] as const,
  }));
  const { optimizer } = exampleOf("skip-mlp").source;
  return { source: { model, loss: "mean-squared-error", inputs, optimizer, dtype: "f32" }, groups };
}

/** The most micro-batches of which a device holds activations at once. */
function itemsAlive({ buffers, instructions }: Program): number {
  const last = new Map<number, number>();
  instructions.forEach((instruction, at) => {
    if (instruction.kind === "free") last.set(instruction.buffer, at);
  });
  const alive = new Set<number>();
  return instructions.reduce((most, instruction) => {
    for (const buffer of [...readsOf(instruction), ...writesOf(instruction)])
      if (last.has(buffer)) alive.add(buffer);
    if (instruction.kind === "free") alive.delete(instruction.buffer);
    const items = new Set(
      [...alive].flatMap((buffer) => /\[(\d+)\.0\]$/.exec(buffers[buffer]?.name ?? "")?.[1] ?? []),
    );
    return Math.max(most, items.size);
  }, 0);
}

test.each([2, 3, 4])("on %d stages 1F1B holds the activations of at most stages - stage items", (stages) => {
  const { source, groups } = chain(stages);
  const [items, size] = [8, 4];
  const compile = (microBatches: number, schedule: "1f1b" | "gpipe") =>
    compileTraining(source, layoutOf({ groups, devices: stages, microBatches, schedule }), {
      batch: size * microBatches,
    }).programs;
  const alone = compile(1, "1f1b").map(planMemory);
  const streamed = compile(items, "1f1b");
  const [few, all] = [streamed.map(planMemory), compile(items, "gpipe").map(planMemory)];
  for (let stage = 0; stage < stages; stage++) {
    expect(itemsAlive(streamed[stage] as Program)).toBe(stages - stage);
    const one = alone[stage]?.lowerBound ?? 0;
    expect(few[stage]?.lowerBound).toBeLessThanOrEqual((stages - stage) * one);
    expect(few[stage]?.lowerBound).toBeLessThan(all[stage]?.lowerBound ?? 0);
  }
  const longer = compile(2 * items, "1f1b").map(planMemory);
  expect(longer.map(({ lowerBound }) => lowerBound)).toEqual(few.map(({ lowerBound }) => lowerBound));
});

test("recomputing groups lowers the activations of the devices that hold them", () => {
  const { source, groups, shapes } = exampleOf("lstm", { batch: 8 });
  const peaks = (recompute: "none" | "full" | readonly string[]) => {
    const layout = layoutOf({ groups, devices: 2, microBatches: 4, schedule: "gpipe", recompute });
    return compileTraining(source, layout, shapes[0] as { batch: number }).programs.map(
      (program) => planMemory(program).lowerBound,
    );
  };
  const [none, full, second] = [peaks("none"), peaks("full"), peaks(["layer2"])];
  full.forEach((bytes, device) => {
    expect(bytes).toBeLessThan(none[device] as number);
  });
  expect(second[0]).toBe(none[0]);
  expect(second[1]).toBeLessThan(none[1] as number);
});
