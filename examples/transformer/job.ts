/** A small GPT (Radford et al. 2019) on the characters of Moby-Dick: four blocks of width 128 with four heads, windows of 64 characters. */

import { adamW, cosineRate, defineJob, nn, warmUp } from "paraxis";
import { characters } from "paraxis/node";

const time = 64;
const width = 128;

const data = characters("moby-dick", {
  batch: 16,
  time,
  major: "batch",
  order: "shuffled",
  validationShare: 0.01,
});
const vocabulary = data.vocabulary?.tokens.length ?? 0;
const rate = warmUp(50, cosineRate(0.003, { steps: data.batchesPerEpoch - 50, final: 0.0003 }));

export default defineJob({
  model: nn.sequential([
    nn.embedding({ vocabulary, dim: width, group: "embed" }),
    nn.positionEmbedding({ length: time, group: "embed" }),
    ...Array.from({ length: 4 }, (_, i) =>
      nn.transformerBlock({ heads: 4, causal: true, group: `block${i}` }),
    ),
    nn.layerNorm({ group: "decode", name: "norm" }),
    nn.linear({ units: vocabulary, group: "decode" }),
  ]),
  loss: "cross-entropy",
  optimizer: adamW({ rate, weightDecay: 0.01, clipNorm: 1 }),
  data,
  epochs: 1,
});
