import { describe, expect, test } from "vitest";
import { nullEngine } from "../../src/execute/null-engine.ts";
import * as f from "../../src/graph/functions.ts";
import { engineConformance, graphOf } from "./engine-conformance.ts";
import { bufferOf } from "./engine-run.ts";

describe("the null engine", () => {
  engineConformance(nullEngine, { withoutValues: "it computes nothing" });

  test("counts bytes and leaves buffers alone", async () => {
    await using engine = nullEngine();
    const graph = graphOf({ x: { dtype: "f32", shape: [3] } }, ({ x }) => ({ y: f.cast(x, "f64") }));
    const y = bufferOf({ dtype: "f64", shape: [3] }, [1, 2, 3]);
    const kernel = await engine.prepare(graph);
    await engine.prepare(graph);
    const bound = kernel.bind([bufferOf({ dtype: "f32", shape: [3] })], [y]);
    await bound.run();
    await bound.run();
    expect([...y.data]).toEqual([1, 2, 3]);
    expect(engine.counts()).toEqual({ prepared: 1, bound: 1, runs: 2, bytes: 72 });
  });
});
