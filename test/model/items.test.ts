import { describe, expect, test } from "vitest";
import { stateNames, trainingStep } from "../../src/autodiff/training-step.ts";
import { deriveKey } from "../../src/base/random.ts";
import type { BatchShape, InputSpec } from "../../src/data/dataset.ts";
import * as f from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { stridesOf, type TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { buildForward, type ModelSource } from "../../src/model/forward.ts";
import type { ModelFunction } from "../../src/model/layer.ts";
import { attention, positionEmbedding, transformerBlock } from "../../src/model/layers/attention.ts";
import {
  batchNorm,
  dropout,
  embedding,
  flatten,
  linear,
  relu,
  sequential,
} from "../../src/model/layers/basic.ts";
import { convolution, maxPool } from "../../src/model/layers/convolution.ts";
import { gru, lstm } from "../../src/model/layers/recurrent.ts";
import { modelOf } from "../../src/model/model-builder.ts";
import { sgd } from "../../src/model/optimizer.ts";
import { expectClose, randomDense } from "../graph/dense.ts";
import { dense, integers } from "../graph/shapes.ts";

interface Item {
  readonly batch: number;
  readonly time: number;
  readonly size: { readonly batch: number; readonly time: number };
}

const tokens: InputSpec = { name: "tokens", dtype: "i32", dims: ["time", "batch"] };
const sentence: InputSpec = { name: "tokens", dtype: "i32", dims: ["batch", "time"] };
const text = [tokens, { ...tokens, name: "targets" }];
const sentences = [sentence, { ...sentence, name: "targets" }];
const images: readonly InputSpec[] = [
  { name: "x", dtype: "f32", dims: ["batch", { size: 2 }, { size: 4 }, { size: 4 }] },
  { name: "targets", dtype: "i32", dims: ["batch"] },
];

const classes = linear({ units: 5, name: "classes" });
const recurrent = (layer: typeof lstm): ModelSource => ({
  model: sequential([
    embedding({ vocabulary: 5, dim: 3 }),
    layer({ units: 4, dropout: 0.4 }),
    layer({ units: 4, dropout: 0.4, residual: true }),
    dropout({ rate: 0.3 }),
    classes,
  ]),
  loss: "cross-entropy",
  inputs: text,
});

/** Joins time and batch, drops some elements there, and takes the dims apart again. */
const merged: ModelFunction = ({ tokens: words }) => {
  const x = embedding({ vocabulary: 5, dim: 4 })(words as Tensor);
  const [time, batch] = x.shape as [number, number];
  const rows = dropout({ rate: 0.5 })(f.reshape(x, [time * batch, 4]));
  const parts = dropout({ rate: 0.5 })(f.reshape(relu()(rows), [time, batch, 2, 2]));
  return classes(f.reshape(dropout({ rate: 0.5 })(f.transpose(parts, [0, 1, 3, 2])), [time, batch, 4]));
};

const positions = positionEmbedding({ length: 8 });
const body = sequential([embedding({ vocabulary: 5, dim: 4 }), positions, dropout({ rate: 0.5 }), classes]);

const models: { readonly [name: string]: { readonly source: ModelSource; readonly chunks: boolean } } = {
  "lstm with dropout": { source: recurrent(lstm), chunks: true },
  "gru with dropout": { source: recurrent(gru), chunks: true },
  "dims that are joined and taken apart": {
    source: { model: merged, loss: "cross-entropy", inputs: text },
    chunks: true,
  },
  positions: { source: { model: body, loss: "cross-entropy", inputs: sentences }, chunks: true },
  transformer: {
    source: {
      model: sequential([
        embedding({ vocabulary: 5, dim: 4 }),
        transformerBlock({ heads: 2, dropout: 0.3, causal: true }),
        classes,
      ]),
      loss: "cross-entropy",
      inputs: sentences,
    },
    chunks: false,
  },
  convolution: {
    source: {
      model: sequential([
        convolution({ channels: 3, kernel: 3, padding: "same" }),
        dropout({ rate: 0.5 }),
        maxPool({ kernel: 2 }),
        flatten(),
        dropout({ rate: 0.5 }),
        classes,
      ]),
      loss: "cross-entropy",
      inputs: images,
    },
    chunks: false,
  },
};

const total = { batch: 3, time: 4 };

function cuts(
  size: number,
  parts: readonly number[],
): readonly { readonly at: number; readonly size: number }[] {
  expect(parts.reduce((a, b) => a + b, 0)).toBe(size);
  return parts.map((part, i) => ({ at: parts.slice(0, i).reduce((a, b) => a + b, 0), size: part }));
}

/** The part of a tensor that an item sees. */
function partOf(x: Dense, dims: InputSpec["dims"], item: Item): Dense {
  const ranges = dims.map((dim, i): [number, number] => {
    if (dim !== "batch" && dim !== "time") return [0, x.shape[i] as number];
    return [item[dim], item[dim] + item.size[dim]];
  });
  const strides = stridesOf(x.shape);
  const inside = (element: number): boolean =>
    ranges.every(([from, to], dim) => {
      const index = Math.floor(element / (strides[dim] as number)) % (x.shape[dim] as number);
      return index >= from && index < to;
    });
  return {
    shape: ranges.map(([from, to]) => to - from),
    data: x.data.filter((_, element) => inside(element)),
  };
}

/** Values of an item graph's inputs: data are cut, parameters are the same for all items, keys are a function of their name. */
function inputsOf(
  graph: Graph,
  source: ModelSource,
  item: Item,
  carried: ReadonlyMap<string, Dense>,
): Map<string, Dense> {
  return new Map(
    graph.inputs.map(({ name, role }, value): [string, Dense] => {
      const { shape } = graph.types[value] as TensorType;
      const spec = source.inputs.find((input) => input.name === name);
      if (spec !== undefined) return [name, partOf(wholeInput(spec), spec.dims, item)];
      if (name === "scale:loss") return [name, dense([], 0.125)];
      if (name === "offset:batch") return [name, dense([], item.batch)];
      if (name === "offset:time") return [name, dense([], item.time)];
      if (name.startsWith("key:")) return [name, dense([], deriveKey(name) | 0)];
      if (role === "parameter") return [name, randomDense(shape, deriveKey(name))];
      return [name, carried.get(name) ?? { shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) }];
    }),
  );
}

function wholeInput({ name, dims, dtype }: InputSpec): Dense {
  const shape = dims.map((dim) => (typeof dim === "string" ? total[dim] : dim.size));
  return dtype === "i32" ? integers(shape, deriveKey(name) % 1000, 5) : randomDense(shape, 5);
}

/** Loss and gradients added up over all items, chunks in order and their gradients in reverse. */
function run(source: ModelSource, batches: readonly number[], chunks: readonly number[]): Map<string, Dense> {
  const sums = new Map<string, Dense>();
  for (const lane of cuts(total.batch, batches)) {
    const items = cuts(total.time, chunks).map(
      (chunk): Item => ({
        batch: lane.at,
        time: chunk.at,
        size: { batch: lane.size, time: chunk.size },
      }),
    );
    const hasTime = source.inputs.some(({ dims }) => dims.includes("time"));
    const steps = items.map(({ size }) => {
      const cut = (shape: typeof total): BatchShape => (hasTime ? shape : { batch: shape.batch });
      const shape = { item: cut(size), total: cut(total) };
      return trainingStep(buildForward(source, { shape, training: true, dtype: "f64" }), {
        optimizer: sgd({ rate: 1 }),
      });
    });
    const states: Map<string, Dense>[] = [new Map()];
    steps.forEach(({ item: graph }, i) => {
      const outputs = evaluateGraph(
        graph,
        inputsOf(graph, source, items[i] as Item, states[i] as Map<string, Dense>),
      );
      states.push(new Map([...outputs].filter(([name]) => name.startsWith("state:"))));
    });
    let arriving = new Map<string, Dense>();
    for (const [i, { item: graph, states: specs }] of [...steps.entries()].toReversed()) {
      const carried = new Map([...(states[i] as Map<string, Dense>), ...arriving]);
      const outputs = evaluateGraph(graph, inputsOf(graph, source, items[i] as Item, carried));
      arriving = new Map(
        specs.map(({ name }) => [stateNames(name).arriving, outputs.get(stateNames(name).leaving) as Dense]),
      );
      for (const [name, value] of outputs) {
        if (name.includes("state:")) continue;
        const before = sums.get(name);
        sums.set(name, { shape: value.shape, data: value.data.map((v, at) => v + (before?.data[at] ?? 0)) });
      }
    }
  }
  return sums;
}

describe("loss and gradients of all items add up to those of the whole mini-batch", () => {
  test.each(Object.entries(models))("%s", (_name, { source, chunks }) => {
    const whole = run(source, [3], [4]);
    expect(whole.size).toBeGreaterThan(2);
    for (const batches of [[3], [2, 1], [1, 1, 1]]) {
      for (const times of chunks ? [[4], [2, 2], [3, 1], [1, 1, 1, 1]] : [[4]]) {
        const sums = run(source, batches, times);
        expect([...sums.keys()].toSorted()).toEqual([...whole.keys()].toSorted());
        for (const [name, value] of whole)
          expectClose(sums.get(name) as Dense, value, 1e-11, `${name} with items [${batches}] x [${times}]`);
      }
    }
  });
});

describe("cut dims", () => {
  /** The cut parts of the output of a model, as text: `time2 | batch1 | 4`. */
  function partsAfter(inputs: readonly InputSpec[], item: BatchShape, model: (x: Tensor) => Tensor): string {
    let found = "";
    const source: ModelSource = {
      model: (given) => {
        const y = model(given[inputs[0]?.name as string] as Tensor);
        const parts = modelOf(y).partsOf(y);
        found = parts
          .map((dim) => dim.map(({ role, size }) => (role === "fixed" ? size : `${role}${size}`)).join("·"))
          .join(" | ");
        return y;
      },
      loss: (y) => y,
      inputs,
    };
    buildForward(source, { shape: { item, total }, training: true, dtype: "f64" });
    return found;
  }

  test("are followed through typical layers", () => {
    const item = { batch: 1, time: 2 };
    const embed = embedding({ vocabulary: 5, dim: 4 });
    expect(partsAfter(text, item, (x) => embed(x))).toBe("time2 | batch1 | 4");
    expect(partsAfter(text, item, sequential([embed, lstm({ units: 6 }), classes]))).toBe(
      "time2 | batch1 | 5",
    );
    expect(partsAfter(text, item, sequential([embed, gru({ units: 6 })]))).toBe("time2 | batch1 | 6");
    expect(partsAfter(text, item, (x) => f.transpose(embed(x), [1, 2, 0]))).toBe("batch1 | 4 | time2");
    expect(partsAfter(text, item, (x) => f.reshape(embed(x), [2, 4]))).toBe("time2 | batch1·4");
    expect(partsAfter(text, { batch: 2, time: 2 }, (x) => f.reshape(embed(x), [4, 4]))).toBe(
      "time2·batch2 | 4",
    );
    expect(partsAfter(text, item, (x) => f.sum(embed(x), [2]))).toBe("time2 | batch1");
    const heads = sequential([embed, attention({ heads: 2 })]);
    expect(partsAfter(sentences, { batch: 2, time: 4 }, heads)).toBe("batch2 | 4 | 4");
    const image = sequential([convolution({ channels: 3, kernel: 3 }), maxPool({ kernel: 2 }), flatten()]);
    expect(partsAfter(images, { batch: 2, time: 4 }, image)).toBe("batch2 | 3");
  });

  test("do not exist where the item is the whole mini-batch", () => {
    expect(partsAfter(text, total, embedding({ vocabulary: 5, dim: 4 }))).toBe("4 | 3 | 4");
  });

  const embed = embedding({ vocabulary: 5, dim: 4, name: "embed" });
  test.each<[string, readonly InputSpec[], BatchShape, (x: Tensor) => Tensor, string]>([
    [
      "attention over chunks of time",
      sentences,
      { batch: 3, time: 2 },
      (x) => attention({ heads: 2, name: "look", group: "g" })(embed(x)),
      'matmul in layer "look" of group "g" needs the whole time dim; this model cannot be cut into chunks of time',
    ],
    [
      "a mean over time",
      text,
      { batch: 3, time: 2 },
      (x) => f.mean(embed(x), [0]),
      'mean in group "model" needs the whole time dim; this model cannot be cut into chunks of time',
    ],
    [
      "the last step of a cut sequence",
      text,
      { batch: 3, time: 2 },
      (x) => f.sliceDim(embed(x), 0, 1, 2),
      'slice in group "model" needs the whole time dim',
    ],
    [
      "a mean over samples",
      images,
      { batch: 2, time: 4 },
      (x) => f.mean(x, [0]),
      'mean in group "model" needs the whole batch dim; this model cannot be cut into micro-batches',
    ],
  ])("are needed whole by %s", (_what, inputs, item, model, message) => {
    expect(() => partsAfter(inputs, item, model)).toThrow(message);
    expect(() => partsAfter(inputs, total, model)).not.toThrow();
  });

  test("batch norm takes the statistics of each micro-batch", () => {
    const model = sequential([convolution({ channels: 3, kernel: 3 }), batchNorm()]);
    expect(partsAfter(images, { batch: 2, time: 4 }, model)).toBe("batch2 | 3 | 2 | 2");
  });
});
