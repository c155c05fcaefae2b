import { afterAll, describe, expect, test } from "vitest";
import { GraphBuilder } from "../../src/graph/builder.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { neg } from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Op } from "../../src/graph/op.ts";
import type { Shape } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { onnxRuntimeEngine } from "../../src/node/onnxruntime/engine.ts";
import { lowerGraph } from "../../src/onnx/lower.ts";
import { expectAgrees } from "../execute/engine-run.ts";
import { randomDense } from "../graph/dense.ts";

const engine = onnxRuntimeEngine();
afterAll(() => engine[Symbol.asyncDispose]());

/** A graph whose outputs are what `build` returns. */
function graphOf(
  dtype: DType,
  shapes: readonly Shape[],
  build: (builder: GraphBuilder, inputs: readonly Tensor[]) => readonly Tensor[],
): Graph {
  const builder = new GraphBuilder();
  const inputs = shapes.map((shape, i) => builder.input(`x${i}`, "data", { dtype, shape }));
  build(builder, inputs).forEach((result, i) => {
    builder.output(`y${i}`, result);
  });
  return builder.build();
}

function agrees(graph: Graph): Promise<void> {
  const values = graph.inputs.map((_, i) => randomDense(graph.types[i]?.shape ?? [], i + 1));
  const half = graph.types[0]?.dtype === "f16";
  return expectAgrees(engine, graph, values, { tolerance: half ? 2e-3 : 1e-6, floor: 1 });
}

interface Collective {
  readonly title: string;
  readonly op: Op;
  readonly shapes: readonly Shape[];
}

const same: readonly Shape[] = [
  [4, 2],
  [4, 2],
  [4, 2],
];
const all: readonly Collective[] = [
  { title: "an all-reduce that adds", op: { kind: "all-reduce", reduce: "sum" }, shapes: same },
  { title: "an all-reduce for the largest", op: { kind: "all-reduce", reduce: "max" }, shapes: same },
  {
    title: "an all-gather",
    op: { kind: "all-gather" },
    shapes: [
      [3, 2],
      [1, 2],
      [2, 2],
    ],
  },
  { title: "a reduce-scatter", op: { kind: "reduce-scatter", sizes: [2, 1, 1] }, shapes: same },
];

describe.each(all)("$title on ONNX Runtime", ({ op, shapes }) => {
  test("gives every rank an output of its own, in the order of the ranks", async () => {
    const graph = graphOf("f32", shapes, (builder, inputs) => builder.apply(op, inputs));
    expect(lowerGraph(graph).outputs).toEqual(["o0", "o1", "o2"]);
    await agrees(graph);
  });

  test.each(["f32", "f16"] as const)("serves single ranks, in %s", async (dtype) => {
    for (const rank of [0, 1, 2])
      await agrees(graphOf(dtype, shapes, (builder, inputs) => [builder.apply(op, inputs)[rank] as Tensor]));
  });

  test("may have a result that is read and is an output, and one that is an output twice", () =>
    agrees(
      graphOf("f32", shapes, (builder, inputs) => {
        const [first, second] = builder.apply(op, inputs) as [Tensor, Tensor];
        return [first, neg(first), second, second];
      }),
    ));
});

test.each([
  { kind: "all-reduce", reduce: "sum" },
  { kind: "all-gather" },
  { kind: "reduce-scatter", sizes: [3] },
] as const satisfies readonly Op[])("$kind of one rank on ONNX Runtime gives it what it has", (op) =>
  agrees(graphOf("f32", [[3, 2]], (builder, inputs) => builder.apply(op, inputs))),
);
