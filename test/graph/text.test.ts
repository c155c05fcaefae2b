import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { constant, lstm, matmul, relu } from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { parseGraph, printGraph } from "../../src/graph/text.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { randomGraphs } from "./random-graphs.ts";

/** Names with characters that the text form uses itself. */
const oddNames = fc.oneof(
  fc.string({ unit: "binary", minLength: 1 }),
  fc.constantFrom(
    'say "hi"',
    'role: "data", group: "x"',
    '", group: "y"} @z F',
    "line\nbreak\r\n\tand tab",
    "back\\slash\\",
    "\u2028\u2029",
    "NaN",
    "Infinity",
    "-Infinity",
    "%3: f32[2] = relu %1 @g F",
    "__proto__",
    "",
    " ",
    "@a F",
    "ﷺ 🧠",
  ),
);

describe("print and parse", () => {
  test("are inverse for random graphs in four phases, which verify", () => {
    fc.assert(
      fc.property(randomGraphs({ phases: ["F", "B", "W", "U"] }), ({ graph }) => {
        expect(parseGraph(printGraph(graph))).toEqual(graph);
        expect(verifyGraph(graph)).toEqual([]);
      }),
    );
  });

  test("are inverse whatever the inputs and groups are called", () => {
    fc.assert(
      fc.property(randomGraphs({ names: oddNames, groups: oddNames }), ({ graph }) => {
        const text = printGraph(graph);
        expect(text.split("\n")).toHaveLength(
          graph.inputs.length + graph.nodes.length + graph.outputs.length + 1,
        );
        expect(parseGraph(text)).toEqual(graph);
      }),
      { numRuns: 300 },
    );
  });

  test("keep every number of a constant", () => {
    const values = [
      0,
      -0,
      1e-320,
      1e300,
      0.1,
      -5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
    ];
    const builder = new GraphBuilder();
    for (const value of values)
      builder.output(`${builder.build().nodes.length}`, constant(builder, "f64", [2], value));
    const graph = builder.build();
    expect(graph.nodes).toHaveLength(values.length);
    const parsed = parseGraph(printGraph(graph));
    expect(parsed).toEqual(graph);
    expect(parsed.nodes.map(({ op }) => ("value" in op ? op.value : undefined))).toEqual(values);
  });

  test("write what a person can review", () => {
    const builder = new GraphBuilder();
    const input = (name: string, ...shape: number[]) =>
      builder.input(name, "parameter", { dtype: "f32", shape });
    const x = builder.within({ group: "embed" }, () =>
      builder.input("x", "data", { dtype: "f32", shape: [20, 400] }),
    );
    const y = builder.within({ group: "layer 2" }, () => relu(matmul(x, input("w", 400, 10))));
    const z = builder.within({ group: "tail", phase: "B" }, () =>
      constant(builder, "f32", [], Number.NEGATIVE_INFINITY),
    );
    builder.output("y", y);
    builder.output("z", z);
    expect(printGraph(builder.build())).toBe(
      [
        '%0: f32[20,400] = input "x" {role: "data", group: "embed"}',
        '%1: f32[400,10] = input "w" {role: "parameter", group: "layer 2"}',
        '%2: f32[20,10] = matmul %0 %1 {transposeA: false, transposeB: false} @"layer 2" F',
        '%3: f32[20,10] = relu %2 @"layer 2" F',
        '%4: f32[] = constant {dtype: "f32", shape: [], value: -Infinity} @tail B',
        'output "y" %3',
        'output "z" %4',
        "",
      ].join("\n"),
    );
  });

  test("lists several results, and attributes within attributes", () => {
    const builder = new GraphBuilder();
    const input = (name: string, ...shape: number[]) =>
      builder.input(name, "parameter", { dtype: "f32", shape });
    const operands = {
      x: input("x", 2, 1, 3),
      w: input("w", 8, 3),
      u: input("u", 8, 2),
      b: input("b", 8),
      h0: input("h0", 1, 2),
      c0: input("c0", 1, 2),
    };
    builder.output("h", lstm(operands)[0]);
    const window = { stride: [1, 2], pad: [0, 1, 0, 1], dilation: [1, 1] } as const;
    builder.apply({ kind: "avg-pool", window, kernel: [2, 2] }, [input("image", 1, 1, 4, 4)]);
    const graph = builder.build();
    const text = printGraph(graph);
    expect(text).toContain("%7: f32[2,1,2], %8: f32[1,2], %9: f32[1,2], ");
    expect(text).toContain(
      "= avg-pool %6 {window: {stride: [1, 2], pad: [0, 1, 0, 1], dilation: [1, 1]}, kernel: [2, 2]} @model F",
    );
    expect(parseGraph(text)).toEqual(graph);
    expect(parseGraph(text.replaceAll("\n", "\r\n"))).toEqual(graph);
  });
});

describe("a text that is not a graph is refused with every line that cannot be read", () => {
  const input = '%0: f32[2] = input "x" {role: "data", group: "g"}';
  test.each<[string, string]>([
    ["an unknown operation", "%1: f32[2] = frobnicate %0 @g F"],
    ["a property that every object has", "%1: f32[2] = constructor %0 @g F"],
    ["an unknown element type", "%1: f31[2] = relu %0 @g F"],
    ["a shape with a hole", "%1: f32[2,,3] = relu %0 @g F"],
    ["an unknown phase", "%1: f32[2] = relu %0 @g X"],
    ["a string that is not JSON", '%1: f32[2] = relu %0 @"\\x" F'],
    ["attributes that are not JSON", "%1: f32[2] = sum %0 {dims: [} @g F"],
    ["a role that there is not", '%1: f32[2] = input "y" {role: "weight", group: "g"}'],
    ["prose", "hello"],
  ])("%s", (_what, line) => {
    const parse = () => parseGraph(`${input}\n${line}\nnonsense\n`);
    expect(parse).toThrow(UserError);
    expect(parse).toThrow(`line 2: ${line}`);
    expect(parse).toThrow("line 3: nonsense");
  });

  test("values out of order, and inputs after operations", () => {
    const relu = "%1: f32[2] = relu %0 @g F";
    const first = `line 1: inputs come first, and the next value is %0: ${input.replace("%0", "%1")}`;
    expect(() => parseGraph(input.replace("%0", "%1"))).toThrow(first);
    expect(() => parseGraph(`${input}\n${relu.replace("%1", "%4")}`)).toThrow(
      "line 2: inputs come first, and the next value is %1",
    );
    expect(() => parseGraph(`${input}\n${relu}\n${input.replace("%0", "%2")}`)).toThrow(
      "line 3: inputs come first",
    );
  });
});

describe("verify", () => {
  const graph: Graph = (() => {
    const builder = new GraphBuilder();
    const x = builder.input("x", "data", { dtype: "f32", shape: [2, 3] });
    const w = builder.input("w", "parameter", { dtype: "f32", shape: [3, 4] });
    const y = relu(matmul(x, w));
    builder.output("y", y);
    builder.output(
      "z",
      builder.within({ phase: "B" }, () => relu(y)),
    );
    return builder.build();
  })();
  const [product, rectified, late] = graph.nodes as [Graph["nodes"][0], Graph["nodes"][0], Graph["nodes"][0]];
  const types = (at: number, dtype: "f32" | "f64", ...shape: number[]) =>
    graph.types.with(at, { dtype, shape });

  test("finds nothing wrong with a graph that a builder made", () => {
    expect(verifyGraph(graph)).toEqual([]);
  });

  test.each<[string, Partial<Graph>, string]>([
    [
      "two inputs of one name",
      { inputs: graph.inputs.map((input) => ({ ...input, name: "x" })) },
      'input "x" is declared twice',
    ],
    [
      "two outputs of one name",
      { outputs: graph.outputs.map((output) => ({ ...output, name: "y" })) },
      'output "y" is declared twice',
    ],
    [
      "an output of nothing",
      { outputs: [{ name: "y", value: 9 }] },
      'output "y" is %9, which is not defined',
    ],
    [
      "use before definition",
      { nodes: [{ ...product, inputs: [0, 3] }, rectified, late] },
      'node 0 (matmul in group "model") uses %3 before it is defined',
    ],
    [
      "results numbered wrong",
      { nodes: [product, { ...rectified, outputs: [4] }, late] },
      'node 1 (relu in group "model") defines %4, expected %3',
    ],
    [
      "a result of another type",
      { types: types(3, "f64", 2, 4) },
      'node 1 (relu in group "model"): result 0 is f64[2,4], expected f32[2,4]',
    ],
    [
      "operands that do not fit",
      { types: types(1, "f32", 5, 4) },
      'node 0 (matmul in group "model"): f32[2,3] x f32[5,4]: the inner dims are 3 and 5',
    ],
    [
      "too few operands",
      { nodes: [{ ...product, inputs: [0] }, rectified, late] },
      'node 0 (matmul in group "model"): expects 2 operands, got f32[2,3]',
    ],
    [
      "too many results",
      {
        nodes: [product, rectified, { ...late, outputs: [4, 5] }],
        types: [...graph.types, { dtype: "f32", shape: [] }],
      },
      'node 2 (relu in group "model"): has 2 results, expected 1',
    ],
    ["a missing type", { types: graph.types.slice(0, 4) }, "4 types for 5 values"],
    ["an input without a type", { types: [] }, 'input "x" has no type'],
    [
      "an input of half an element",
      { types: types(0, "f32", 2.5) },
      'input "x" has the type f32[2.5], which is not valid',
    ],
    [
      "a phase that comes too late",
      { nodes: [product, { ...rectified, phase: "W" }, late] },
      'node 2 (relu in group "model") is in phase B, but uses %3 of phase W',
    ],
    [
      "an operation that there is not",
      { nodes: [product, { ...rectified, op: { kind: "constructor" } as never }, late] },
      'node 1 (constructor in group "model"): there is no operation "constructor"',
    ],
  ])("finds %s", (_what, change, problem) => {
    expect(verifyGraph({ ...graph, ...change })).toContain(problem);
  });
});
