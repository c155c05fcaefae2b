import { expect, test } from "vitest";
import { boundaryBytes, flowsOf, incomingBytes, stepFlows } from "../../src/cost/flow.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import type { ModelSource } from "../../src/model/forward.ts";
import { embedding } from "../../src/model/layers/basic.ts";
import { lstm } from "../../src/model/layers/recurrent.ts";
import { languageModel, stepOf, textInputs } from "./models.ts";

const [time, batch, dim, units] = [4, 3, 8, 16];

test("at each boundary of a chain the layer's output goes forward and its gradient comes back", () => {
  const step = stepOf(languageModel({ vocabulary: 20, dim, units, layers: 2 }), { batch, time });
  const order = ["embed", "layer0", "layer1", "decode"];
  const width = 2 * 4 * time * batch;
  expect(boundaryBytes(stepFlows(step), order)).toEqual([width * dim, width * units, width * units]);
});

test("a flow names the groups, the operation and the type", () => {
  const step = stepOf(languageModel({ vocabulary: 20, dim, units, layers: 1 }), { batch, time });
  const forward = flowsOf(step.item).filter(({ phase }) => phase === "F");
  expect(forward.map(({ from, to, tensor }) => `${from} -> ${to}: ${tensor}`)).toEqual([
    "embed -> layer0: gather f32[4,3,8]",
    "layer0 -> decode: lstm f32[4,3,16]",
  ]);
});

test("a tied table flows to its second user and its gradient back, once in a step", () => {
  const embed = embedding({ vocabulary: 20, dim, group: "embed" });
  const layer = lstm({ units: dim, group: "layer" });
  const source: ModelSource = {
    model: (inputs: { readonly [name: string]: Tensor }) =>
      embed.decode(layer(embed(inputs["tokens"] as Tensor))),
    loss: "cross-entropy",
    inputs: textInputs,
  };
  const tied = stepFlows(stepOf(source, { batch, time })).filter(({ phase }) => phase === "U");
  expect(tied.map(({ from, to, bytes }) => [from, to, bytes])).toEqual([
    ["decode0", "embed", 4 * 20 * dim],
    ["embed", "decode0", 4 * 20 * dim],
  ]);
});

test("a value that two groups of a place use arrives there once", () => {
  const flow = { from: "a", value: "%1", bytes: 100, phase: "F", tensor: "add f32[25]" } as const;
  const flows = [
    { ...flow, to: "b" },
    { ...flow, to: "c" },
  ];
  expect(incomingBytes(flows, new Set(["b", "c"]))).toBe(100);
  expect(incomingBytes(flows, new Set(["b"]))).toBe(100);
  expect(incomingBytes(flows, new Set(["a", "b"]))).toBe(0);
});
