/**
 * MXNet's eight-layer LSTM in a size that can be watched while it learns (`npm start`). What differs from `examples/mxnet-lstm`, and why:
 * narrower layers, for time; residual connections, because eight plain layers learn nothing for a long while; Adam, because SGD with
 * rate 0.1 would need hours; no dropout, because one epoch cannot overfit.
 */

import { adam, defineJob, nn, warmUp } from "paraxis";
import { words } from "paraxis/node";

const vocabulary = 10_000;
const units = 192;

export default defineJob({
  model: nn.sequential([
    nn.embedding({ vocabulary, dim: units, group: "embed" }),
    ...Array.from({ length: 8 }, (_, i) => nn.lstm({ units, residual: true, group: `layer${i}` })),
    nn.linear({ units: vocabulary, group: "decode" }),
  ]),
  loss: "cross-entropy",
  optimizer: adam({ rate: warmUp(20, 0.004), clipNorm: 1 }),
  data: words("moby-dick", { batch: 20, vocabulary, buckets: [8, 16, 24, 32, 60] }),
  epochs: 1,
});
