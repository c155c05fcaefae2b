import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import type { DType } from "../../src/graph/dtype.ts";
import type { OpKind } from "../../src/graph/op.ts";
import { opTable } from "../../src/graph/op-table.ts";
import { printGraph } from "../../src/graph/text.ts";
import { onnxRuntimeEngine } from "../../src/node/onnxruntime/engine.ts";
import { expectAgrees, type Tolerance } from "../execute/engine-run.ts";
import { type Case, casesOf } from "./cases.ts";
import { derivedGraphs, mixedGraphs } from "./mixed-graphs.ts";

const engine = onnxRuntimeEngine();
afterAll(() => engine[Symbol.asyncDispose]());

const kinds = Object.keys(opTable) as OpKind[];
const exercised = new Set<OpKind>();

async function agrees({ graph, inputs }: Case, tolerance: Tolerance): Promise<void> {
  try {
    await expectAgrees(engine, graph, inputs, tolerance);
  } catch (error) {
    throw new Error(`${printGraph(graph)}${(error as Error).message}`, { cause: error });
  }
  for (const { op } of graph.nodes) exercised.add(op.kind);
}

function all(cases: fc.Arbitrary<Case>, numRuns: number, tolerance: Tolerance): Promise<void> {
  return fc.assert(
    fc.asyncProperty(cases, (one) => agrees(one, tolerance)),
    { numRuns },
  );
}

describe("every operation on ONNX Runtime in f32 equals the reference", () => {
  test.for(kinds)("%s", (kind) => all(casesOf(kind, "f32"), 12, { tolerance: 1e-5, floor: 0.1 }));

  test("and none was left out", () => {
    expect(kinds.filter((kind) => !exercised.has(kind))).toEqual([]);
  });
});

describe("graphs of many operations equal the reference", () => {
  test("forward", () => all(mixedGraphs, 300, { tolerance: 1e-5, floor: 1 }));

  test("with their gradients", () => all(derivedGraphs, 100, { tolerance: 1e-5, floor: 1 }));
});

/** What ONNX Runtime 1.30 has no kernel for on the CPU in float64. */
const onlySingle: readonly OpKind[] = [
  "erf",
  "gelu",
  "conv2d",
  "conv2d-input-grad",
  "max-pool-grad",
  "avg-pool",
  "avg-pool-grad",
];

describe("in other float types", () => {
  const others: readonly (readonly [DType, number])[] = [
    ["f64", 1e-11],
    ["f16", 2e-2],
  ];
  for (const [dtype, tolerance] of others) {
    test.for(kinds.filter((kind) => dtype !== "f64" || !onlySingle.includes(kind)))(`${dtype}: %s`, (kind) =>
      all(casesOf(kind, dtype), 3, { tolerance, floor: 1 }),
    );
  }
});
