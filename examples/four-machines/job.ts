/**
 * The picture of Ekanayake's "Model Parallelism in Deep Learning is NOT What You Think" (2018): four layers on four machines. M1 and M3
 * hold the two halves of the first two layers, M2 and M4 those of the next two.
 *
 *             layer1  layer2      layer3  layer4
 *     M1      [ upper half  ]     [ upper half ]      M2
 *     M3      [ lower half  ]     [ lower half ]      M4
 */

import { accuracy, adam, cosineRate, defineJob, nn } from "paraxis";
import { digits } from "../mnist-domain/digits.ts";

const data = digits(100);
const epochs = 5;

export default defineJob({
  model: nn.sequential([
    nn.flatten({ group: "layer1" }),
    nn.linear({ units: 1024, group: "layer1" }),
    nn.relu({ group: "layer1" }),
    nn.linear({ units: 1024, group: "layer2" }),
    nn.relu({ group: "layer2" }),
    nn.linear({ units: 2048, group: "layer3" }),
    nn.relu({ group: "layer3" }),
    nn.linear({ units: 10, group: "layer4" }),
  ]),
  loss: "cross-entropy",
  metrics: { accuracy },
  optimizer: adam({ rate: cosineRate(0.001, { steps: epochs * data.batchesPerEpoch }) }),
  data,
  epochs,
});
