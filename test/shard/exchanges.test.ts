/** Where ranks meet: never in W, which every device of a mesh does when it has time, and not in F where it can come later. */

import { expect, test } from "vitest";
import { slicedFor } from "../../src/cost/memory.ts";
import { isExchange, meetingsOf } from "../../src/shard/exchanges.ts";
import { type Mesh, noMesh } from "../../src/shard/mesh.ts";
import { splitGroup } from "../../src/shard/sharded.ts";
import { splitOptions } from "../../src/shard/split-source.ts";
import { splitItem } from "../../src/shard/step.ts";
import { type ExampleName, exampleNames, exampleOf, stepOf } from "../partition/models.ts";

/** The item of an example with every stage over such a mesh; `stageOf` gets the index of a group. */
function splitOf(
  name: ExampleName,
  meshes: readonly Mesh[],
  stageAt: (index: number, count: number) => number,
) {
  const example = exampleOf(name, { dtype: "f64" });
  const { source, groups } = example;
  const step = stepOf(example);
  const stageOf = (group: string) => stageAt(groups.indexOf(group), groups.length);
  const item = slicedFor(step, (group) => `${stageOf(group)}`, false);
  const options = splitOptions({ stageOf, meshes, inputs: source.inputs, shardings: {} });
  const { graph } = splitItem({ ...step, item }, options);
  const phasesOf = (stage: number) => {
    const own = [...meetingsOf(graph, stageOf)].filter(
      (node) => stageOf(splitGroup(node.group).group) === stage,
    );
    return [...new Set(own.map(({ phase }) => phase))].sort();
  };
  return { graph, phasesOf };
}

const tensor: Mesh = { axes: [{ axis: "tensor", size: 2 }] };

test("the devices of a decoder do not meet: sums of exponentials and gradients are messages, the first one adds the sums in B", () => {
  const last = (index: number, count: number) => (index < count - 1 ? 0 : 1);
  const { graph, phasesOf } = splitOf("lstm", [noMesh, tensor], last);
  expect(phasesOf(1)).toEqual([]);
  const losses = graph.outputs.filter(({ name }) => splitGroup(name).group === "loss");
  const phaseOf = (value: number) => graph.nodes.find(({ outputs }) => outputs.includes(value))?.phase;
  expect(losses.map(({ value }) => phaseOf(value))).toEqual(["B", "F"]);
  expect(splitOf("lstm", [tensor, tensor], last).phasesOf(1)).toEqual(["B"]);
});

test("the layers stay in F, though nobody but the loss needs the last of them", () => {
  const all = () => 0;
  for (const name of ["transformer", "skip-mlp"] as const) {
    const { graph, phasesOf } = splitOf(name, [tensor], all);
    expect(phasesOf(0)).toContain("F");
    expect(graph.nodes.some(({ op, phase }) => op.kind === "matmul" && phase === "F")).toBe(true);
  }
});

test.each(exampleNames)("%s over tensor 2: no device waits for another one in W", (name) => {
  // The first stage gives no gradient on: without its exchanges all of its derivative would be W.
  const { graph } = splitOf(name, [tensor, tensor], (index, count) => (index < count / 2 ? 0 : 1));
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
  expect(graph.nodes.filter(isExchange).length).toBeGreaterThan(0);
  expect(graph.nodes.filter(({ phase }) => phase === "W").length).toBeGreaterThan(0);
  for (const node of graph.nodes.filter(isExchange)) {
    expect(node.phase).not.toBe("W");
    for (const value of node.inputs) expect(makers.get(value)?.phase).not.toBe("W");
  }
});
