/** Compares derivatives with differences of the function itself, in float64 on the reference engine. */

import { differentiate } from "../../src/autodiff/differentiate.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { isFloat } from "../../src/graph/dtype.ts";
import { add, mul, sum } from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { expectClose, randomDense } from "./dense.ts";

export interface GradientCheck<Name extends string, Fixed extends string = never> {
  /** Float64 inputs whose gradients are checked. */
  readonly inputs: { readonly [K in Name]: Dense };
  /** Inputs that are not differentiated: indices, targets, masks. */
  readonly fixed?: { readonly [K in Fixed]: Dense & { readonly dtype: TensorType["dtype"] } };
  /** Any number of results of any shape; those that are not floats are left out. */
  readonly build: (inputs: { readonly [K in Name | Fixed]: Tensor }) => Tensor | readonly Tensor[];
  /** Relative to the largest element of the gradient. */
  readonly tolerance?: number;
  /** Distance of the differences; no kink of the function may be closer than twice that. */
  readonly step?: number;
}

/**
 * Every derivative of the results, weighted with fixed random numbers and added up, agrees with a difference quotient of
 * fourth order. Returns the gradients, for further comparisons.
 */
export function checkGradients<Name extends string, Fixed extends string = never>(
  check: GradientCheck<Name, Fixed>,
): { readonly [K in Name]: Dense } {
  const { tolerance = 1e-6, step = 1e-4 } = check;
  const values = new Map<string, Dense>([
    ...Object.entries<Dense>(check.inputs),
    ...Object.entries<Dense>(check.fixed ?? {}),
  ]);
  const names = Object.keys(check.inputs) as Name[];
  const graph = weightedSum(check, values);
  const derivative = differentiate(graph, [{ output: "loss", gradient: "one" }], names);
  const outputs = evaluateGraph(derivative.graph, values);
  const gradients = names.map((name) => {
    const parts = derivative.gradients.filter(({ input }) => input === name);
    const gradient = parts.reduce(
      (total, { output }) => plus(total, outputs.get(output) as Dense),
      zerosLike(check.inputs[name]),
    );
    expectClose(gradient, differences(graph, values, name, step), tolerance, `gradient of ${name}`);
    return [name, gradient] as const;
  });
  return Object.fromEntries(gradients) as { [K in Name]: Dense };
}

/** The graph with one output `loss`; adds the values of the weights to `values`. */
function weightedSum<Name extends string, Fixed extends string>(
  check: GradientCheck<Name, Fixed>,
  values: Map<string, Dense>,
): Graph {
  const builder = new GraphBuilder();
  const inputs = [
    ...Object.entries<Dense>(check.inputs).map(([name, { shape }]) => [
      name,
      builder.input(name, "parameter", { dtype: "f64", shape }),
    ]),
    ...Object.entries<Dense & { dtype: TensorType["dtype"] }>(check.fixed ?? {}).map(([name, type]) => [
      name,
      builder.input(name, "data", { dtype: type.dtype, shape: type.shape }),
    ]),
  ];
  const built = check.build(Object.fromEntries(inputs) as { [K in Name | Fixed]: Tensor });
  const results = (Array.isArray(built) ? (built as readonly Tensor[]) : [built as Tensor]).filter((result) =>
    isFloat(result.dtype),
  );
  const terms = results.map((result, i) => {
    const name = `weights of result ${i}`;
    values.set(name, randomDense(result.shape, 1000 + i));
    return sum(mul(result, builder.input(name, "data", { dtype: result.dtype, shape: result.shape })));
  });
  builder.output("loss", terms.reduce(add));
  return builder.build();
}

/** d loss / d input by the five-point formula (f(-2h) - 8f(-h) + 8f(h) - f(2h)) / 12h. */
function differences(graph: Graph, values: ReadonlyMap<string, Dense>, name: string, step: number): Dense {
  const { shape, data } = values.get(name) as Dense;
  const lossAt = (element: number, distance: number): number => {
    const moved = data.with(element, (data[element] as number) + distance);
    const outputs = evaluateGraph(graph, new Map(values).set(name, { shape, data: moved }));
    return outputs.get("loss")?.data[0] as number;
  };
  return {
    shape,
    data: data.map((_, element) => {
      const near = lossAt(element, step) - lossAt(element, -step);
      const far = lossAt(element, 2 * step) - lossAt(element, -2 * step);
      return (8 * near - far) / (12 * step);
    }),
  };
}

function zerosLike({ shape, data }: Dense): Dense {
  return { shape, data: new Float64Array(data.length) };
}

function plus(a: Dense, b: Dense): Dense {
  return { shape: a.shape, data: a.data.map((value, i) => value + (b.data[i] as number)) };
}
