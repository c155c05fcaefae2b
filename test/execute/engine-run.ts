/** Runs a graph on an engine with float64 tensors in and out; what the engine does not write stays NaN. */

import { readBuffer, writeBuffer } from "../../src/execute/dense-buffer.ts";
import type { Engine, TensorBuffer } from "../../src/execute/engine.ts";
import { allocate } from "../../src/graph/dtype.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateAll } from "../../src/graph/reference.ts";
import { sizeOf, type TensorType } from "../../src/graph/shape.ts";

export function bufferOf(type: TensorType, values?: ArrayLike<number>): TensorBuffer {
  const buffer = { type, data: allocate(type.dtype, sizeOf(type.shape)) };
  if (values !== undefined) writeBuffer(buffer, Float64Array.from(values));
  return buffer;
}

async function runOn(engine: Engine, graph: Graph, inputs: readonly Dense[]): Promise<readonly Dense[]> {
  const kernel = await engine.prepare(graph);
  const given = inputs.map(({ data }, i) => bufferOf(graph.types[i] as TensorType, data));
  const outputs = graph.outputs.map(({ value }) => untouched(graph.types[value] as TensorType));
  await kernel.bind(given, outputs).run();
  return outputs.map(readBuffer);
}

/** A buffer in which a missing write shows. */
function untouched(type: TensorType): TensorBuffer {
  return bufferOf(
    type,
    new Float64Array(sizeOf(type.shape)).fill(type.dtype.startsWith("f") ? Number.NaN : 77),
  );
}

/** How far results may be off: `tolerance` times the largest magnitude of the tensor, or `floor` where that is larger. */
export interface Tolerance {
  readonly tolerance: number;
  readonly floor?: number;
}

/** Runs on the engine and compares every output with the reference evaluation of the same (rounded) inputs. */
export async function expectAgrees(
  engine: Engine,
  graph: Graph,
  inputs: readonly Dense[],
  { tolerance, floor = 1e-3 }: Tolerance,
): Promise<void> {
  const rounded = inputs.map(({ data }, i) => readBuffer(bufferOf(graph.types[i] as TensorType, data)));
  const values = evaluateAll(graph, new Map(graph.inputs.map(({ name }, i) => [name, rounded[i] as Dense])));
  const got = await runOn(engine, graph, rounded);
  graph.outputs.forEach(({ name, value }, i) => {
    expectNear(got[i] as Dense, values[value] as Dense, tolerance, floor, name);
  });
}

function expectNear(got: Dense, expected: Dense, tolerance: number, floor: number, name: string): void {
  const scale = expected.data.reduce((max, value) => Math.max(max, Math.abs(value)), floor);
  const wrong = expected.data.findIndex(
    (value, i) => !(Math.abs((got.data[i] as number) - value) <= tolerance * scale),
  );
  if (wrong >= 0) {
    const numbers = `${got.data[wrong]}, expected ${expected.data[wrong]}`;
    throw new Error(`${name}: element ${wrong} is ${numbers} (tolerance ${tolerance} of ${scale})`);
  }
}
