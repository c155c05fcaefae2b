import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { UserError } from "../../src/base/errors.ts";
import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import * as f from "../../src/graph/functions.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { buildForward, type ForwardGraph, type ModelSource } from "../../src/model/forward.ts";
import { uniformWithin } from "../../src/model/initializer.ts";
import type { Layer } from "../../src/model/layer.ts";
import { attention, positionEmbedding, transformerBlock } from "../../src/model/layers/attention.ts";
import {
  batchNorm,
  dropout,
  embedding,
  flatten,
  layerNorm,
  linear,
  relu,
  residual,
  sequential,
} from "../../src/model/layers/basic.ts";
import { avgPool, convolution, maxPool } from "../../src/model/layers/convolution.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";

/** The forward graph of a model over one float input of the given shape, whose output is its own loss. */
function forward(
  shape: readonly number[],
  model: (x: Tensor) => Tensor,
  options: { training?: boolean; dtype?: "f32" | "i32" } = {},
): ForwardGraph {
  const dims: InputSpec["dims"] = shape.map((size) => ({ size }));
  const source: ModelSource = {
    model: ({ x }) => model(x as Tensor),
    loss: (y) => y,
    inputs: [{ name: "x", dtype: options.dtype ?? "f32", dims }],
  };
  const item: BatchShape = { batch: 1 };
  return buildForward(source, {
    shape: { item, total: item },
    training: options.training ?? true,
    dtype: "f32",
  });
}

const names = (graph: ForwardGraph) => graph.parameters.map(({ name }) => name);
const groups = (graph: ForwardGraph) => [...new Set(graph.graph.nodes.map(({ group }) => group))];

describe("names of layers", () => {
  test("count by kind where none is given, and each layer is a group of its own", () => {
    const graph = forward(
      [2, 3],
      sequential([linear({ units: 4 }), relu(), linear({ units: 2, bias: false })]),
    );
    expect(names(graph)).toEqual(["linear0.weight", "linear0.bias", "linear1.weight"]);
    expect(groups(graph)).toEqual(["linear0", "relu0", "linear1"]);
  });

  test("are that of the group for its first layer; further layers of the group count by kind", () => {
    const graph = forward(
      [2, 3],
      sequential([
        linear({ units: 4, group: "first" }),
        dropout({ rate: 0.5, group: "first" }),
        linear({ units: 4, group: "first" }),
        linear({ units: 2, group: "first", name: "last" }),
      ]),
    );
    expect(names(graph).filter((name) => name.endsWith("weight"))).toEqual([
      "first.weight",
      "first.linear0.weight",
      "last.weight",
    ]);
    expect(groups(graph)).toEqual(["first"]);
  });

  test("never collide with names that were given", () => {
    const given = linear({ units: 3, name: "linear0" });
    expect(names(forward([2, 3], sequential([given, linear({ units: 3, bias: false })])))).toEqual([
      "linear0.weight",
      "linear0.bias",
      "linear1.weight",
    ]);
    const late = () => forward([2, 3], sequential([linear({ units: 3 }), given]));
    expect(late).toThrow(UserError);
    expect(late).toThrow(
      'two layers are called "linear0"; names must differ, or use one layer twice to share its parameters',
    );
  });

  test("of two layers must differ", () => {
    const build = () =>
      forward([2, 3], sequential([linear({ units: 3, name: "a" }), layerNorm({ name: "a" })]));
    expect(build).toThrow('two layers are called "a"');
  });

  test("a layer whose result nobody uses is refused, and what has no parameters is left out", () => {
    const [used, dropped] = [linear({ units: 2, group: "a" }), linear({ units: 3, group: "b" })];
    const build = () =>
      forward([2, 3], (x) => {
        dropped(x);
        return used(x);
      });
    expect(build).toThrow(
      'the loss does not depend on all parameters of the model: group "b": b.weight, b.bias: use what is computed with them, or leave the layer out',
    );
    const { graph } = forward([2, 3], (x) => {
      f.exp(x);
      return used(x);
    });
    expect(graph.nodes.map(({ op }) => op.kind)).not.toContain("exp");
  });

  test("start afresh for every graph that is built from the same layers", () => {
    const model = sequential([linear({ units: 3 }), linear({ units: 3 })]);
    expect(names(forward([2, 3], model))).toEqual(names(forward([4, 3], model)));
  });
});

describe("groups", () => {
  test("nest: a layer in a group stays there unless it has a group of its own", () => {
    const inner = sequential([linear({ units: 3 }), linear({ units: 3, group: "own" })], { group: "outer" });
    expect(groups(forward([2, 3], inner))).toEqual(["outer", "own"]);
    expect(groups(forward([2, 3], residual(linear({ units: 3 }))))).toEqual(["residual0"]);
    expect(groups(forward([2, 3], residual(linear({ units: 3, group: "own" }))))).toEqual([
      "own",
      "residual0",
    ]);
    expect(groups(forward([1, 2, 4], transformerBlock({ heads: 2, group: "block" })))).toEqual(["block"]);
  });

  test("own the parameters that they used first", () => {
    const shared = linear({ units: 3, name: "shared" });
    const model = sequential([
      sequential([shared], { group: "one" }),
      sequential([shared], { group: "two" }),
    ]);
    const graph = forward([2, 3], model);
    expect(graph.parameters.map(({ name, group }) => `${name} ${group}`)).toEqual([
      "shared.weight one",
      "shared.bias one",
    ]);
    expect(groups(graph)).toEqual(["one", "two"]);
  });
});

describe("a layer used twice", () => {
  const twice = (layer: Layer) => sequential([layer, layer]);

  test.each<[string, readonly number[], Layer, number]>([
    ["linear", [2, 3], linear({ units: 3 }), 2],
    ["layer norm", [2, 3], layerNorm(), 2],
    ["attention", [1, 2, 4], attention({ heads: 2, dropout: 0.5 }), 8],
    ["a transformer block", [1, 2, 4], transformerBlock({ heads: 2 }), 16],
    ["lstm", [2, 1, 3], lstm({ units: 3, dropout: 0.5 }), 3],
    ["gru", [2, 1, 3], gru({ units: 3 }), 4],
  ])("shares its parameters: %s", (_name, shape, layer, count) => {
    const graph = forward(shape, twice(layer));
    expect(names(graph)).toHaveLength(count);
    expect(names(graph)).toEqual(names(forward(shape, layer)));
    expect(verifyGraph(graph.graph)).toEqual([]);
    const wanted = names(graph);
    const { gradients } = differentiate(graph.graph, [{ output: "loss", gradient: "one" }], wanted);
    expect(gradients.map(({ input }) => input)).toEqual(wanted);
  });

  test("draws a new dropout mask each time", () => {
    const drop = dropout({ rate: 0.5, name: "drop" });
    const { graph } = forward([8], (x) => f.sub(drop(x), drop(x)));
    const keys = graph.inputs.map(({ name }) => name).filter((name) => name.startsWith("key:"));
    expect(keys).toEqual(["key:drop", "key:drop#2"]);
  });

  test("carries a state for each use when time is cut", () => {
    const layer = lstm({ units: 3, name: "l" });
    const source: ModelSource = {
      model: twice(layer),
      loss: (y) => y,
      inputs: [{ name: "x", dtype: "f32", dims: ["time", "batch", { size: 3 }] }],
    };
    const shape = { item: { batch: 2, time: 2 }, total: { batch: 2, time: 4 } };
    const graph = buildForward(source, { shape, training: true, dtype: "f32" });
    expect(graph.states.map(({ name, kind }) => `${name} ${kind}`)).toEqual([
      "l.h carried",
      "l.c carried",
      "l.h#2 carried",
      "l.c#2 carried",
    ]);
    expect(verifyGraph(graph.graph)).toEqual([]);
    expect(graph.graph.outputs.map(({ name }) => name)).toEqual([
      "state:l.h",
      "state:l.c",
      "state:l.h#2",
      "state:l.c#2",
      "loss",
    ]);
  });

  test("is refused where it keeps statistics", () => {
    expect(() => forward([2, 3], twice(batchNorm({ name: "norm" })))).toThrow(
      'layer "norm" keeps the state "norm.mean" and can be used only once; make a layer of its own for each use',
    );
  });

  test("is refused where its parameters would need two shapes, naming both", () => {
    const layer = linear({ units: 4, name: "wide" });
    expect(() => forward([2, 3], twice(layer))).toThrow(
      'input "wide.weight" is used as parameter f32[4,4] in group "wide", but was declared as parameter f32[3,4] in group "wide"',
    );
  });
});

describe("evaluation", () => {
  test("has no dropout and normalises by running statistics, which it leaves alone", () => {
    const model = sequential([dropout({ rate: 0.5 }), batchNorm()]);
    const graph = forward([4, 3], model, { training: false });
    const kinds = graph.graph.nodes.map(({ op }) => op.kind);
    expect(kinds).not.toContain("dropout-mask");
    expect(kinds).not.toContain("batch-norm");
    expect(graph.graph.outputs.map(({ name }) => name)).toEqual(["loss"]);
    expect(names(graph)).toEqual(names(forward([4, 3], model)));
  });
});

describe("a mistake in a model names the layer and both shapes", () => {
  const named = { name: "here", group: "part" };
  test.each<[string, readonly number[], Layer, string]>([
    [
      "linear",
      [3],
      linear({ ...named, units: 2 }),
      'linear "here" expects [samples, ..., features], got [3]',
    ],
    ["lstm", [2, 3], lstm({ ...named, units: 2 }), 'lstm "here" expects [time, batch, features], got [2,3]'],
    ["gru", [2, 3], gru({ ...named, units: 2 }), 'gru "here" expects [time, batch, features], got [2,3]'],
    [
      "a residual lstm",
      [2, 3, 4],
      lstm({ ...named, units: 2, residual: true }),
      'lstm "here" cannot add its input of width 4 to its output of width 2; make them equal',
    ],
    [
      "residual",
      [2, 3],
      residual(linear({ units: 1 }), named),
      'residual "here" cannot add its input [2,3] to the output [2,1] of linear; make them equal',
    ],
    [
      "embedding",
      [2, 3],
      embedding({ ...named, vocabulary: 5, dim: 2 }),
      'embedding "here" expects whole numbers (i32), got f32[2,3]',
    ],
    [
      "a tied decoder",
      [2, 3],
      embedding({ ...named, vocabulary: 5, dim: 2 }).decode,
      'the decoder of embedding "here" with a table of [5,2] expects [..., 2], got [2,3]',
    ],
    [
      "attention",
      [2, 3],
      attention({ ...named, heads: 2 }),
      'attention "here" expects [batch, time, features], got [2,3]',
    ],
    [
      "heads",
      [1, 2, 3],
      attention({ ...named, heads: 2 }),
      'attention "here": 2 heads do not divide the width 3 of [1,2,3]',
    ],
    [
      "a block",
      [2, 3],
      transformerBlock({ ...named, heads: 3 }),
      'attention "here.attention" expects [batch, time, features]',
    ],
    [
      "positions",
      [1, 9, 2],
      positionEmbedding({ ...named, length: 8 }),
      'positionEmbedding "here" has 8 positions, the sequence 9',
    ],
    [
      "convolution",
      [2, 3],
      convolution({ ...named, channels: 2, kernel: 3 }),
      'convolution "here" expects [samples, channels, height, width], got [2,3]',
    ],
    [
      "a kernel larger than the image",
      [1, 2, 3, 3],
      convolution({ ...named, channels: 2, kernel: 5 }),
      'conv2d in layer "here" of group "part": the kernel [5,5] with dilation [1,1] covers [5,5] elements, but the input [3,3]',
    ],
    [
      "max pooling",
      [2, 3],
      maxPool({ ...named, kernel: 2 }),
      'max-pool in layer "here" of group "part": expects the input as floats [N, C, H, W], got f32[2,3]',
    ],
    ["average pooling", [2, 3], avgPool({ ...named, kernel: 2 }), 'avg-pool in layer "here" of group "part"'],
    ["batch norm", [2], batchNorm(named), 'batchNorm "here" expects [samples, channels, ...], got [2]'],
  ])("%s", (_what, shape, layer, message) => {
    const build = () => forward(shape, layer);
    expect(build).toThrow(UserError);
    expect(build).toThrow(message);
  });

  test("also where the layer's input has the wrong element type", () => {
    expect(() => forward([2, 3], linear({ units: 2, name: "here" }), { dtype: "i32" })).toThrow(
      'matmul in layer "here": i32[2,3] x f32[3,2]: the element types differ',
    );
  });

  test("or the tensor is not of this model", () => {
    const stray = new GraphBuilder().input("x", "data", { dtype: "f32", shape: [2] });
    expect(() => relu()(stray)).toThrow("layers work on the tensors that a model function is given");
    const kept: Tensor[] = [];
    forward([2], (x) => {
      kept.push(x);
      return x;
    });
    expect(() => forward([2], (x) => f.add(x, kept[0] as Tensor))).toThrow(
      "an operand belongs to another graph",
    );
  });
});

describe("options that make no layer are refused, all at once", () => {
  test.each<[string, () => unknown, string]>([
    [
      "embedding",
      () => embedding({ vocabulary: 0, dim: -1 }),
      "vocabulary must be a positive whole number, got 0\n  - dim must be a positive whole number, got -1",
    ],
    [
      "linear",
      () => linear({ units: 1.5 }),
      'cannot make a layer "linear": units must be a positive whole number, got 1.5',
    ],
    [
      "dropout",
      () => dropout({ rate: 1 }),
      'cannot make a layer "dropout": rate must be at least 0 and below 1, got 1',
    ],
    [
      "lstm",
      () => lstm({ units: 2, dropout: Number.NaN }),
      "dropout must be at least 0 and below 1, got NaN",
    ],
    [
      "transformer",
      () => transformerBlock({ heads: 0 }),
      'cannot make a layer "transformerBlock": heads must be',
    ],
    [
      "convolution",
      () => convolution({ channels: 2, kernel: [3, 0] }),
      "kernel must be a positive whole number, got 0",
    ],
    ["sequential", () => sequential([]), "a sequential model needs at least one layer"],
  ])("%s", (_kind, make, message) => {
    expect(make).toThrow(UserError);
    expect(make).toThrow(message);
  });
});

describe("a model", () => {
  const specs: InputSpec[] = ["a", "b", "targets"].map((name) => ({
    name,
    dtype: "f32",
    dims: ["batch", { size: 2 }],
  }));
  const shape = { item: { batch: 4 }, total: { batch: 4 } };
  const build = (source: ModelSource) => buildForward(source, { shape, training: true, dtype: "f32" });

  test("made of layers takes one input", () => {
    expect(() => build({ model: linear({ units: 2 }), loss: "mean-squared-error", inputs: specs })).toThrow(
      "a model made of layers takes one data input, but the data set has a, b; write the model as a function of the inputs",
    );
    expect(() => build({ model: flatten(), loss: "mean-squared-error", inputs: specs.slice(2) })).toThrow(
      "the data set has none",
    );
  });

  test("may have several inputs; its loss counts one target for each sample", () => {
    const graph = build({
      model: ({ a, b }) => linear({ units: 2 })(f.mul(a as Tensor, b as Tensor)),
      loss: "mean-squared-error",
      inputs: specs,
    });
    expect(graph.targets).toBe(4);
    expect(verifyGraph(graph.graph)).toEqual([]);
  });

  test("needs targets of the output's shape for a named loss", () => {
    const model = linear({ units: 3 });
    const inputs = [specs[0] as InputSpec, specs[2] as InputSpec];
    expect(() => build({ model, loss: "mean-squared-error", inputs })).toThrow(
      "mean-squared-error: the output [4,3] and the targets [4,2] must have the same shape",
    );
    expect(() => build({ model, loss: "cross-entropy", inputs: inputs.slice(0, 1) })).toThrow(
      'the loss needs a data input "targets"; the data set has a',
    );
    expect(() => build({ model, loss: "hinge" as never, inputs })).toThrow(
      'unknown loss "hinge"; known are "cross-entropy" and "mean-squared-error"',
    );
    expect(() => build({ model, loss: "cross-entropy", inputs })).toThrow(
      'cross-entropy in group "linear0": logits f32[4,3] need i32 targets of shape [4], got f32[4,2]',
    );
  });

  test("starts its weights, and not its biases, as the job says", () => {
    const source: ModelSource = {
      model: sequential([linear({ units: 2 }), layerNorm()]),
      loss: (y) => y,
      inputs: specs.slice(0, 1),
    };
    const initializer = uniformWithin(0.1);
    const { parameters } = buildForward(source, { shape, training: true, dtype: "f32", initializer });
    expect(parameters.map(({ name, initializer: chosen }) => [name, chosen.kind])).toEqual([
      ["linear0.weight", "uniform"],
      ["linear0.bias", "constant"],
      ["layerNorm0.scale", "constant"],
      ["layerNorm0.shift", "constant"],
    ]);
    expect(parameters[0]?.initializer).toEqual(initializer);
  });
});
