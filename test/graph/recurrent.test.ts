import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { add, concat, gru, lstm, mul, reshape, sliceDim, sum } from "../../src/graph/functions.ts";
import type { Op } from "../../src/graph/op.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { ShapeError } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { expectClose } from "./dense.ts";
import { type PytorchCase, pytorchCases } from "./pytorch-cases.ts";

interface Options {
  readonly layers?: number;
}

type Inputs = { readonly [name: string]: Tensor };

/** Builds the graph of a case from its tensors, and compares outputs and gradients with PyTorch's. */
function compare(
  { input, output, gradient }: PytorchCase<Options>,
  given: readonly string[],
  outputs: readonly string[],
  build: (inputs: Inputs) => readonly Tensor[],
): void {
  const builder = new GraphBuilder();
  const tensors = given.map((name) => [
    name,
    builder.input(name, "parameter", { dtype: "f64", shape: input(name).shape }),
  ]);
  const inputs = Object.fromEntries(tensors) as Inputs;
  const weights = ["r1", "r2", "r3"].slice(0, outputs.length);
  const results = build(inputs);
  const terms = results.map((result, i) => {
    builder.output(outputs[i] as string, result);
    const weight = builder.input(weights[i] as string, "data", { dtype: "f64", shape: result.shape });
    return sum(mul(result, weight));
  });
  builder.output("loss", terms.reduce(add));
  const { graph } = differentiate(builder.build(), [{ output: "loss", gradient: "one" }], given);
  const values = evaluateGraph(graph, new Map([...given, ...weights].map((name) => [name, input(name)])));
  for (const name of [...outputs, "loss"]) expectClose(values.get(name) as Dense, output(name), 1e-12, name);
  for (const name of given) expectClose(values.get(`grad:${name}`) as Dense, gradient(name), 1e-11, name);
}

const sizesOf = (layers: number, states: readonly string[]): readonly string[] => [
  "x",
  ...states,
  ...Array.from({ length: layers }, (_, l) =>
    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map((name) => `${name}_l${l}`),
  ).flat(),
];

/** Layer l of a state [layers, B, H]. */
function layerOf(state: Tensor, layer: number): Tensor {
  return reshape(sliceDim(state, 0, layer, layer + 1), state.shape.slice(1));
}

function stacked(states: readonly Tensor[]): Tensor {
  return concat(
    states.map((state) => reshape(state, [1, ...state.shape])),
    0,
  );
}

function parametersOf(at: Inputs, layer: number): { w: Tensor; u: Tensor; b: Tensor; p: Tensor } {
  const [w, u, b, p] = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(
    (name) => at[`${name}_l${layer}`],
  );
  return { w, u, b, p } as { w: Tensor; u: Tensor; b: Tensor; p: Tensor };
}

describe("lstm", () => {
  test.each(pytorchCases<Options>("lstm"))(
    "agrees with PyTorch, all outputs and gradients: $name",
    (given) => {
      const layers = given.input("h0").shape[0] as number;
      compare(given, sizesOf(layers, ["h0", "c0"]), ["h", "hT", "cT"], (at) => {
        let x = at["x"] as Tensor;
        const last: [Tensor[], Tensor[]] = [[], []];
        for (let layer = 0; layer < layers; layer++) {
          const { w, u, b, p } = parametersOf(at, layer);
          const [h0, c0] = [layerOf(at["h0"] as Tensor, layer), layerOf(at["c0"] as Tensor, layer)];
          const [h, hLast, cLast] = lstm({ x, w, u, b: add(b, p), h0, c0 });
          x = h;
          last[0].push(hLast);
          last[1].push(cLast);
        }
        return [x, stacked(last[0]), stacked(last[1])];
      });
    },
  );

  test("operands of other shapes are refused, all of them at once", () => {
    const shapes = [[3, 2, 5], [16, 5], [16, 4], [15], [2, 4], [1, 4]];
    const infer = () =>
      rulesOf("lstm").infer(
        { kind: "lstm" },
        shapes.map((shape) => ({ dtype: "f32", shape })),
      );
    expect(infer).toThrow(ShapeError);
    expect(infer).toThrow("operand 3 must be f32[16], got f32[15]; operand 5 must be f32[2,4], got f32[1,4]");
  });

  test("in two chunks of time it gives what it gives in one, when the state is carried", () => {
    const [given] = pytorchCases<Options>("lstm") as [PytorchCase<Options>];
    compare(given, sizesOf(1, ["h0", "c0"]), ["h", "hT", "cT"], (at) => {
      const { w, u, b, p } = parametersOf(at, 0);
      const x = at["x"] as Tensor;
      const [h0, c0] = [layerOf(at["h0"] as Tensor, 0), layerOf(at["c0"] as Tensor, 0)];
      const before = lstm({ x: sliceDim(x, 0, 0, 2), w, u, b: add(b, p), h0, c0 });
      const after = lstm({ x: sliceDim(x, 0, 2, 5), w, u, b: add(b, p), h0: before[1], c0: before[2] });
      return [concat([before[0], after[0]], 0), stacked([after[1]]), stacked([after[2]])];
    });
  });
});

describe("gru", () => {
  test.each(pytorchCases<Options>("gru"))(
    "agrees with PyTorch, all outputs and gradients: $name",
    (given) => {
      const layers = given.input("h0").shape[0] as number;
      compare(given, sizesOf(layers, ["h0"]), ["h", "hT"], (at) => {
        let x = at["x"] as Tensor;
        const last: Tensor[] = [];
        for (let layer = 0; layer < layers; layer++) {
          const [h, hLast] = gru({ x, ...parametersOf(at, layer), h0: layerOf(at["h0"] as Tensor, layer) });
          x = h;
          last.push(hLast);
        }
        return [x, stacked(last)];
      });
    },
  );
});

test("the values that a recurrent layer saves for its derivative cannot be differentiated", () => {
  const builder = new GraphBuilder();
  const input = (name: string, ...shape: number[]) =>
    builder.input(name, "parameter", { dtype: "f64", shape });
  const operands = [
    input("x", 1, 1, 1),
    input("w", 4, 1),
    input("u", 4, 1),
    input("b", 4),
    input("h0", 1, 1),
    input("c0", 1, 1),
  ];
  const op: Op = { kind: "lstm" };
  builder.output("saved", builder.apply(op, operands)[4] as Tensor);
  expect(() => differentiate(builder.build(), [{ output: "saved", gradient: "one" }], ["x"])).toThrow(
    "internal: the values that a recurrent layer saves have no derivative",
  );
});
