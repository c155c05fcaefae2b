/** Where exchanges stand: never in W, which every device of a mesh does when it has time. */

import { expect, test } from "vitest";
import { slicedFor } from "../../src/cost/memory.ts";
import { isExchange } from "../../src/shard/exchanges.ts";
import { splitOptions } from "../../src/shard/split-source.ts";
import { splitItem } from "../../src/shard/step.ts";
import { exampleNames, exampleOf, stepOf } from "../partition/models.ts";

test.each(exampleNames)("%s over tensor 2: no device waits for another one in W", (name) => {
  const example = exampleOf(name, { dtype: "f64" });
  const { source, groups } = example;
  const step = stepOf(example);
  // The first stage gives no gradient on: without its exchanges all of its derivative would be W.
  const stageOf = (group: string) => (groups.indexOf(group) < groups.length / 2 ? 0 : 1);
  const item = slicedFor(step, (group) => `${stageOf(group)}`, false);
  const mesh = { axes: [{ axis: "tensor" as const, size: 2 }] };
  const options = splitOptions({ stageOf, meshes: [mesh, mesh], inputs: source.inputs, shardings: {} });
  const { graph } = splitItem({ ...step, item }, options);
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
  expect(graph.nodes.filter(isExchange).length).toBeGreaterThan(0);
  expect(graph.nodes.filter(({ phase }) => phase === "W").length).toBeGreaterThan(0);
  for (const node of graph.nodes.filter(isExchange)) {
    expect(node.phase).not.toBe("W");
    for (const value of node.inputs) expect(makers.get(value)?.phase).not.toBe("W");
  }
});
