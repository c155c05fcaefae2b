import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { UserError } from "../../src/base/errors.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { expectClose } from "../graph/dense.ts";
import { randomGraphs } from "../graph/random-graphs.ts";
import { dense, mapped } from "../graph/shapes.ts";
import { forwardOf, languageModel, tiedModel, valuesFor } from "./models.ts";

const loss = [{ output: "loss", gradient: "one" as const }];

/** d loss / d input by the five-point formula. */
function differences(graph: Graph, inputs: ReadonlyMap<string, Dense>, name: string): Dense {
  const { shape, data } = inputs.get(name) as Dense;
  const h = 1e-3;
  const lossAt = (element: number, distance: number): number => {
    const moved = { shape, data: data.with(element, (data[element] as number) + distance) };
    return evaluateGraph(graph, new Map(inputs).set(name, moved)).get("loss")?.data[0] as number;
  };
  return {
    shape,
    data: data.map((_, i) => {
      const near = lossAt(i, h) - lossAt(i, -h);
      return (8 * near - (lossAt(i, 2 * h) - lossAt(i, -2 * h))) / (12 * h);
    }),
  };
}

/** The gradient of an input: the sum of its parts. */
function gradientOf(
  derivative: ReturnType<typeof differentiate>,
  values: ReadonlyMap<string, Dense>,
  name: string,
): Dense {
  const parts = derivative.gradients
    .filter(({ input }) => input === name)
    .map(({ output }) => values.get(output) as Dense);
  const shape =
    derivative.graph.types[derivative.graph.inputs.findIndex((input) => input.name === name)]?.shape ?? [];
  const zero = { shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) };
  return parts.reduce(
    (a, b) => ({ shape, data: a.data.map((value, i) => value + (b.data[i] as number)) }),
    zero,
  );
}

test("gradients of random graphs over several groups agree with central differences", () => {
  fc.assert(
    fc.property(randomGraphs({ smoothOnly: true }), ({ graph, inputs, parameters }) => {
      const derivative = differentiate(graph, loss, parameters);
      expect(verifyGraph(derivative.graph)).toEqual([]);
      const values = evaluateGraph(derivative.graph, inputs);
      expect(values.get("loss")).toEqual(evaluateGraph(graph, inputs).get("loss"));
      for (const name of parameters)
        expectClose(gradientOf(derivative, values, name), differences(graph, inputs, name), 1e-6, name);
    }),
    { numRuns: 60 },
  );
});

test("every gradient of a language model agrees with central differences", () => {
  const { graph, parameters } = forwardOf(languageModel, { batch: 2, time: 3 });
  const names = parameters.map(({ name }) => name);
  const derivative = differentiate(graph, loss, names);
  const inputs = valuesFor(graph);
  const values = evaluateGraph(derivative.graph, valuesFor(derivative.graph));
  for (const name of names)
    expectClose(values.get(`grad:${name}`) as Dense, differences(graph, inputs, name), 1e-6, name);
});

describe("an input that several groups use", () => {
  test("has a gradient for each of them, made there, and their sum is the true one", () => {
    const { graph } = forwardOf(tiedModel(), { batch: 2, time: 3 });
    const derivative = differentiate(graph, loss, ["embed.table"]);
    expect(derivative.gradients).toEqual([
      { input: "embed.table", group: "decode", output: "grad:embed.table@decode" },
      { input: "embed.table", group: "embed", output: "grad:embed.table@embed" },
    ]);
    for (const { output, group } of derivative.gradients) {
      const value = derivative.graph.outputs.find(({ name }) => name === output)?.value ?? -1;
      expect(derivative.graph.nodes.find(({ outputs }) => outputs.includes(value))?.group).toBe(group);
    }
    const inputs = valuesFor(graph);
    const values = evaluateGraph(derivative.graph, inputs);
    expectClose(
      gradientOf(derivative, values, "embed.table"),
      differences(graph, inputs, "embed.table"),
      1e-6,
    );
  });

  test("has one gradient where one group uses it twice", () => {
    const builder = new GraphBuilder();
    const x = builder.input("x", "parameter", { dtype: "f64", shape: [2] });
    builder.output("loss", f.sum(f.mul(f.tanh(x), f.sin(x))));
    const { gradients } = differentiate(builder.build(), loss, ["x"]);
    expect(gradients).toEqual([{ input: "x", group: "model", output: "grad:x" }]);
  });
});

describe("seeds", () => {
  const type: TensorType = { dtype: "f64", shape: [2] };
  const build = () => {
    const builder = new GraphBuilder();
    const [x, y] = [builder.input("x", "parameter", type), builder.input("y", "parameter", type)];
    builder.output("product", f.mul(x, y));
    builder.output(
      "square",
      builder.within({ group: "other" }, () => f.square(x)),
    );
    builder.output("x", x);
    return builder.build();
  };
  const given = new Map(
    Object.entries({ x: dense([2], 3, 5), y: dense([2], 7, 11), weights: dense([2], 10, 100) }),
  );

  test("may be given from outside, as an input of the group that made the output", () => {
    const { graph } = differentiate(build(), [{ output: "square", gradient: { input: "weights" } }], ["x"]);
    expect(graph.inputs.at(-1)).toEqual({ name: "weights", role: "gradient", group: "other" });
    expect([...(evaluateGraph(graph, given).get("grad:x") as Dense).data]).toEqual([60, 1000]);
  });

  test("add up, also at one output", () => {
    const seeds = [
      { output: "square", gradient: { input: "weights" } },
      { output: "square", gradient: "one" as const },
      { output: "square", gradient: "one" as const },
      { output: "product", gradient: "one" as const },
    ];
    const derivative = differentiate(build(), seeds, ["x"]);
    const values = evaluateGraph(derivative.graph, given);
    expect([...gradientOf(derivative, values, "x").data]).toEqual([12 * 6 + 7, 102 * 10 + 11]);
  });

  test("may lie at an input", () => {
    const derivative = differentiate(build(), [{ output: "x", gradient: "one" }], ["x", "y"]);
    expect(derivative.gradients.map(({ input }) => input)).toEqual(["x"]);
    expect([...gradientOf(derivative, evaluateGraph(derivative.graph, given), "x").data]).toEqual([1, 1]);
  });

  test("and wanted inputs that do not exist are refused", () => {
    expect(() => differentiate(build(), [{ output: "loss", gradient: "one" }], ["x"])).toThrow(UserError);
    expect(() => differentiate(build(), [{ output: "square", gradient: "one" }], ["x", "z", "v"])).toThrow(
      'there is no input "z", "v" to differentiate',
    );
  });
});

test("an input that does not reach a seed has no gradient, and neither has one of whole numbers", () => {
  const builder = new GraphBuilder();
  const table = builder.input("table", "parameter", { dtype: "f64", shape: [3, 2] });
  const unused = builder.input("unused", "parameter", { dtype: "f64", shape: [2] });
  const indices = builder.input("indices", "data", { dtype: "i32", shape: [4] });
  builder.output("loss", f.sum(f.gather(table, indices)));
  builder.output("other", f.neg(unused));
  builder.output("flags", f.cast(f.greater(unused, f.neg(unused)), "f64"));
  const seeds = [...loss, { output: "flags", gradient: "one" as const }];
  const { gradients } = differentiate(builder.build(), seeds, ["table", "unused", "indices"]);
  expect(gradients.map(({ input }) => input)).toEqual(["table"]);
});

test("an operation without a derivative is named with its group", () => {
  const builder = new GraphBuilder();
  const x = builder.input("x", "parameter", { dtype: "f64", shape: [2, 3] });
  const targets = builder.input("targets", "data", { dtype: "i32", shape: [2] });
  const weights = builder.input("weights", "data", { dtype: "f64", shape: [2] });
  const second = builder.within({ group: "odd" }, () =>
    builder.apply({ kind: "cross-entropy-grad", ignore: -1 }, [x, targets, weights, weights]),
  );
  builder.output("loss", f.sum(f.only(second)));
  expect(() => differentiate(builder.build(), loss, ["x"])).toThrow(
    'cross-entropy-grad in group "odd" cannot be differentiated',
  );
});

test("derivatives are in phase B, in the group of what they derive from", () => {
  fc.assert(
    fc.property(randomGraphs(), ({ graph, parameters }) => {
      const { graph: whole } = differentiate(graph, loss, parameters);
      const forward = whole.nodes.slice(0, graph.nodes.length);
      expect(forward).toEqual(graph.nodes);
      const groups = new Set(graph.nodes.map(({ group }) => group));
      for (const node of whole.nodes.slice(graph.nodes.length)) {
        expect(node.phase).toBe("B");
        expect(groups).toContain(node.group);
      }
    }),
    { numRuns: 30 },
  );
});

test("a gradient is a linear function of its seed", () => {
  const { graph } = forwardOf(languageModel, { batch: 1, time: 2 }, { batch: 1, time: 4 });
  const seed = [{ output: "state:one.h", gradient: { input: "arriving" } }];
  const derivative = differentiate(graph, seed, ["embed.table"]);
  const values = valuesFor(derivative.graph);
  const once = evaluateGraph(derivative.graph, values).get("grad:embed.table") as Dense;
  values.set(
    "arriving",
    mapped(values.get("arriving") as Dense, (value) => 3 * value),
  );
  expectClose(
    evaluateGraph(derivative.graph, values).get("grad:embed.table") as Dense,
    mapped(once, (value) => 3 * value),
    1e-14,
  );
});
