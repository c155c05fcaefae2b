/** Groups of devices keep their numbers in all programs of a run. */

import { expect, test } from "vitest";
import type { Layout } from "../../src/layout/layout.ts";
import { compileEvaluation, compileTraining } from "../../src/partition/compile.ts";
import { groupNumbers } from "../../src/partition/group-numbers.ts";
import { channelPlan } from "../../src/program/channels.ts";
import { groupRanks } from "../../src/program/collectives.ts";
import { layoutOf, replicated } from "./layouts.ts";
import { exampleOf } from "./models.ts";

test("every list of devices along any axes has a number of its own, in dictionary order", () => {
  const layout: Layout = {
    ...layoutOf({ groups: ["a", "b"], devices: 2 }),
    devices: Array.from({ length: 8 }, (_, i) => ({ name: `cpu:${i}`, threads: 1 })),
    stages: [
      { devices: ["cpu:0", "cpu:1", "cpu:2", "cpu:3"], mesh: { height: 2, tensor: 2 }, groups: ["a"] },
      { devices: ["cpu:4", "cpu:5", "cpu:6", "cpu:7"], mesh: { tensor: 4 }, groups: ["b"] },
    ],
  };
  const numberOf = groupNumbers(layout);
  const several = [
    [0, 1],
    [0, 1, 2, 3],
    [0, 2],
    [1, 3],
    [2, 3],
    [4, 5, 6, 7],
  ].map(numberOf);
  expect(new Set(several).size).toBe(6);
  expect(several).toEqual(several.toSorted((a, b) => a - b));
  expect(() => numberOf([1, 0])).toThrow("internal: devices 1, 0");
});

test("training and evaluation of replicas of two stages call the same devices by the same number", () => {
  const { groups, source, shapes } = exampleOf("skip-mlp");
  const layout = replicated(layoutOf({ groups, devices: 2 }), 2);
  const [shape = { batch: 4 }] = shapes;
  const training = compileTraining(source, layout, shape).programs;
  const evaluation = compileEvaluation(source, layout, shape).programs;
  const trained = groupRanks(training);
  expect([...trained.values()].toSorted()).toEqual([
    [0, 2],
    [1, 3],
  ]);
  for (const [number, ranks] of groupRanks(evaluation)) expect(trained.get(number)).toEqual(ranks);
  expect(channelPlan([evaluation, training]).groups).toHaveLength(2);
});
