/** Random graphs of many kinds of operations, in several groups and phases, with differentiable outputs. */

import fc from "fast-check";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { Graph, Phase } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { randomDense } from "./dense.ts";

/** One step: makes a tensor of the shape [2, 3] from two others of that shape. */
type Make = (a: Tensor, b: Tensor) => Tensor;

const smooth: readonly Make[] = [
  (a, b) => f.add(a, b),
  (a, b) => f.mul(a, f.tanh(b)),
  (a, b) => f.sub(f.sigmoid(a), b),
  (a, b) => f.matmul(f.matmul(a, b, { transposeB: true }), f.softmax(a)),
  (a) => f.transpose(f.tanh(f.transpose(a, [1, 0])), [1, 0]),
  (a) => f.broadcast(f.mean(a, [0], true), [2, 3]),
  (a, b) => f.concat([f.sliceDim(a, 1, 1, 3), f.sliceDim(b, 1, 0, 1)], 1),
  (a, b) => f.add(f.split(a, 0, [1, 1])[1] as Tensor, b),
  (a) => f.slice(f.pad(a, [1, 0], [0, 2], 0.25), [1, 0], [3, 5], [1, 2]),
  (a, b) => f.silu(f.sub(a, f.gelu(b))),
  (a) => f.gather(a, f.iota(a.scope, "i32", [2], 0)),
];

/** With kinks and jumps, where differences do not give a derivative. */
const kinked: readonly Make[] = [
  (a, b) => f.reshape(f.where(f.less(a, b), f.sin(a), f.constant(a.scope, "f64", [], -0.5)), [2, 3]),
  (a, b) => f.relu(f.maximum(a, f.abs(b))),
];

export interface RandomGraph {
  readonly graph: Graph;
  readonly inputs: ReadonlyMap<string, Dense>;
  /** Inputs that can be differentiated. */
  readonly parameters: readonly string[];
}

export interface RandomGraphOptions {
  readonly groups?: fc.Arbitrary<string>;
  readonly phases?: readonly Phase[];
  readonly names?: fc.Arbitrary<string>;
  /** Only operations that are differentiable everywhere; default false. */
  readonly smoothOnly?: boolean;
}

/** Graphs with the outputs `loss` (a scalar) and `last`. Phases follow each other in the order given. */
export function randomGraphs(options: RandomGraphOptions = {}): fc.Arbitrary<RandomGraph> {
  const { groups = fc.constantFrom("a", "b", "c"), phases = ["F"], names, smoothOnly = false } = options;
  const makers = smoothOnly ? smooth : [...smooth, ...kinked];
  const step = fc.record({ make: fc.constantFrom(...makers), a: fc.nat(50), b: fc.nat(50), group: groups });
  const steps = fc.array(step, { minLength: 1, maxLength: 12 });
  const parameters =
    names === undefined
      ? fc.integer({ min: 1, max: 3 }).map((count) => Array.from({ length: count }, (_, i) => `w${i}`))
      : fc.uniqueArray(names, { minLength: 1, maxLength: 3 });
  return fc.tuple(steps, parameters, fc.nat(1000)).map(([list, inputs, seed]) => {
    const builder = new GraphBuilder();
    const type: TensorType = { dtype: "f64", shape: [2, 3] };
    const tensors = inputs.map((name, i) =>
      builder.within({ group: list[i % list.length]?.group ?? "a" }, () =>
        builder.input(name, "parameter", type),
      ),
    );
    list.forEach(({ make, a, b, group }, i) => {
      const phase = phases[Math.floor((i * phases.length) / list.length)] as Phase;
      const operands = [tensors[a % tensors.length], tensors[b % tensors.length]] as [Tensor, Tensor];
      tensors.push(builder.within({ group, phase }, () => make(...operands)));
    });
    const last = tensors.at(-1) as Tensor;
    const phase = phases.at(-1) as Phase;
    builder.output(
      "loss",
      builder.within({ group: "loss", phase }, () => f.sum(tensors.reduce(f.add))),
    );
    builder.output("last", last);
    const values = inputs.map((name, i) => [name, randomDense(type.shape, seed + i)] as const);
    return { graph: builder.build(), inputs: new Map(values), parameters: inputs };
  });
}
