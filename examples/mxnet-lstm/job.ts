/** MXNet's model-parallel LSTM example: a word-level language model with eight LSTM layers, as that example configures it. */

import { defineJob, nn, sgd, uniformWithin } from "paraxis";
import { words } from "paraxis/node";

const vocabulary = 10_000;

export default defineJob({
  model: nn.sequential([
    nn.embedding({ vocabulary, dim: 200, group: "embed" }),
    ...Array.from({ length: 8 }, (_, i) => nn.lstm({ units: 400, dropout: 0.5, group: `layer${i}` })),
    nn.linear({ units: vocabulary, group: "decode" }),
  ]),
  loss: "cross-entropy",
  optimizer: sgd({ rate: 0.1, clipNorm: 5 }),
  initializer: uniformWithin(0.1),
  data: words("moby-dick", { batch: 20, vocabulary, buckets: [8, 16, 24, 32, 60] }),
});
