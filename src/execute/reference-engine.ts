/** The oracle as an engine: every operation by its reference evaluation in float64, rounded only when an output is written. */

import type { Graph } from "../graph/graph.ts";
import type { Dense } from "../graph/op-rules.ts";
import { evaluateAll } from "../graph/reference.ts";
import { readBuffer, writeBuffer } from "./dense-buffer.ts";
import { checkBuffers, describeSegment, type Engine, type Kernel, type TensorBuffer } from "./engine.ts";

/** Slow, exact to float64, and the same on every machine. */
export function referenceEngine(): Engine {
  return {
    name: "reference",
    prepare: (segment) => Promise.resolve(referenceKernel(segment)),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function referenceKernel(segment: Graph): Kernel {
  return {
    bind: (inputs, outputs) => {
      checkBuffers(segment, inputs, outputs);
      return { run: () => evaluate(segment, inputs, outputs) };
    },
  };
}

function evaluate(segment: Graph, inputs: readonly TensorBuffer[], outputs: readonly TensorBuffer[]): void {
  const named = segment.inputs.map(({ name }, i): [string, Dense] => [
    name,
    readBuffer(inputs[i] as TensorBuffer),
  ]);
  const values = evaluateNamed(segment, new Map(named));
  segment.outputs.forEach(({ value }, i) => {
    writeBuffer(outputs[i] as TensorBuffer, (values[value] as Dense).data);
  });
}

function evaluateNamed(segment: Graph, inputs: ReadonlyMap<string, Dense>): readonly Dense[] {
  try {
    return evaluateAll(segment, inputs);
  } catch (cause) {
    throw new Error(`${describeSegment(segment)}: ${(cause as Error).message}`, { cause });
  }
}
