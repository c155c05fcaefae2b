/** The data axis: replicas of a pipeline, each with its share of the samples, compute what one device computes. */

import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";
import { compileTraining } from "../../src/partition/compile.ts";
import { parsePrograms } from "../../src/program/parse.ts";
import type { Instruction, Program } from "../../src/program/program.ts";
import { printPrograms } from "../../src/program/text.ts";
import { verifyPrograms } from "../../src/program/verify.ts";
import { type LayoutChoice, layoutOf, nameLayout, replicated } from "./layouts.ts";
import { type Example, exampleNames, exampleOf } from "./models.ts";
import { expectSame, outcomeOf } from "./train.ts";

const tolerance = 1e-9;

const choices: readonly (Omit<LayoutChoice, "groups"> & { readonly replicas: number })[] = [
  { replicas: 2, devices: 1 },
  { replicas: 3, devices: 1, schedule: "1f1b", weights: "per-item" },
  { replicas: 2, devices: 2, microBatches: 2, schedule: "1f1b", weights: "deferred" },
  { replicas: 2, devices: 2, microBatches: 2, schedule: "zero-bubble-h1", weights: "per-item" },
  { replicas: 4, devices: 2, schedule: "naive" },
  { replicas: 2, devices: 1, stages: 2, microBatches: 2, weights: "per-micro-batch" },
];

const withoutStatistics = exampleNames.filter((name) => name !== "batch-norm");

test.each(withoutStatistics)("%s: replicas give the results of one device", async (name) => {
  const example = exampleOf(name, { batch: 5 });
  const expected = await outcomeOf(example, oneDevice(example.groups));
  for (const { replicas, ...choice } of choices) {
    const layout = replicated(layoutOf({ groups: example.groups, ...choice }), replicas);
    const fitting = { ...layout, microBatches: Math.min(layout.microBatches, Math.floor(5 / replicas)) };
    expectSame(
      await outcomeOf(example, fitting),
      expected,
      tolerance,
      `${replicas} x ${nameLayout(fitting)}`,
    );
  }
});

test("replicas of a wavefront over chunks of time give the results of one device", async () => {
  for (const name of ["lstm", "gru"] as const) {
    const example = exampleOf(name, { batch: 5 });
    const expected = await outcomeOf(example, oneDevice(example.groups));
    const choice = { groups: example.groups, devices: 2, chunks: 2, schedule: "wavefront" } as const;
    const layout = replicated(layoutOf({ ...choice, microBatches: 2, weights: "deferred" }), 2);
    expectSame(await outcomeOf(example, layout), expected, tolerance, nameLayout(layout));
  }
});

test("two runs with the same replicas agree in every bit", async () => {
  const layout = replicated(layoutOf({ groups: exampleOf("lstm").groups, devices: 2 }), 2);
  expect(await outcomeOf(exampleOf("lstm"), layout)).toEqual(await outcomeOf(exampleOf("lstm"), layout));
});

test("running statistics are refused by name, because replicas see different samples", () => {
  const example = exampleOf("batch-norm");
  const layout = replicated(layoutOf({ groups: example.groups, devices: 1 }), 2);
  expect(() => programsOf(example, layout)).toThrow(UserError);
  expect(() => programsOf(example, layout)).toThrow(/group ".+" keeps the statistic ".+" of its samples/);
});

test("every device adds up each of its gradients once, with the device that holds the same stage", () => {
  const example = exampleOf("tied");
  const programs = programsOf(example, replicated(layoutOf({ groups: example.groups, devices: 2 }), 2));
  for (const [device, { instructions, buffers }] of programs.entries()) {
    const summed = instructions.flatMap((instruction) =>
      instruction.kind === "all-reduce" ? [instruction] : [],
    );
    const computed = instructions.flatMap((instruction) =>
      instruction.kind === "run" && instruction.phase !== "U" ? instruction.outputs : [],
    );
    const gradients = new Set(
      computed.filter((id) => ["gradient", "result"].includes(buffers[id]?.kind ?? "")),
    );
    expect(new Set(summed.map(({ buffer }) => buffer))).toEqual(gradients);
    expect(summed).toHaveLength(gradients.size);
    for (const { ranks } of summed) expect(ranks).toEqual(device % 2 === 0 ? [0, 2] : [1, 3]);
  }
});

test("programs with replicas are read back from their text", () => {
  const example = exampleOf("lstm");
  const programs = programsOf(example, replicated(layoutOf({ groups: example.groups, devices: 1 }), 2));
  expect(parsePrograms(printPrograms(programs))).toEqual(programs);
});

test("a sum that a replica leaves out, does in another order or over other devices is refused", () => {
  const example = exampleOf("lstm");
  const programs = programsOf(example, replicated(layoutOf({ groups: example.groups, devices: 1 }), 2));
  const faultsOf = (change: (instructions: readonly Instruction[]) => readonly Instruction[]) => {
    const [first, second] = programs as readonly [Program, Program];
    const changed = { ...second, instructions: change(second.instructions) };
    return verifyPrograms([first, changed]).map(({ message }) => message);
  };
  const isSum = ({ kind }: Instruction) => kind === "all-reduce";
  expect(faultsOf((list) => list)).toEqual([]);
  const last = (list: readonly Instruction[]) => list.findLastIndex(isSum);
  expect(faultsOf((list) => list.toSpliced(last(list), 1))).toEqual(
    expect.arrayContaining([expect.stringMatching(/^device 1.*never adds up "loss".*device 0 waits/)]),
  );
  expect(
    faultsOf((list) => {
      const at = last(list);
      return list.toSpliced(at - 1, 2, list[at] as Instruction, list[at - 1] as Instruction);
    }),
  ).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/adds up "loss".*while device 0 of its group adds up "grad:/),
    ]),
  );
  expect(
    faultsOf((list) => list.map((one) => (one.kind === "all-reduce" ? { ...one, ranks: [0, 7] } : one))),
  ).toEqual(expect.arrayContaining([expect.stringMatching(/names device 7, but the devices are 0 to 1/)]));
  expect(faultsOf((list) => list.filter((one) => !isSum(one)))).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/updates "decode.bias", which device 0 updates too: it must have one owner/),
    ]),
  );
});

function programsOf(example: Example, layout: Layout): readonly Program[] {
  const [shape] = example.shapes;
  return compileTraining(example.source, layout, shape as (typeof example.shapes)[number]).programs;
}
