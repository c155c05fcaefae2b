/** Elementwise segments tile by tile: the numbers are those of the whole segment, wherever results are written. */

import fc from "fast-check";
import { expect, test } from "vitest";
import type { TensorBuffer } from "../../src/execute/engine.ts";
import { referenceEngine } from "../../src/execute/reference-engine.ts";
import { cutTiles, tiledKernel } from "../../src/execute/tiles.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import {
  add,
  constant,
  div,
  matmul,
  mul,
  scalar,
  sqrt,
  square,
  sub,
  sum,
} from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { type Shape, sizeOf } from "../../src/graph/shape.ts";

/** Adam on tensors of the given shapes, and the rate times a number. */
function adam(shapes: readonly Shape[]): Graph {
  const builder = new GraphBuilder();
  const type = (shape: Shape) => ({ dtype: "f64" as const, shape });
  const rate = builder.input("rate", "scalar", type([]));
  shapes.forEach((shape, i) => {
    const [p, g, m, v] = ["p", "g", "m", "v"].map((name) =>
      builder.input(`${name}${i}`, "data", type(shape)),
    ) as [never, never, never, never];
    const scaled = mul(g, mul(rate, scalar(g, 3)));
    const first = add(mul(m, scalar(m, 0.9)), mul(scaled, scalar(m, 0.1)));
    const second = add(mul(v, scalar(v, 0.99)), mul(square(scaled), scalar(v, 0.01)));
    builder.output(`p${i}`, sub(p, div(mul(first, rate), add(sqrt(second), scalar(v, 1e-3)))));
    builder.output(`m${i}`, first);
    builder.output(`v${i}`, second);
  });
  builder.output("next", mul(rate, constant(rate.scope, "f64", [], 0.5)));
  return builder.build();
}

function filled(graph: Graph): readonly TensorBuffer[] {
  return graph.inputs.map((_, value) => {
    const type = graph.types[value] as TensorBuffer["type"];
    return {
      type,
      data: Float64Array.from({ length: sizeOf(type.shape) }, (__, i) => 1 + Math.sin(i + value) / 2),
    };
  });
}

/** Results, written beside the operands or over those of the same name; computed whole or in tiles. */
async function results(graph: Graph, elements: number | undefined, isInPlace: boolean) {
  const engine = referenceEngine();
  const inputs = filled(graph);
  const outputs = graph.outputs.map(({ name, value }): TensorBuffer => {
    const same = graph.inputs.findIndex((input) => input.name === name);
    const type = graph.types[value] as TensorBuffer["type"];
    return isInPlace && same >= 0
      ? (inputs[same] as TensorBuffer)
      : { type, data: new Float64Array(sizeOf(type.shape)) };
  });
  const tiles = elements === undefined ? undefined : cutTiles(graph, elements);
  const kernel =
    tiles === undefined
      ? await engine.prepare(graph)
      : tiledKernel(graph, tiles, await Promise.all(tiles.map((tile) => engine.prepare(tile.graph))));
  await kernel.bind(inputs, outputs).run();
  return outputs.map(({ data }) => [...data]);
}

test("tiles give the numbers of the whole, beside and over their operands", async () => {
  const shape = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(shape, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 9 }),
      fc.boolean(),
      async (shapes, elements, isInPlace) => {
        const graph = adam(shapes);
        expect(await results(graph, elements, isInPlace)).toEqual(await results(graph, undefined, false));
      },
    ),
    { numRuns: 60 },
  );
});

test("long chains on large tensors are cut, each by itself; the rest stays whole", () => {
  const tiles = cutTiles(adam([[4, 5], [3], [9]]), 8) ?? [];
  expect(tiles.map(({ range, outputs }) => `${range ?? "whole"}: ${outputs}`)).toEqual([
    "0,8: 0,1,2",
    "8,16: 0,1,2",
    "16,20: 0,1,2",
    "whole: 3,4,5,6,7,8,9",
  ]);
  expect(tiles[0]?.graph.inputs.map(({ name }) => name)).toEqual(["rate", "p0", "g0", "m0", "v0"]);
  expect(tiles[0]?.graph.nodes).toHaveLength(tiles[2]?.graph.nodes.length ?? 0);
});

test("what is not elementwise throughout is not cut, nor are short chains", () => {
  const builder = new GraphBuilder();
  const x = builder.input("x", "data", { dtype: "f32", shape: [4, 4] });
  builder.output("y", mul(add(x, x), scalar(x, 2)));
  expect(cutTiles(builder.build(), 2)).toBeUndefined();
  builder.output("z", add(square(mul(add(x, x), scalar(x, 2))), sum(x)));
  expect(cutTiles(builder.build(), 2)).toBeUndefined();
  builder.output("product", matmul(x, x));
  expect(cutTiles(builder.build(), 2)).toBeUndefined();
});

test("an output over an operand that another tile reads is written when all have read it", async () => {
  const builder = new GraphBuilder();
  const type = { dtype: "f64" as const, shape: [6] };
  const [a, b] = [builder.input("a", "data", type), builder.input("b", "data", type)];
  const four = (x: typeof a) => square(square(add(mul(x, x), x)));
  builder.output("c", four(a));
  builder.output("d", four(b));
  const graph = builder.build();
  const tiles = cutTiles(graph, 2) ?? [];
  expect(tiles).toHaveLength(6);
  const engine = referenceEngine();
  const kernel = tiledKernel(
    graph,
    tiles,
    await Promise.all(tiles.map((tile) => engine.prepare(tile.graph))),
  );
  const [first, second] = filled(graph) as [TensorBuffer, TensorBuffer];
  const value = (x: number) => (x * x + x) ** 4;
  const wanted = [
    [...first.data].map((x) => value(Number(x))),
    [...second.data].map((x) => value(Number(x))),
  ];
  await kernel.bind([first, second], [second, first]).run();
  wanted[0]?.forEach((x, i) => {
    expect(Number(second.data[i]) / x).toBeCloseTo(1, 12);
  });
  wanted[1]?.forEach((x, i) => {
    expect(Number(first.data[i]) / x).toBeCloseTo(1, 12);
  });
});
