/** Every layout computes what one device computes (float64, reference engine, messages in memory). */

import { expect, test } from "vitest";
import { type Layout, oneDevice } from "../../src/layout/layout.ts";
import { isLegal, layoutGrid, layoutOf, nameLayout } from "./layouts.ts";
import { type Example, type ExampleName, exampleNames, exampleOf } from "./models.ts";
import { expectSame, type Outcome, outcomeOf } from "./train.ts";

const tolerance = 1e-9;

/** Results of one device, by the number of micro-batches where that matters. */
function oracleOf(example: Example): (layout: Layout) => Promise<Outcome> {
  const known = new Map<number, Promise<Outcome>>();
  return ({ microBatches }) => {
    const parts = example.name === "batch-norm" ? microBatches : 1;
    const layout: Layout = { ...oneDevice(example.groups), microBatches: parts };
    const outcome = known.get(parts) ?? outcomeOf(example, layout);
    known.set(parts, outcome);
    return outcome;
  };
}

test.each(exampleNames)("%s: every schedule gives the results of one device", async (name) => {
  const example = exampleOf(name);
  const oracle = oracleOf(example);
  const grid = layoutGrid(example);
  expect(grid.filter((layout) => !isLegal(layout)).map(nameLayout)).toEqual([]);
  expect(grid).toHaveLength(4 * 19);
  for (const layout of grid)
    expectSame(await outcomeOf(example, layout), await oracle(layout), tolerance, nameLayout(layout));
});

test("three micro-batches of five samples give the results of one", async () => {
  for (const name of ["lstm", "transformer", "two-towers"] satisfies ExampleName[]) {
    const example = exampleOf(name, { batch: 5 });
    const expected = await outcomeOf(example, oneDevice(example.groups));
    const { groups } = example;
    for (const weights of ["fused", "deferred"] as const) {
      const layout = layoutOf({ groups, devices: 2, microBatches: 3, schedule: "1f1b", weights });
      expectSame(await outcomeOf(example, layout), expected, tolerance, `${name} ${nameLayout(layout)}`);
    }
  }
});

test("more micro-batches than samples and more chunks than time steps are as many as there are", async () => {
  const example = exampleOf("lstm");
  const layout = layoutOf({ groups: example.groups, devices: 2, microBatches: 9, chunks: 7 });
  const expected = await outcomeOf(example, oneDevice(example.groups));
  expectSame(await outcomeOf(example, layout), expected, tolerance, nameLayout(layout));
});

test("branches on devices of their own, and stages that share a device out of turn, change nothing", async () => {
  const example = exampleOf("two-towers");
  const expected = await outcomeOf(example, oneDevice(example.groups));
  const [users, items, product] = [["user", "user-mlp"], ["item", "item-mlp"], ["model"]];
  for (const places of [
    [0, 1, 1],
    [1, 0, 2],
    [0, 1, 0],
  ]) {
    const groups = [users, items, product] as readonly (readonly string[])[];
    const layout: Layout = {
      ...layoutOf({ groups: example.groups, devices: Math.max(...places) + 1, microBatches: 2 }),
      stages: groups.map((held, stage) => ({ devices: [`cpu:${places[stage]}`], groups: held })),
      weights: "deferred",
    };
    expectSame(await outcomeOf(example, layout), expected, tolerance, `places ${places}`);
  }
});

test.each(["none", "full", ["layer1", "decode"]])("recomputing %j changes nothing", async (recompute) => {
  const example = exampleOf("lstm");
  const expected = await outcomeOf(example, oneDevice(example.groups));
  for (const weights of ["fused", "per-item", "deferred"] as const) {
    const choice = { groups: example.groups, devices: 2, microBatches: 2, chunks: 2, weights };
    const layout = layoutOf({
      ...choice,
      schedule: "wavefront",
      recompute: recompute as Layout["recompute"],
    });
    expectSame(await outcomeOf(example, layout), expected, tolerance, nameLayout(layout));
  }
});

test("two runs of the same layout agree in every bit", async () => {
  for (const name of exampleNames) {
    const example = exampleOf(name);
    const choice = { groups: example.groups, devices: 3, microBatches: 2, schedule: "1f1b" } as const;
    const layout = layoutOf({ ...choice, weights: "per-item" });
    expect(await outcomeOf(example, layout)).toEqual(await outcomeOf(exampleOf(name), layout));
  }
});
