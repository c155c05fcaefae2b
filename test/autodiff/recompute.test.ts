import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { recompute } from "../../src/autodiff/recompute.ts";
import { sliceWeightGradients } from "../../src/autodiff/slice.ts";
import { trainingStep } from "../../src/autodiff/training-step.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { sgd } from "../../src/model/optimizer.ts";
import { randomGraphs } from "../graph/random-graphs.ts";
import { evaluate, forwardOf, languageModel, perceptron } from "./models.ts";

/** Values that a derivative in one of the groups uses although a forward operation of the same group made them. */
function savedInside(graph: Graph, groups: ReadonlySet<string>): string[] {
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
  return graph.nodes.flatMap((node) =>
    node.phase === "F" || !groups.has(node.group)
      ? []
      : node.inputs.flatMap((value) => {
          const maker = makers.get(value);
          return maker?.phase === "F" && maker.group === node.group
            ? [`${node.op.kind} uses ${maker.op.kind}`]
            : [];
        }),
  );
}

const groupSets = fc.uniqueArray(fc.constantFrom("a", "b", "c", "loss")).map((groups) => new Set(groups));

describe("recompute", () => {
  test("gives the same numbers, and no derivative of the groups uses a forward value made there", () => {
    fc.assert(
      fc.property(randomGraphs(), groupSets, ({ graph, inputs, parameters }, groups) => {
        const derivative = differentiate(graph, [{ output: "loss", gradient: "one" }], parameters);
        const again = recompute(derivative.graph, groups);
        expect(verifyGraph(again)).toEqual([]);
        expect(evaluateGraph(again, inputs)).toEqual(evaluateGraph(derivative.graph, inputs));
        expect(savedInside(again, groups)).toEqual([]);
        expect(again.nodes.filter(({ phase }) => phase === "F")).toEqual(graph.nodes);
      }),
    );
  });

  test("keeps B before W when it comes before slicing", () => {
    fc.assert(
      fc.property(randomGraphs(), groupSets, ({ graph, inputs, parameters }, groups) => {
        const derivative = differentiate(graph, [{ output: "loss", gradient: "one" }], parameters);
        const sliced = sliceWeightGradients(recompute(derivative.graph, groups), new Set());
        expect(verifyGraph(sliced)).toEqual([]);
        expect(evaluateGraph(sliced, inputs)).toEqual(evaluateGraph(derivative.graph, inputs));
      }),
      { numRuns: 30 },
    );
  });

  test("of no groups is the same graph", () => {
    const { item } = trainingStep(forwardOf(languageModel, { batch: 2, time: 2 }), {
      optimizer: sgd({ rate: 1 }),
    });
    expect(recompute(item, new Set())).toEqual(item);
  });

  test("repeats an LSTM and draws the same dropout mask", () => {
    const forward = forwardOf(languageModel, { batch: 2, time: 3 });
    const groups = new Set(["one", "two"]);
    const plain = trainingStep(forward, { optimizer: sgd({ rate: 1 }) }).item;
    const again = trainingStep(forward, { optimizer: sgd({ rate: 1 }), recompute: groups }).item;
    expect(savedInside(plain, groups)).not.toEqual([]);
    expect(savedInside(again, groups)).toEqual([]);
    expect(
      again.nodes.filter(({ op }) => op.kind === "lstm").map(({ group, phase }) => `${group} ${phase}`),
    ).toEqual(["one F", "two F", "two B", "one B"]);
    expect(evaluate(again)).toEqual(evaluate(plain));
  });

  test("saves what enters a group: here the input and the activations between the groups", () => {
    const forward = forwardOf(perceptron, { batch: 2 });
    const { item } = trainingStep(forward, { optimizer: sgd({ rate: 1 }), recompute: new Set(["a", "b"]) });
    const made = new Map(item.nodes.flatMap((node) => node.outputs.map((value) => [value, node] as const)));
    const saved = new Set(
      item.nodes
        .filter(({ phase }) => phase !== "F")
        .flatMap((node) => node.inputs.filter((value) => made.get(value)?.phase === "F")),
    );
    expect([...saved].map((value) => `${made.get(value)?.op.kind} ${made.get(value)?.group}`)).toEqual([
      "mul a",
    ]);
  });
});
