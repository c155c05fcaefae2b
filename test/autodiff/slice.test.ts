import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { sliceWeightGradients } from "../../src/autodiff/slice.ts";
import { stateNames, trainingStep } from "../../src/autodiff/training-step.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { withoutDeadNodes } from "../../src/graph/subgraph.ts";
import { printGraph } from "../../src/graph/text.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { sgd } from "../../src/model/optimizer.ts";
import { randomGraphs } from "../graph/random-graphs.ts";
import { forwardOf, languageModel, perceptron, tiedModel } from "./models.ts";

const optimizer = sgd({ rate: 0.1 });

/** The item graph of a model, sliced, with the gradients of its carried state as urgent outputs. */
function slicedStep(
  source: Parameters<typeof forwardOf>[0],
  ...shape: [{ batch: number; time?: number }, { batch: number; time?: number }]
) {
  const step = trainingStep(forwardOf(source, ...shape), { optimizer });
  return sliceWeightGradients(step.item, new Set(step.states.map(({ name }) => stateNames(name).leaving)));
}

function nodesOf(graph: Graph, phase: string): string[] {
  return graph.nodes.flatMap((node) => (node.phase === phase ? [`${node.op.kind} ${node.group}`] : []));
}

describe("the slices of a training step, as read and found right", () => {
  test("two LSTM layers in chunks: B is the recurrence and what flows to the layer before, W all products for weights", async () => {
    const graph = slicedStep(languageModel, { batch: 2, time: 2 }, { batch: 2, time: 4 });
    await expect(printGraph(graph)).toMatchFileSnapshot("golden/language-model-item.txt");
    expect(nodesOf(graph, "W").filter((node) => node.startsWith("matmul"))).toEqual([
      "matmul decode",
      "matmul two",
      "matmul two",
      "matmul one",
      "matmul one",
    ]);
  });

  test("a perceptron: the first layer has no B, since nothing waits for its input's gradient", async () => {
    const graph = slicedStep(perceptron, { batch: 5 }, { batch: 5 });
    await expect(printGraph(graph)).toMatchFileSnapshot("golden/perceptron-item.txt");
    expect(nodesOf(graph, "B").every((node) => node.endsWith(" b"))).toBe(true);
  });
});

/** Random graphs with gradients of all parameters, and which outputs are urgent. */
const derived = fc
  .tuple(randomGraphs(), fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }))
  .map(([random, flags]) => {
    const { graph, gradients } = differentiate(
      random.graph,
      [{ output: "loss", gradient: "one" }],
      random.parameters,
    );
    return {
      ...random,
      graph,
      urgent: new Set(gradients.filter((_, i) => flags[i % 3]).map(({ output }) => output)),
    };
  });

/** Every use of a result of W by an operation: the phase and place of both. */
function usersOfW(graph: Graph, placeOf: (group: string) => string): { from: string; to: string }[] {
  const show = ({ phase, group }: Graph["nodes"][number]) => `${phase} at ${placeOf(group)}`;
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
  return graph.nodes.flatMap((node) =>
    node.inputs.flatMap((value) => {
      const maker = makers.get(value);
      return maker?.phase === "W" ? [{ from: show(maker), to: show(node) }] : [];
    }),
  );
}

describe("an operation in W", () => {
  test("feeds neither another group nor an urgent output nor an operation in B", () => {
    fc.assert(
      fc.property(derived, fc.boolean(), ({ graph, urgent }, isOnePlace) => {
        const placeOf = (group: string) => (isOnePlace && group !== "a" ? "rest" : group);
        const sliced = sliceWeightGradients(graph, urgent, placeOf);
        expect(verifyGraph(sliced)).toEqual([]);
        expect(usersOfW(sliced, placeOf).filter(({ from, to }) => from !== to)).toEqual([]);
        const late = new Set(sliced.nodes.flatMap((node) => (node.phase === "W" ? node.outputs : [])));
        expect(sliced.outputs.filter(({ name, value }) => urgent.has(name) && late.has(value))).toEqual([]);
      }),
    );
  });

  test("is everything that B does not need: what is left in B reaches another place or an urgent output", () => {
    fc.assert(
      fc.property(derived, ({ graph, urgent }) => {
        const sliced = sliceWeightGradients(graph, urgent);
        const needed = new Set(
          sliced.outputs.flatMap(({ name, value }) => (urgent.has(name) ? [value] : [])),
        );
        for (const node of sliced.nodes.toReversed()) {
          if (node.phase !== "B") continue;
          const isNeeded = node.outputs.some((value) => needed.has(value));
          const leaves = sliced.nodes.some(
            (user) => user.group !== node.group && user.inputs.some((value) => node.outputs.includes(value)),
          );
          expect(isNeeded || leaves).toBe(true);
          for (const value of node.inputs) needed.add(value);
        }
      }),
    );
  });

  test("changes nothing but its phase", () => {
    fc.assert(
      fc.property(derived, ({ graph, urgent }) => {
        const sliced = sliceWeightGradients(graph, urgent);
        expect({ ...sliced, nodes: sliced.nodes.map(({ phase: _, ...node }) => node) }).toEqual({
          ...graph,
          nodes: graph.nodes.map(({ phase: _, ...node }) => node),
        });
        expect(sliced.nodes.filter(({ phase }) => phase === "F")).toEqual(
          graph.nodes.filter(({ phase }) => phase === "F"),
        );
      }),
      { numRuns: 30 },
    );
  });
});

test("layers that share a place do not wait for each other's input gradient at the start of the model", () => {
  const step = trainingStep(forwardOf(languageModel, { batch: 2, time: 2 }), { optimizer });
  const apart = sliceWeightGradients(step.item, new Set());
  const together = sliceWeightGradients(step.item, new Set(), (group) =>
    group === "embed" || group === "one" ? "first" : group,
  );
  expect(nodesOf(apart, "B")).toContain("lstm-grad one");
  expect(nodesOf(together, "B").filter((node) => node.endsWith(" one"))).toEqual([]);
  expect(nodesOf(together, "B")).toContain("lstm-grad two");
});

test("both parts of a tied gradient are in W, each in its group", () => {
  const graph = slicedStep(tiedModel(), { batch: 2, time: 2 }, { batch: 2, time: 2 });
  expect(nodesOf(graph, "W")).toEqual(expect.arrayContaining(["matmul decode", "scatter-add embed"]));
});

describe("without dead nodes", () => {
  test("a graph gives the same outputs, and every operation reaches one", () => {
    fc.assert(
      fc.property(derived, ({ graph, inputs }) => {
        const live = withoutDeadNodes(graph);
        expect(verifyGraph(live)).toEqual([]);
        expect(evaluateGraph(live, inputs)).toEqual(evaluateGraph(graph, inputs));
        expect(live.inputs).toEqual(graph.inputs);
        const used = new Set([
          ...live.outputs.map(({ value }) => value),
          ...live.nodes.flatMap((node) => node.inputs),
        ]);
        for (const node of live.nodes) expect(node.outputs.some((value) => used.has(value))).toBe(true);
      }),
    );
  });

  test("a graph without outputs is empty but for its inputs", () => {
    const { graph } = forwardOf(perceptron, { batch: 2 });
    const live = withoutDeadNodes({ ...graph, outputs: [] });
    expect(live.nodes).toEqual([]);
    expect(live.types).toHaveLength(graph.inputs.length);
  });
});
