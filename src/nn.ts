/** The layers, as `nn` of the package. */

export {
  type AttentionOptions,
  attention,
  positionEmbedding,
  type TransformerOptions,
  transformerBlock,
} from "./model/layers/attention.ts";
export {
  activation,
  type BatchNormOptions,
  batchNorm,
  dropout,
  type Embedding,
  type EmbeddingOptions,
  embedding,
  flatten,
  gelu,
  type LinearOptions,
  layerNorm,
  linear,
  relu,
  residual,
  sequential,
  sigmoid,
  tanh,
} from "./model/layers/basic.ts";
export {
  avgPool,
  type ConvolutionOptions,
  convolution,
  maxPool,
  type PoolOptions,
} from "./model/layers/convolution.ts";
export { gru, lstm, type RecurrentOptions } from "./model/layers/recurrent.ts";
