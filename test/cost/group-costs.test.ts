import { expect, test } from "vitest";
import { type GroupCost, groupCosts } from "../../src/cost/group-costs.ts";
import { typicalRates } from "../../src/cost/node-work.ts";
import type { ModelSource } from "../../src/model/forward.ts";
import { linear, sequential } from "../../src/model/layers/basic.ts";
import { convolution } from "../../src/model/layers/convolution.ts";
import { gru } from "../../src/model/layers/recurrent.ts";
import { adam } from "../../src/model/optimizer.ts";
import { languageModel, mainModel, stepOf } from "./models.ts";

function costsOf(...given: Parameters<typeof stepOf>): ReadonlyMap<string, GroupCost> {
  return new Map(groupCosts(stepOf(...given), typicalRates).map((cost) => [cost.group, cost]));
}

/** Within `share` above the closed form of the products: activations and biases add a little. */
function expectSlightlyAbove(value: number | undefined, products: number, share: number): void {
  expect(value).toBeGreaterThanOrEqual(products);
  expect(value).toBeLessThanOrEqual(products * (1 + share));
}

test("an LSTM layer costs 2·T·B·4H·(I+H) operations in each of F, B and W", () => {
  const [time, batch, dim, units] = [32, 20, 200, 400];
  const costs = costsOf(languageModel({ vocabulary: 50, dim, units, layers: 2 }), { batch, time });
  for (const [group, width] of [
    ["layer0", dim],
    ["layer1", units],
  ] as const) {
    const products = 2 * time * batch * 4 * units * (width + units);
    const { flops } = costs.get(group) as GroupCost;
    expectSlightlyAbove(flops.F, products, 0.001);
    expectSlightlyAbove(flops.B, products, 0.001);
    expectSlightlyAbove(flops.W, products, 0.001);
  }
});

test("a GRU layer costs 2·T·B·3H·(I+H) operations in each of F, B and W", () => {
  const [time, batch, width, units] = [16, 8, 120, 160];
  const source: ModelSource = {
    model: sequential([linear({ units: width, group: "in" }), gru({ units, group: "gru" })]),
    loss: (y) => y,
    inputs: [{ name: "x", dtype: "f32", dims: ["time", "batch", { size: 4 }] }],
  };
  const { flops } = costsOf(source, { batch, time }).get("gru") as GroupCost;
  const products = 2 * time * batch * 3 * units * (width + units);
  for (const phase of ["F", "B", "W"] as const) expectSlightlyAbove(flops[phase], products, 0.01);
});

test("a linear layer costs 2·samples·in·out operations in each of F, B and W; the first has no B", () => {
  const source: ModelSource = {
    model: sequential([linear({ units: 300, group: "a" }), linear({ units: 70, group: "b" })]),
    loss: "mean-squared-error",
    inputs: [
      { name: "x", dtype: "f32", dims: ["batch", { size: 500 }] },
      { name: "targets", dtype: "f32", dims: ["batch", { size: 70 }] },
    ],
  };
  const costs = costsOf(source, { batch: 64 });
  const [a, b] = [costs.get("a") as GroupCost, costs.get("b") as GroupCost];
  expectSlightlyAbove(a.flops.F, 2 * 64 * 500 * 300, 0.01);
  expectSlightlyAbove(a.flops.W, 2 * 64 * 500 * 300, 0.01);
  expect(a.flops.B).toBe(0);
  for (const phase of ["F", "B", "W"] as const) expectSlightlyAbove(b.flops[phase], 2 * 64 * 300 * 70, 0.02);
});

test("a convolution costs 2·N·O·H·W·C·kh·kw operations in each of F, B and W", () => {
  const source: ModelSource = {
    model: sequential([
      convolution({ channels: 16, kernel: 3, padding: 1, group: "first" }),
      convolution({ channels: 24, kernel: 3, padding: 1, group: "second" }),
    ]),
    loss: (y) => y,
    inputs: [{ name: "x", dtype: "f32", dims: ["batch", { size: 3 }, { size: 10 }, { size: 12 }] }],
  };
  const { flops } = costsOf(source, { batch: 5 }).get("second") as GroupCost;
  const products = 2 * 5 * 24 * 10 * 12 * 16 * 9;
  for (const phase of ["F", "B", "W"] as const) expectSlightlyAbove(flops[phase], products, 0.01);
});

test("bytes of parameters, gradients and optimizer state follow from the shapes", () => {
  const costs = costsOf(
    languageModel({ vocabulary: 100, dim: 8, units: 16, layers: 1 }),
    { batch: 2, time: 4 },
    { optimizer: adam({ rate: 0.001 }) },
  );
  const layer = 4 * (4 * 16 * 8 + 4 * 16 * 16 + 4 * 16);
  expect(costs.get("layer0")).toMatchObject({
    parameterBytes: layer,
    gradientBytes: layer,
    optimizerBytes: 2 * layer,
  });
  expect(costs.get("embed")?.parameterBytes).toBe(4 * 100 * 8);
  expect(costs.get("decode")?.parameterBytes).toBe(4 * (16 * 100 + 100));
});

test("an LSTM layer keeps its input and seven tensors [T, B, H] from F to backward, and dz [T, B, 4H] from B to W", () => {
  const [time, batch, units] = [6, 3, 16];
  const costs = costsOf(languageModel({ vocabulary: 20, dim: 16, units, layers: 2 }), { batch, time });
  expect(costs.get("layer1")?.savedBytes).toBe(4 * time * batch * units * (1 + 7 + 4));
});

test("the decoder of the main model costs about as much as three LSTM layers", () => {
  const costs = costsOf(mainModel, { batch: 20, time: 32 });
  const [layer, decode] = [costs.get("layer4") as GroupCost, costs.get("decode") as GroupCost];
  const ratio = decode.flops.F / layer.flops.F;
  expect(ratio).toBeGreaterThan((2 * 400 * 10_000) / (8 * 400 * 800));
  expect(ratio).toBeLessThan(3.3);
});
