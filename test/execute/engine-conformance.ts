/** What every engine must do, whatever computes: one suite, run against each implementation. */

import { describe, expect, test } from "vitest";
import { uniform } from "../../src/base/random.ts";
import { readBuffer } from "../../src/execute/dense-buffer.ts";
import type { Engine, TensorBuffer } from "../../src/execute/engine.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import type { DType } from "../../src/graph/dtype.ts";
import * as f from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { bufferOf } from "./engine-run.ts";

export interface ConformanceOptions {
  /** Why this engine's numbers are not looked at; absent: they are. */
  readonly withoutValues?: string;
}

const float = (...shape: number[]): TensorType => ({ dtype: "f32", shape });

type Inputs = { readonly [name: string]: TensorType };

/** A graph from named inputs to named outputs. */
export function graphOf<T extends Inputs>(
  inputs: T,
  build: (
    at: { readonly [K in keyof T]: Tensor },
    builder: GraphBuilder,
  ) => { readonly [name: string]: Tensor },
): Graph {
  const builder = new GraphBuilder();
  const tensors = Object.entries(inputs).map(([name, type]) => [name, builder.input(name, "data", type)]);
  const outputs = build(Object.fromEntries(tensors), builder);
  for (const [name, tensor] of Object.entries(outputs)) builder.output(name, tensor);
  return builder.build();
}

function outputsOf(graph: Graph): TensorBuffer[] {
  return graph.outputs.map(({ value }) => bufferOf(graph.types[value] as TensorType));
}

/** The elements as ordinary numbers. */
function numbers({ data }: TensorBuffer): number[] {
  return Array.from(data as ArrayLike<number | bigint>, Number);
}

const update = graphOf({ p: float(2, 3), g: float(2, 3), rate: float() }, ({ p, g, rate }) => ({
  next: f.sub(p, f.mul(rate, g)),
}));

export function engineConformance(make: () => Engine, { withoutValues }: ConformanceOptions = {}): void {
  const shows = (name: string, run: () => Promise<void>): void => {
    if (withoutValues === undefined) test(name, run);
    else test.skip(`${name}: ${withoutValues}`, run);
  };

  describe("values", () => {
    shows("a product with a transposed operand and a bias is computed", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(2, 2), w: float(3, 2), b: float(3) }, ({ x, w, b }) => ({
        y: f.relu(f.add(f.matmul(x, w, { transposeB: true }), b)),
      }));
      const inputs = [
        bufferOf(float(2, 2), [1, 2, 3, -4]),
        bufferOf(float(3, 2), [1, 0, 0, 1, 1, 1]),
        bufferOf(float(3), [0.5, 0, 0]),
      ];
      const outputs = outputsOf(graph);
      const kernel = await engine.prepare(graph);
      await kernel.bind(inputs, outputs).run();
      expect(outputs.map(numbers)).toEqual([[1.5, 2, 3, 3.5, 0, 0]]);
    });

    shows("a bound kernel reads its inputs anew on each run", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(2) }, ({ x }) => ({ y: f.neg(x) }));
      const [x, [y]] = [bufferOf(float(2), [1, 2]), outputsOf(graph) as [TensorBuffer]];
      const bound = (await engine.prepare(graph)).bind([x], [y]);
      await bound.run();
      x.data.set([5, 6] as never);
      await bound.run();
      expect(numbers(y)).toEqual([-5, -6]);
    });

    shows("one kernel serves several sets of buffers", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(2) }, ({ x }) => ({ y: f.neg(x) }));
      const kernel = await engine.prepare(graph);
      const sets = [1, 2].map((value) => ({ x: bufferOf(float(2), [value, 0.5]), y: bufferOf(float(2)) }));
      const bound = sets.map(({ x, y }) => kernel.bind([x], [y]));
      for (const one of bound) await one.run();
      expect(sets.map(({ y }) => numbers(y))).toEqual([
        [-1, -0.5],
        [-2, -0.5],
      ]);
    });

    shows("views into larger memory are read and written in their place only", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(3) }, ({ x }) => ({ y: f.square(x) }));
      const memory = new Float32Array(9).fill(7);
      memory.set([1, 2, 3], 1);
      const x = { type: float(3), data: memory.subarray(1, 4) };
      const y = { type: float(3), data: memory.subarray(5, 8) };
      await (await engine.prepare(graph)).bind([x], [y]).run();
      expect([...memory]).toEqual([7, 1, 2, 3, 7, 1, 4, 9, 7]);
    });

    shows("parameters are updated in place", async () => {
      await using engine = make();
      const p = bufferOf(float(2, 3), [1, 2, 3, 4, 5, 6]);
      const [g, rate] = [bufferOf(float(2, 3), [1, 1, 1, 2, 2, 2]), bufferOf(float(), [0.5])];
      const bound = (await engine.prepare(update)).bind([p, g, rate], [p]);
      for (let step = 0; step < 3; step++) await bound.run();
      expect(numbers(p)).toEqual([-0.5, 0.5, 1.5, 1, 2, 3]);
    });

    shows("an output over an input that is read later holds the same numbers as one beside it", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(2, 2) }, ({ x }) => ({
        negative: f.neg(x),
        product: f.matmul(x, x),
        more: f.add(x, f.scalar(x, 1)),
      }));
      for (const over of [0, 1, 2]) {
        const x = bufferOf(float(2, 2), [1, 2, 3, 4]);
        const outputs = outputsOf(graph).map((output, i) => (i === over ? x : output));
        await (await engine.prepare(graph)).bind([x], outputs).run();
        expect(outputs.map(numbers)).toEqual([
          [-1, -2, -3, -4],
          [7, 10, 15, 22],
          [2, 3, 4, 5],
        ]);
      }
    });

    shows("an output that overlaps an input in part is written after the input was read", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(4) }, ({ x }) => ({ y: f.mul(x, f.scalar(x, 10)) }));
      const memory = Float32Array.of(1, 2, 3, 4, 0);
      const x = { type: float(4), data: memory.subarray(0, 4) };
      const y = { type: float(4), data: memory.subarray(1, 5) };
      await (await engine.prepare(graph)).bind([x], [y]).run();
      expect([...memory]).toEqual([1, 10, 20, 30, 40]);
    });

    shows("momentum and parameter are updated in place together", async () => {
      await using engine = make();
      const graph = graphOf({ p: float(2), v: float(2), g: float(2) }, ({ p, v, g }) => {
        const next = f.add(f.mul(v, f.scalar(v, 0.5)), g);
        return { v: next, p: f.sub(p, next) };
      });
      const [p, v, g] = [
        [10, 20],
        [4, 8],
        [1, 1],
      ].map((values) => bufferOf(float(2), values)) as [TensorBuffer, TensorBuffer, TensorBuffer];
      const bound = (await engine.prepare(graph)).bind([p, v, g], [v, p]);
      await bound.run();
      await bound.run();
      expect([numbers(v), numbers(p)]).toEqual([
        [2.5, 3.5],
        [4.5, 11.5],
      ]);
    });

    shows("a product is added to a buffer in place", async () => {
      await using engine = make();
      const graph = graphOf({ sum: float(2, 2), a: float(3, 2), b: float(3, 2) }, ({ sum, a, b }) => ({
        sum: f.add(sum, f.matmul(a, b, { transposeA: true })),
      }));
      const sum = bufferOf(float(2, 2), [100, 200, 300, 400]);
      const ones = [1, 2, 3, 4, 5, 6];
      const inputs = [sum, bufferOf(float(3, 2), ones), bufferOf(float(3, 2), ones)];
      const bound = (await engine.prepare(graph)).bind(inputs, [sum]);
      await bound.run();
      await bound.run();
      expect(numbers(sum)).toEqual([170, 288, 388, 512]);
    });

    shows("inputs, constants and the same value twice can be outputs", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(2) }, ({ x }) => {
        const y = f.neg(x);
        return { x, y, again: y, constant: f.constant(x.scope, "i32", [2], 3) };
      });
      const outputs = outputsOf(graph);
      await (await engine.prepare(graph)).bind([bufferOf(float(2), [1, 2])], outputs).run();
      expect(outputs.map(numbers)).toEqual([
        [1, 2],
        [-1, -2],
        [-1, -2],
        [3, 3],
      ]);
    });

    const types: readonly DType[] = ["f32", "f64", "i32", "i64", "bool", "f16"];
    for (const from of types) {
      shows(`${from} is read, and written as every element type`, async () => {
        await using engine = make();
        for (const to of types) {
          const graph = graphOf({ x: { dtype: from, shape: [4] } }, ({ x }) => ({ y: f.cast(x, to) }));
          const x = bufferOf({ dtype: from, shape: [4] }, [0, 1, 2.5, -3]);
          const outputs = outputsOf(graph);
          await (await engine.prepare(graph)).bind([x], outputs).run();
          expect([...readBuffer(outputs[0] as TensorBuffer).data], to).toEqual(converted(from, to));
        }
      });
    }

    shows(
      "dropout masks are those of the counter-based generator, wherever their key comes from",
      async () => {
        await using engine = make();
        const scalar: TensorType = { dtype: "i32", shape: [] };
        const op = {
          kind: "dropout-mask",
          dtype: "f32",
          shape: [3, 5, 4],
          strides: [4, 100, 1],
          keep: 0.7,
        } as const;
        const build = (key: Tensor, offset: Tensor) => {
          const base = f.add(
            f.constant(key.scope, "i32", [], 7),
            f.mul(offset, f.constant(key.scope, "i32", [], 20)),
          );
          return { mask: f.only(key.scope.apply(op, [key, base])) };
        };
        const direct = graphOf({ key: scalar, offset: scalar }, ({ key, offset }) => build(key, offset));
        const computed = graphOf({ key: { dtype: "i32", shape: [2] }, offset: scalar }, ({ key, offset }) =>
          build(f.sum(key), offset),
        );
        for (const [graph, keys] of [
          [direct, [-123_456]],
          [computed, [-123_000, -456]],
        ] as const) {
          const [mask] = outputsOf(graph) as [TensorBuffer];
          const inputs = [bufferOf(graph.types[0] as TensorType, keys), bufferOf(scalar, [3])];
          const bound = (await engine.prepare(graph)).bind(inputs, [mask]);
          for (const offset of [3, 1_000_000]) {
            inputs[1]?.data.fill(offset as never);
            await bound.run();
            const expected = Array.from({ length: 60 }, (_, i) => {
              const [a, b, c] = [Math.floor(i / 20), Math.floor(i / 4) % 5, i % 4];
              const index = 7 + 20 * offset + 4 * a + 100 * b + c;
              return uniform(-123_456, index) < 0.7 ? Math.fround(1 / 0.7) : 0;
            });
            expect(numbers(mask)).toEqual(expected);
          }
        }
      },
    );

    shows("an index outside its table fails with the name of the group", async () => {
      await using engine = make();
      const builder = new GraphBuilder();
      const table = builder.input("table", "parameter", float(3, 2));
      const indices = builder.input("indices", "data", { dtype: "i32", shape: [2] });
      builder.output(
        "rows",
        builder.within({ group: "embed" }, () => f.gather(table, indices)),
      );
      const graph = builder.build();
      for (const wrong of [3, -1]) {
        const inputs = [bufferOf(float(3, 2)), bufferOf({ dtype: "i32", shape: [2] }, [0, wrong])];
        const bound = (await engine.prepare(graph)).bind(inputs, outputsOf(graph));
        await expect((async () => bound.run())()).rejects.toThrow(/embed/);
      }
    });
  });

  describe("contract", () => {
    test("kernels that do not fit their buffers are refused with every fault", async () => {
      await using engine = make();
      const kernel = await engine.prepare(update);
      const short = { type: float(2, 3), data: new Float32Array(5) };
      const wrong = bufferOf({ dtype: "i32", shape: [2, 3] });
      expect(() => kernel.bind([short, wrong, bufferOf(float())], [bufferOf(float(3, 2))])).toThrow(
        [
          "cannot bind segment of model (F, 2 operations):",
          '  - input "p" is f32[2,3], its buffer holds 5 elements of 4 bytes',
          '  - input "g" is f32[2,3], its buffer is i32[2,3]',
          '  - output "next" is f32[2,3], its buffer is f32[3,2]',
        ].join("\n"),
      );
      expect(() => kernel.bind([], [bufferOf(float(2, 3))])).toThrow("it has 3 inputs, 0 buffers were given");
    });

    test("two outputs in the same memory are refused", async () => {
      await using engine = make();
      const graph = graphOf({ x: float(4) }, ({ x }) => ({ a: f.neg(x), b: f.exp(x) }));
      const memory = new Float32Array(6);
      const outputs = [0, 2].map((start) => ({ type: float(4), data: memory.subarray(start, start + 4) }));
      const kernel = await engine.prepare(graph);
      expect(() => kernel.bind([bufferOf(float(4))], outputs)).toThrow('outputs "a" and "b" share memory');
    });

    test("segments can be prepared at the same time", async () => {
      await using engine = make();
      const kernels = await Promise.all(Array.from({ length: 4 }, () => engine.prepare(update)));
      for (const kernel of kernels) {
        const inputs = update.inputs.map((_, i) => bufferOf(update.types[i] as TensorType));
        await kernel.bind(inputs, [bufferOf(float(2, 3))]).run();
      }
    });
  });
}

/** What 0, 1, 2.5 and -3 become. */
function converted(from: DType, to: DType): number[] {
  if (from === "bool" || to === "bool") return [0, 1, 1, 1];
  return [0, 1, from.startsWith("i") || to.startsWith("i") ? 2 : 2.5, -3];
}
