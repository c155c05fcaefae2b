/** A language model whose embedding is also its decoder: the model is a function, and one table is used twice. */

import { adam, defineJob, nn, type Tensor } from "paraxis";
import { words } from "paraxis/node";

const vocabulary = 1_000;
const width = 64;

const embed = nn.embedding({ vocabulary, dim: width, group: "embed" });
const recurrent = nn.lstm({ units: width, residual: true, group: "layer0" });
const normalise = nn.layerNorm({ group: "layer0", name: "norm" });

function model({ tokens }: { readonly [input: string]: Tensor }): Tensor {
  return embed.decode(normalise(recurrent(embed(tokens as Tensor))));
}

export default defineJob({
  model,
  loss: "cross-entropy",
  optimizer: adam({ rate: 0.005, clipNorm: 1 }),
  data: words("moby-dick", { vocabulary, buckets: [16, 32], batch: 20 }),
  steps: 100,
});
