import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import type { OpKind } from "../../src/graph/op.ts";
import { opTable } from "../../src/graph/op-table.ts";
import { printGraph } from "../../src/graph/text.ts";
import { onnxRuntimeEngine } from "../../src/node/onnxruntime/engine.ts";
import { expectAgrees } from "../execute/engine-run.ts";
import { type Case, casesOf } from "./cases.ts";

const engine = onnxRuntimeEngine();
afterAll(() => engine[Symbol.asyncDispose]());

const kinds = Object.keys(opTable) as OpKind[];
const exercised = new Set<OpKind>();

async function agrees({ graph, inputs }: Case, tolerance: number): Promise<void> {
  try {
    await expectAgrees(engine, graph, inputs, tolerance);
  } catch (error) {
    throw new Error(`${printGraph(graph)}${(error as Error).message}`, { cause: error });
  }
  for (const { op } of graph.nodes) exercised.add(op.kind);
}

describe("every operation on ONNX Runtime in f32 equals the reference", () => {
  test.for(kinds)("%s", async (kind) => {
    await fc.assert(
      fc.asyncProperty(casesOf(kind, "f32"), (one) => agrees(one, 1e-5)),
      { numRuns: 12 },
    );
  });

  test("and none was left out", () => {
    expect(kinds.filter((kind) => !exercised.has(kind))).toEqual([]);
  });
});
