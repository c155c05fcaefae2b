import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { UserError } from "../../../src/base/errors.ts";
import * as f from "../../../src/graph/functions.ts";
import type { TensorType } from "../../../src/graph/shape.ts";
import { onnxRuntimeEngine } from "../../../src/node/onnxruntime/engine.ts";
import { engineConformance, graphOf } from "../../execute/engine-conformance.ts";
import { bufferOf } from "../../execute/engine-run.ts";
import { randomDense } from "../../graph/dense.ts";

const float = (...shape: number[]): TensorType => ({ dtype: "f32", shape });

describe("the ONNX Runtime engine", () => {
  engineConformance(onnxRuntimeEngine);

  test("makes one session for segments of equal structure, also when asked at the same time", async () => {
    await using engine = onnxRuntimeEngine();
    const layer = (name: string, width: number) =>
      graphOf({ [name]: float(2, width) }, (at) => ({
        [`${name}-out`]: f.tanh(Object.values(at)[0] as never),
      }));
    await Promise.all([
      engine.prepare(layer("a", 3)),
      engine.prepare(layer("b", 3)),
      engine.prepare(layer("c", 4)),
    ]);
    expect(engine.sessions()).toBe(2);
  });

  test("writes large outputs of several tensors, and small ones, into their buffers", async () => {
    await using engine = onnxRuntimeEngine();
    for (const size of [10, 100_000]) {
      const graph = graphOf({ x: float(size) }, ({ x }) => ({ a: f.neg(x), b: f.add(x, x) }));
      const x = bufferOf(float(size), randomDense([size], 1).data);
      const [a, b] = [bufferOf(float(size)), bufferOf(float(size))];
      await (await engine.prepare(graph)).bind([x], [a, b]).run();
      expect(a.data.every((value, i) => value === -(x.data[i] as number))).toBe(true);
      expect(b.data.every((value, i) => value === 2 * (x.data[i] as number))).toBe(true);
    }
  });

  test("memory does not grow from run to run", async () => {
    await using engine = onnxRuntimeEngine();
    const size = 65_536;
    const graph = graphOf({ x: float(size) }, ({ x }) => ({
      y: f.exp(f.neg(x)),
      z: f.matmul(f.reshape(x, [256, 256]), f.reshape(x, [256, 256])),
    }));
    const x = bufferOf(float(size));
    const bound = (await engine.prepare(graph)).bind([x], [bufferOf(float(size)), bufferOf(float(256, 256))]);
    const runs = async (count: number) => {
      for (let i = 0; i < count; i++) await bound.run();
    };
    await runs(50);
    const before = process.memoryUsage().rss;
    await runs(400);
    expect(process.memoryUsage().rss - before).toBeLessThan(40e6);
  });

  test("sums at repeated rows are the same with one thread and with two", async () => {
    const [rows, width, table] = [5000, 64, 50];
    const graph = graphOf({ at: { dtype: "i32", shape: [rows] }, x: float(rows, width) }, ({ at, x }) => ({
      sums: f.scatterAdd(at, x, table),
    }));
    const results = [];
    for (const threads of [1, 2]) {
      await using engine = onnxRuntimeEngine({ threads });
      const indices = bufferOf(
        { dtype: "i32", shape: [rows] },
        Array.from({ length: rows }, (_, i) => (i * i) % table),
      );
      const x = bufferOf(float(rows, width), randomDense([rows, width], 3).data);
      const sums = bufferOf(float(table, width));
      await (await engine.prepare(graph)).bind([indices, x], [sums]).run();
      results.push([...sums.data]);
    }
    expect(results[1]).toEqual(results[0]);
  });

  test("shared memory is refused with the way out", async () => {
    await using engine = onnxRuntimeEngine();
    const graph = graphOf({ x: float(2) }, ({ x }) => ({ y: f.neg(x) }));
    const shared = { type: float(2), data: new Float32Array(new SharedArrayBuffer(8)) };
    const kernel = await engine.prepare(graph);
    expect(() => kernel.bind([shared], [bufferOf(float(2))])).toThrow(/alias/);
  });

  test("an operation without a kernel for its element type is refused by name", async () => {
    await using engine = onnxRuntimeEngine();
    const image: TensorType = { dtype: "f64", shape: [1, 1, 3, 3] };
    const graph = graphOf({ x: image, w: image }, ({ x, w }) => ({ y: f.conv2d(x, w) }));
    const refused = engine.prepare(graph);
    await expect(refused).rejects.toThrow(UserError);
    await expect(refused).rejects.toThrow(/conv2d on f64 in group "model"/);
  });

  test("a profile is written for every session when the engine is disposed", async () => {
    const folder = await mkdtemp(join(tmpdir(), "profile-"));
    const graph = graphOf({ x: float(2) }, ({ x }) => ({ y: f.neg(x) }));
    {
      await using engine = onnxRuntimeEngine({ profile: join(folder, "engine") });
      await (await engine.prepare(graph)).bind([bufferOf(float(2))], [bufferOf(float(2))]).run();
    }
    const files = await readdir(folder);
    expect(files).toEqual([expect.stringMatching(/^engine.*\.json$/)]);
    expect(await readFile(join(folder, files[0] as string), "utf8")).toContain("op0:neg/0");
    await rm(folder, { recursive: true });
  });

  test("tensors without elements are refused", async () => {
    await using engine = onnxRuntimeEngine();
    const graph = graphOf({ x: float(0, 2) }, ({ x }) => ({ y: f.neg(x) }));
    await expect(engine.prepare(graph)).rejects.toThrow("%0 is f32[0,2]");
  });
});
