import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { structureKey, structureText } from "../../src/graph/structure.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { randomGraphs } from "./random-graphs.ts";

interface Choices {
  readonly group?: string;
  readonly input?: string;
  readonly output?: string;
  readonly width?: number;
  readonly epsilon?: number;
  readonly swapped?: boolean;
}

function layer({
  group = "a",
  input = "x",
  output = "y",
  width = 4,
  epsilon = 1e-5,
  swapped = false,
}: Choices): Graph {
  const builder = new GraphBuilder();
  builder.within({ group }, () => {
    const x = builder.input(input, "data", { dtype: "f32", shape: [2, width] });
    const [scale, shift] = ["scale", "shift"].map((name) =>
      builder.input(name, "parameter", { dtype: "f32", shape: [width] }),
    ) as [Tensor, Tensor];
    builder.output(
      output,
      swapped ? f.layerNorm(x, shift, scale, epsilon) : f.layerNorm(x, scale, shift, epsilon),
    );
  });
  return builder.build();
}

describe("the structure of a graph", () => {
  test("does not depend on names, roles, groups and phases", () => {
    const key = structureKey(layer({}));
    expect(structureKey(layer({ group: "b", input: "in", output: "out" }))).toBe(key);
  });

  test("depends on shapes, attributes and wiring", () => {
    const variants: readonly Choices[] = [{}, { width: 5 }, { epsilon: 1e-6 }, { swapped: true }];
    expect(new Set(variants.map((choices) => structureKey(layer(choices)))).size).toBe(variants.length);
  });

  test("tells numbers apart that JSON does not", () => {
    const graphs = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].map((value) => {
      const builder = new GraphBuilder();
      builder.output("y", f.constant(builder, "f32", [2], value));
      return builder.build();
    });
    expect(new Set(graphs.map(structureKey)).size).toBe(5);
  });

  test("its key is equal exactly when its text is", () => {
    const seen = new Map<string, string>();
    fc.assert(
      fc.property(randomGraphs(), ({ graph }) => {
        const [key, text] = [structureKey(graph), structureText(graph)];
        expect(key).toMatch(/^[0-9a-f]{32}$/);
        expect(seen.get(key) ?? text).toBe(text);
        seen.set(key, text);
      }),
    );
    expect(new Set(seen.values()).size).toBe(seen.size);
  });
});
