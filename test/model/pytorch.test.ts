import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import type { InputSpec } from "../../src/data/dataset.ts";
import { add, constant, lstm as lstmOf, mul, sum } from "../../src/graph/functions.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { buildForward, type ForwardGraph, type ModelSource } from "../../src/model/forward.ts";
import { zeros } from "../../src/model/initializer.ts";
import { attention, transformerBlock } from "../../src/model/layers/attention.ts";
import { batchNorm, embedding, layerNorm, linear, sequential } from "../../src/model/layers/basic.ts";
import { lstm } from "../../src/model/layers/recurrent.ts";
import { modelOf } from "../../src/model/model-builder.ts";
import { adam, adamW, type Optimizer, sgd } from "../../src/model/optimizer.ts";
import { expectClose } from "../graph/dense.ts";
import { type PytorchCase, pytorchCases } from "../graph/pytorch-cases.ts";
import { dense, mapped } from "../graph/shapes.ts";
import { train } from "./training.ts";

const inputOf = (name: string, dtype: "f32" | "i32", ...dims: InputSpec["dims"]): InputSpec => ({
  name,
  dtype,
  dims,
});
const fixed = (shape: readonly number[]): InputSpec["dims"] => shape.map((size) => ({ size }));

function forward(source: ModelSource, batch: number, time?: number, training = true): ForwardGraph {
  const shape = time === undefined ? { batch } : { batch, time };
  return buildForward(source, { shape: { item: shape, total: shape }, training, dtype: "f64" });
}

/** The transpose of a matrix: PyTorch's linear layers keep [out, in]. */
function transposed({ shape, data }: Dense): Dense {
  const [rows, columns] = shape as [number, number];
  return {
    shape: [columns, rows],
    data: data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)] as number),
  };
}

/** Rows `from` to `to` of a matrix, or elements of a vector. */
function rows({ shape, data }: Dense, from: number, to: number): Dense {
  const width = data.length / (shape[0] as number);
  return { shape: [to - from, ...shape.slice(1)], data: data.slice(from * width, to * width) };
}

function sumOf(a: Dense, b: Dense): Dense {
  return { shape: a.shape, data: a.data.map((value, i) => value + (b.data[i] as number)) };
}

type Read = (name: string) => Dense;

/** Parameters of an attention layer `ours` from the case's tensors, whose names start with `theirs`. */
function attentionParameters(read: Read, ours: string, theirs: string, width: number): [string, Dense][] {
  const parts = ["query", "key", "value"].flatMap((part, i): [string, Dense][] => [
    [`${ours}.${part}.weight`, transposed(rows(read(`${theirs}in_proj_weight`), i * width, (i + 1) * width))],
    [`${ours}.${part}.bias`, rows(read(`${theirs}in_proj_bias`), i * width, (i + 1) * width)],
  ]);
  return [
    ...parts,
    [`${ours}.output.weight`, transposed(read(`${theirs}out_proj.weight`))],
    [`${ours}.output.bias`, read(`${theirs}out_proj.bias`)],
  ];
}

function expectAll(
  got: ReadonlyMap<string, Dense>,
  expected: Iterable<readonly [string, Dense]>,
  tolerance: number,
): void {
  for (const [name, value] of expected) expectClose(got.get(name) as Dense, value, tolerance, name);
}

describe("attention", () => {
  interface Options {
    readonly heads: number;
    readonly causal: boolean;
    readonly width: number;
  }
  test.each(pytorchCases<Options>("attention"))(
    "agrees with PyTorch: $name",
    ({ options, input, output, gradient }) => {
      const { heads, causal, width } = options;
      const dims: InputSpec["dims"] = ["batch", "time", { size: width }];
      const layer = attention({ heads, causal, name: "a" });
      const { graph, parameters } = forward(
        {
          model: ({ x }) => {
            const y = layer(x as Tensor);
            modelOf(y).output("y", y);
            return y;
          },
          loss: (y, { r }) => mul(y, r as Tensor),
          inputs: [inputOf("x", "f32", ...dims), inputOf("r", "f32", ...dims)],
        },
        2,
        5,
      );
      const names = ["x", ...parameters.map(({ name }) => name)];
      const derivative = differentiate(graph, [{ output: "loss", gradient: "one" }], names);
      const given = attentionParameters(input, "a", "", width);
      const values = evaluateGraph(
        derivative.graph,
        new Map([...given, ["x", input("x")], ["r", input("r")], ["scale:loss", dense([], 1)]]),
      );
      expectClose(values.get("y") as Dense, output("y"), 1e-12);
      expectClose(values.get("loss") as Dense, output("loss"), 1e-12);
      const gradients = new Map(names.map((name) => [name, values.get(`grad:${name}`) as Dense]));
      expectAll(gradients, [["x", gradient("x")], ...attentionParameters(gradient, "a", "", width)], 1e-11);
    },
  );
});

describe("batch norm as a layer", () => {
  interface Options {
    readonly training: boolean;
    readonly epsilon: number;
    readonly momentum: number;
  }
  test.each(pytorchCases<Options>("batch-norm"))(
    "agrees with PyTorch, running statistics included: $name",
    ({ options, input, output, gradient }) => {
      const { training, epsilon, momentum } = options;
      const { shape } = input("x");
      const dims: InputSpec["dims"] = ["batch", ...fixed(shape.slice(1))];
      const { graph } = forward(
        {
          model: ({ x }) => batchNorm({ epsilon, momentum, name: "n" })(x as Tensor),
          loss: (y, { r }) => mul(y, r as Tensor),
          inputs: [inputOf("x", "f32", ...dims), inputOf("r", "f32", ...dims)],
        },
        shape[0] as number,
        undefined,
        training,
      );
      const names = ["x", "n.scale", "n.shift"];
      const derivative = differentiate(graph, [{ output: "loss", gradient: "one" }], names);
      const given = {
        x: input("x"),
        r: input("r"),
        "n.scale": input("weight"),
        "n.shift": input("bias"),
        "state:n.mean": input("runningMean"),
        "state:n.variance": input("runningVariance"),
        "scale:loss": dense([], 1),
      };
      const values = evaluateGraph(derivative.graph, new Map(Object.entries(given)));
      expectAll(
        values,
        [
          ["loss", output("loss")],
          ["grad:x", gradient("x")],
          ["grad:n.scale", gradient("weight")],
          ["grad:n.shift", gradient("bias")],
        ],
        1e-11,
      );
      if (training) {
        expectClose(values.get("state:n.mean") as Dense, output("runningMean"), 1e-12);
        expectClose(values.get("state:n.variance") as Dense, output("runningVariance"), 1e-12);
      } else expect(values.has("state:n.mean")).toBe(false);
    },
  );
});

/** A forward graph whose parameters have exactly the gradients that are given as data inputs of the same name with "gradient:". */
function givenGradients(shapes: { readonly [parameter: string]: readonly number[] }): ForwardGraph {
  const entries = Object.entries(shapes);
  return forward(
    {
      model: (inputs) => {
        const terms = entries.map(([name, shape]) => {
          const gradient = inputs[`gradient:${name}`] as Tensor;
          return sum(mul(modelOf(gradient).parameter(name, shape, zeros), gradient));
        });
        return terms.reduce((a, b) => add(a, b));
      },
      loss: (total) => total,
      inputs: entries.map(([name, shape]) => inputOf(`gradient:${name}`, "f32", ...fixed(shape))),
    },
    1,
  );
}

describe("optimizers", () => {
  interface Options {
    readonly steps: number;
    readonly rate: number;
    readonly betas?: readonly [number, number];
    readonly epsilon?: number;
    readonly weightDecay?: number;
    readonly momentum?: number;
    readonly nesterov?: boolean;
  }
  const shapes = { weight: [3, 4], bias: [4] };
  const stateNames = { mean: "firstMoment", square: "secondMoment", momentum: "velocity" };

  function optimizerOf(subject: string, { betas, steps: _, ...options }: Options): Optimizer {
    if (subject === "sgd") return sgd(options);
    const [beta1, beta2] = betas as readonly [number, number];
    return (subject === "adam" ? adam : adamW)({ ...options, beta1, beta2 });
  }

  const cases = ["adam", "adamw", "sgd"].flatMap((subject) =>
    pytorchCases<Options>(subject).map((found) => ({ subject, title: `${subject}, ${found.name}`, found })),
  );
  test.each(cases)("agree with PyTorch after every step: $title", ({ subject, found }) => {
    const { options, input, output } = found;
    const optimizer = optimizerOf(subject, options);
    const initial = new Map([
      ["weight", input("weight")],
      ["bias", input("bias")],
      ["scale:loss", dense([], 1)],
    ]);
    const results = train(
      givenGradients(shapes),
      optimizer,
      initial,
      options.steps,
      (step) =>
        new Map(
          ["weight", "bias"].map((name) => [`gradient:${name}`, input(`${name}.gradient.${step + 1}`)]),
        ),
    );
    results.forEach(({ update }, step) => {
      for (const name of ["weight", "bias"])
        expectClose(
          update.get(name) as Dense,
          output(`${name}.${step + 1}`),
          1e-12,
          `${name} after step ${step + 1}`,
        );
    });
    const last = results.at(-1)?.update as ReadonlyMap<string, Dense>;
    for (const state of optimizer.states) {
      for (const name of ["weight", "bias"]) {
        const theirs = output(`${name}.${stateNames[state as keyof typeof stateNames]}`);
        expectClose(last.get(`${state}:${name}`) as Dense, theirs, 1e-12, `${state} of ${name}`);
      }
    }
  });

  test.each(pytorchCases<{ limit: number }>("clip-grad-norm"))(
    "clipping by the global norm agrees with PyTorch: $name",
    ({ options, input, output }) => {
      const names = ["weight", "bias", "table"];
      const zero = names.map((name): [string, Dense] => [name, mapped(input(name), () => 0)]);
      const data = names.map((name): [string, Dense] => [`gradient:${name}`, input(name)]);
      const graph = givenGradients(Object.fromEntries(names.map((name) => [name, input(name).shape])));
      const optimizer = sgd({ rate: 1, clipNorm: options.limit });
      const [result] = train(graph, optimizer, new Map([...zero, ...data, ["scale:loss", dense([], 1)]]), 1);
      expectClose(result?.update.get("norm") as Dense, output("norm"), 1e-13);
      for (const name of names)
        expectClose(
          mapped(result?.update.get(name) as Dense, (value) => -value),
          output(name),
          1e-12,
          name,
        );
    },
  );
});

interface StepOptions {
  readonly vocabulary: number;
  readonly width: number;
  readonly hidden: number;
  readonly heads: number;
  readonly inner: number;
  readonly batch: number;
  readonly steps: number;
  readonly length: number;
  readonly clip: number;
  readonly rate: number;
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly trainingSteps: number;
}

/** Data, and the scale of the loss: 1 / the number of targets that count. */
function stepData({ input }: PytorchCase<StepOptions>): [string, Dense][] {
  const targets = input("targets");
  const valid = targets.data.filter((target) => target >= 0).length;
  return [
    ["tokens", input("tokens")],
    ["targets", targets],
    ["scale:loss", dense([], 1 / valid)],
  ];
}

describe("a language model of two LSTM layers", () => {
  const [found] = pytorchCases<StepOptions>("lstm-language-model") as [PytorchCase<StepOptions>];
  const { options, input, output, gradient } = found;
  const { vocabulary, width, hidden, batch, steps, clip, rate, trainingSteps } = options;
  const inputs = [inputOf("tokens", "i32", "time", "batch"), inputOf("targets", "i32", "time", "batch")];

  /** Our tensors from PyTorch's; `read` gives parameters or gradients by their names. */
  const outer = (read: Read): [string, Dense][] => [
    ["embed.table", read("embedding.weight")],
    ["decode.weight", transposed(read("decoder.weight"))],
    ["decode.bias", read("decoder.bias")],
  ];
  const weights = (read: Read, layer: number): [string, Dense][] => [
    [`lstm${layer}.weight`, read(`lstm.weight_ih_l${layer}`)],
    [`lstm${layer}.recurrent`, read(`lstm.weight_hh_l${layer}`)],
  ];

  test("has PyTorch's loss and gradients when it is made of layers", () => {
    const model = sequential([
      embedding({ vocabulary, dim: width, name: "embed" }),
      lstm({ units: hidden }),
      lstm({ units: hidden }),
      linear({ units: vocabulary, name: "decode" }),
    ]);
    const bias = (layer: number): [string, Dense] => [
      `lstm${layer}.bias`,
      sumOf(input(`lstm.bias_ih_l${layer}`), input(`lstm.bias_hh_l${layer}`)),
    ];
    const given = [
      ...outer(input),
      ...weights(input, 0),
      ...weights(input, 1),
      bias(0),
      bias(1),
      ...stepData(found),
    ];
    const [result] = train(
      forward({ model, loss: "cross-entropy", inputs }, batch, steps),
      sgd({ rate }),
      new Map(given),
      1,
    );
    const expected = [
      ...outer(gradient),
      ...weights(gradient, 0),
      ...weights(gradient, 1),
      ...[0, 1].map((layer): [string, Dense] => [`lstm${layer}.bias`, gradient(`lstm.bias_ih_l${layer}`)]),
    ];
    expectClose(result?.item.get("loss") as Dense, output("loss.1"), 1e-13);
    expectAll(
      result?.item ?? new Map(),
      expected.map(([name, value]) => [`grad:${name}`, value]),
      1e-11,
    );
  });

  test("follows PyTorch through three whole steps with clipping, when each layer has PyTorch's two biases", () => {
    const layer = (x: Tensor, name: string): Tensor => {
      const builder = modelOf(x);
      const [time, count, features] = x.shape as [number, number, number];
      expect([time, count]).toEqual([steps, batch]);
      const parameter = (part: string, ...shape: number[]) =>
        builder.parameter(`${name}.${part}`, shape, zeros);
      const state = constant(builder, x.dtype, [batch, hidden], 0);
      return lstmOf({
        x,
        w: parameter("weight", 4 * hidden, features),
        u: parameter("recurrent", 4 * hidden, hidden),
        b: add(parameter("bias", 4 * hidden), parameter("recurrentBias", 4 * hidden)),
        h0: state,
        c0: state,
      })[0];
    };
    const model: ModelSource["model"] = ({ tokens }) => {
      const embedded = embedding({ vocabulary, dim: width, name: "embed" })(tokens as Tensor);
      const logits = linear({ units: vocabulary, name: "decode" })(layer(layer(embedded, "lstm0"), "lstm1"));
      modelOf(logits).output("logits", logits);
      return logits;
    };
    const all = (read: Read): [string, Dense][] => [
      ...outer(read),
      ...[0, 1].flatMap((l): [string, Dense][] => [
        ...weights(read, l),
        [`lstm${l}.bias`, read(`lstm.bias_ih_l${l}`)],
        [`lstm${l}.recurrentBias`, read(`lstm.bias_hh_l${l}`)],
      ]),
    ];
    const results = train(
      forward({ model, loss: "cross-entropy", inputs }, batch, steps),
      sgd({ rate, clipNorm: clip }),
      new Map([...all(input), ...stepData(found)]),
      trainingSteps,
    );
    expectClose(results[0]?.item.get("logits") as Dense, output("logits.1"), 1e-12);
    expectAll(
      results[0]?.item ?? new Map(),
      all(gradient).map(([name, value]) => [`grad:${name}`, value]),
      1e-11,
    );
    results.forEach(({ item, update }, step) => {
      expectClose(item.get("loss") as Dense, output(`loss.${step + 1}`), 1e-12);
      expectClose(update.get("norm") as Dense, output(`norm.${step + 1}`), 1e-12);
    });
    for (const step of [1, 3])
      expectAll(
        results[step - 1]?.update ?? new Map(),
        all((name) => output(`${name}.${step}`)),
        1e-12,
      );
  });
});

test("a transformer block follows PyTorch through three whole steps of AdamW", () => {
  const [found] = pytorchCases<StepOptions>("transformer-step") as [PytorchCase<StepOptions>];
  const { options, input, output, gradient } = found;
  const { vocabulary, width, heads, inner, batch, length, rate, epsilon, weightDecay, trainingSteps } =
    options;
  const [beta1, beta2] = options.betas;
  const body = sequential([
    embedding({ vocabulary, dim: width, name: "embed" }),
    transformerBlock({ heads, causal: true, expansion: inner / width, name: "block" }),
    layerNorm({ name: "norm3" }),
    linear({ units: vocabulary, name: "decode" }),
  ]);
  const source: ModelSource = {
    model: ({ tokens }) => {
      const logits = body(tokens as Tensor);
      modelOf(logits).output("logits", logits);
      return logits;
    },
    loss: "cross-entropy",
    inputs: [inputOf("tokens", "i32", "batch", "time"), inputOf("targets", "i32", "batch", "time")],
  };
  const pair = (read: Read, ours: string, theirs: string): [string, Dense][] => [
    [`${ours}.weight`, transposed(read(`${theirs}.weight`))],
    [`${ours}.bias`, read(`${theirs}.bias`)],
  ];
  const norm = (read: Read, ours: string, theirs: string): [string, Dense][] => [
    [`${ours}.scale`, read(`${theirs}.weight`)],
    [`${ours}.shift`, read(`${theirs}.bias`)],
  ];
  const all = (read: Read): [string, Dense][] => [
    ["embed.table", read("embedding.weight")],
    ...norm(read, "block.norm1", "norm1"),
    ...attentionParameters(read, "block.attention", "attention.", width),
    ...norm(read, "block.norm2", "norm2"),
    ...pair(read, "block.up", "up"),
    ...pair(read, "block.down", "down"),
    ...norm(read, "norm3", "norm3"),
    ...pair(read, "decode", "decoder"),
  ];
  const graph = forward(source, batch, length);
  expect(graph.parameters.map(({ name }) => name).toSorted()).toEqual(
    all(input)
      .map(([name]) => name)
      .toSorted(),
  );
  const optimizer = adamW({ rate, beta1, beta2, epsilon, weightDecay });
  const results = train(graph, optimizer, new Map([...all(input), ...stepData(found)]), trainingSteps);
  expectClose(results[0]?.item.get("logits") as Dense, output("logits.1"), 1e-12);
  expectAll(
    results[0]?.item ?? new Map(),
    all(gradient).map(([name, value]) => [`grad:${name}`, value]),
    1e-11,
  );
  results.forEach(({ item, update }, step) => {
    expectClose(item.get("loss") as Dense, output(`loss.${step + 1}`), 1e-12);
    expectClose(update.get("norm") as Dense, output(`norm.${step + 1}`), 1e-12);
  });
  for (const step of [1, 3])
    expectAll(
      results[step - 1]?.update ?? new Map(),
      all((name) => output(`${name}.${step}`)),
      1e-11,
    );
});
