/** The smallest job: a curve from numbers in memory, in a second. */

import { adam, arrays, defineJob, nn } from "paraxis";

const samples = 512;
const x = Float32Array.from({ length: samples }, (_, i) => (2 * i) / samples - 1);

export default defineJob({
  model: nn.sequential([
    nn.linear({ units: 32, group: "hidden" }),
    nn.tanh({ group: "hidden" }),
    nn.linear({ units: 1, group: "output" }),
  ]),
  loss: "mean-squared-error",
  optimizer: adam({ rate: 0.01 }),
  data: arrays({
    features: { dtype: "f32", shape: [samples, 1], data: x },
    targets: { dtype: "f32", shape: [samples, 1], data: x.map((value) => Math.sin(Math.PI * value)) },
  }),
  epochs: 40,
});
