/** A convolutional network on handwritten digits: every layer that sees an image can be split by its height. */

import { accuracy, adam, cosineRate, defineJob, nn } from "paraxis";
import { digits } from "./digits.ts";

const data = digits(50);
const epochs = 12;

export default defineJob({
  model: nn.sequential([
    nn.convolution({ channels: 16, kernel: 5, padding: "same", group: "conv1" }),
    nn.relu({ group: "conv1" }),
    nn.maxPool({ kernel: 2, group: "conv1" }),
    nn.convolution({ channels: 32, kernel: 5, padding: "same", group: "conv2" }),
    nn.relu({ group: "conv2" }),
    nn.maxPool({ kernel: 2, group: "conv2" }),
    nn.flatten({ group: "hidden" }),
    nn.dropout({ rate: 0.4, group: "hidden" }),
    nn.linear({ units: 128, group: "hidden" }),
    nn.relu({ group: "hidden" }),
    nn.linear({ units: 10, group: "classes" }),
  ]),
  loss: "cross-entropy",
  metrics: { accuracy },
  optimizer: adam({ rate: cosineRate(0.002, { steps: epochs * data.batchesPerEpoch }) }),
  data,
  epochs,
});
