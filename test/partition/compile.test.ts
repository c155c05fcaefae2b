/** From a model and a layout to programs: their text, what is joined, and what is refused. */

import { describe, expect, test } from "vitest";
import type { Layout } from "../../src/layout/layout.ts";
import { compileTraining, evenParts } from "../../src/partition/compile.ts";
import { printTable } from "../../src/program/table.ts";
import { printPrograms } from "../../src/program/text.ts";
import { layoutOf } from "./layouts.ts";
import { exampleOf } from "./models.ts";

test("a tied language model on two devices, W joined over two chunks, is written like this", async () => {
  const { source, groups } = exampleOf("tied", { dtype: "f32" });
  const layout = layoutOf({ groups, devices: 2, chunks: 2, schedule: "wavefront", weights: "deferred" });
  const programs = compileTraining(source, layout, { batch: 2, time: 4 }).programs;
  const withoutKernels = programs.map((program) => ({ ...program, kernels: [] }));
  await expect(`${printTable(programs)}\n\n${printPrograms(withoutKernels)}`).toMatchFileSnapshot(
    "golden/tied-wavefront.txt",
  );
});

test("items of equal shape share kernels, and a joined W is one run for each group", () => {
  const { source, groups } = exampleOf("lstm");
  const count = (microBatches: number, weights: Layout["weights"]) => {
    const layout = layoutOf({ groups, devices: 2, microBatches, chunks: 2, schedule: "wavefront", weights });
    const { programs } = compileTraining(source, layout, { batch: 4, time: 4 });
    const runs = programs.flatMap(({ instructions }) =>
      instructions.filter((one) => one.kind === "run" && one.phase === "W"),
    );
    return { kernels: programs.reduce((sum, { kernels }) => sum + kernels.length, 0), runs: runs.length };
  };
  expect(count(2, "deferred")).toEqual(count(1, "deferred"));
  expect(count(2, "deferred").runs).toBe(groups.length);
  expect(count(2, "per-micro-batch").runs).toBe(2 * groups.length);
  expect(count(2, "per-item").runs).toBe(4 * groups.length);
  expect(count(2, "fused").runs).toBe(0);
  expect(count(4, "per-item").kernels).toBe(count(2, "per-item").kernels);
});

test("sizes are cut into parts that differ by at most one and are never empty", () => {
  expect(evenParts(5, 3)).toEqual([
    [0, 2],
    [2, 4],
    [4, 5],
  ]);
  expect(evenParts(4, 4).map(([from, to]) => to - from)).toEqual([1, 1, 1, 1]);
  expect(evenParts(2, 9)).toHaveLength(2);
});

describe("a layout is refused", () => {
  const { source, groups } = exampleOf("lstm");
  const layout = layoutOf({ groups, devices: 2 });
  const compile = (changed: Partial<Layout>) => () =>
    compileTraining(source, { ...layout, ...changed }, { batch: 2, time: 2 });

  test("where values would go back to an earlier stage, before any program is written", () => {
    expect(
      compile({
        stages: layout.stages.map(({ groups: held }, i) => ({ devices: [`cpu:${1 - i}`], groups: held })),
      }),
    ).not.toThrow();
    expect(compile({ stages: layout.stages.toReversed() })).toThrow(
      /the layout cannot place the model: .*group "layer1" gives .* to group "layer2" in the earlier stage 0/,
    );
  });

  test("where groups are missing, unknown or placed twice", () => {
    const [first, second] = layout.stages as readonly [Layout["stages"][number], Layout["stages"][number]];
    expect(compile({ stages: [{ ...first, groups: ["embed", "layer9"] }, second] })).toThrow(
      /"layer9"[\s\S]*"layer0"/,
    );
    expect(compile({ stages: [first, { ...second, groups: [...second.groups, "embed"] }] })).toThrow(
      /"embed"/,
    );
    expect(compile({ stages: [first, { ...second, devices: ["cpu:7"] }] })).toThrow(/unknown device "cpu:7"/);
  });

  test("where the schedule does not take its items", () => {
    expect(compile({ schedule: "naive", chunks: 2 })).toThrow("cannot build the schedule naive");
  });

  test("where the model needs all of a dim that is cut", () => {
    const transformer = exampleOf("transformer");
    const chunked = layoutOf({ groups: transformer.groups, devices: 2, chunks: 3 });
    expect(() => compileTraining(transformer.source, chunked, { batch: 2, time: 3 })).toThrow(
      /needs the whole time dim; this model cannot be cut into chunks of time/,
    );
  });
});
