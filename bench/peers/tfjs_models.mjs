/**
 * The benchmark's three models in TensorFlow.js, written for speed: one matrix product for the inputs of all time steps, one mask
 * per dropout, a fused derivative of the loss. `tf` is the namespace of the backend in use, `ops` a table from tfjs_operations.mjs.
 */

/** A small seeded generator (mulberry32), uniform in [0, 1). */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function variable(tf, random, shape, bound) {
  const size = shape.reduce((a, b) => a * b, 1);
  const data = Float32Array.from({ length: size }, () => (2 * random() - 1) * bound);
  return tf.variable(tf.tensor(data, shape));
}

function filled(tf, shape, value) {
  return tf.variable(tf.fill(shape, value));
}

function linear(tf, random, inputs, outputs, bound = 1 / Math.sqrt(inputs)) {
  return { w: variable(tf, random, [inputs, outputs], bound), b: filled(tf, [outputs], 0) };
}

function dropout(tf, random, x, rate) {
  const scale = 1 / (1 - rate);
  const mask = Float32Array.from({ length: x.size }, () => (random() < rate ? 0 : scale));
  return tf.mul(x, tf.tensor(mask, x.shape));
}

/** x [T·B, I] to h [T·B, H], from a zero state. */
function lstmLayer(tf, ops, { w, u, b }, x, steps, batch, hidden) {
  const projected = ops.splitRows(ops.linear(x, w, b), steps);
  let h = tf.zeros([batch, hidden]);
  let c = tf.zeros([batch, hidden]);
  const outputs = projected.map((part) => {
    const [i, f, g, o] = tf.split(tf.add(part, ops.matmul(h, u)), 4, 1);
    c = tf.add(tf.mul(tf.sigmoid(f), c), tf.mul(tf.sigmoid(i), tf.tanh(g)));
    h = tf.mul(tf.sigmoid(o), tf.tanh(c));
    return h;
  });
  return tf.concat(outputs, 0);
}

function randomTokens(tf, random, vocabulary, count) {
  const tokens = Int32Array.from({ length: count }, () => Math.floor(random() * vocabulary));
  return tf.tensor1d(tokens, "int32");
}

function tokenBatches(tf, random, vocabulary, count) {
  return Array.from({ length: 8 }, () => ({
    tokens: randomTokens(tf, random, vocabulary, count),
    targets: randomTokens(tf, random, vocabulary, count),
  }));
}

/** MXNet's model-parallel LSTM; `steps` is the length of a sequence. */
export function lstm(tf, ops, random, { steps }) {
  const [vocabulary, width, hidden, layers, batch] = [10_000, 200, 400, 8, 20];
  const embedding = variable(tf, random, [vocabulary, width], 0.1);
  const stack = Array.from({ length: layers }, (_, k) => ({
    w: variable(tf, random, [k === 0 ? width : hidden, 4 * hidden], 0.1),
    u: variable(tf, random, [hidden, 4 * hidden], 0.1),
    b: variable(tf, random, [4 * hidden], 0.1),
  }));
  const decoder = linear(tf, random, hidden, vocabulary, 0.1);
  return {
    model: `embedding 200 of 10000, 8 LSTM layers of 400, dropout 0.5 between layers, decoder; T ${steps}, batch 20; SGD 0.1, clip 5`,
    unit: "tokens",
    unitsPerStep: steps * batch,
    batches: tokenBatches(tf, random, vocabulary, steps * batch),
    optimizer: tf.train.sgd(0.1),
    clip: 5,
    decay: 0,
    loss({ tokens, targets }) {
      let x = ops.lookUp(embedding, tokens);
      for (const [k, layer] of stack.entries()) {
        const input = k === 0 ? x : dropout(tf, random, x, 0.5);
        x = lstmLayer(tf, ops, layer, input, steps, batch, hidden);
      }
      return ops.crossEntropy(ops.linear(x, decoder.w, decoder.b), targets);
    },
  };
}

function layerNorm(tf, { gain, bias }, x) {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centred), -1, true);
  return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, 1e-5))), gain), bias);
}

function gelu(tf, x) {
  return tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1));
}

/** Causal self attention of `x` [N·L, W]; `mask` is [1, L, L]. */
function attention(tf, ops, block, x, { batch, length, heads, mask }) {
  const width = x.shape[1];
  const size = width / heads;
  const parts = tf.split(ops.linear(x, block.project.w, block.project.b), 3, 1);
  const [q, k, v] = parts.map((part, index) => {
    const order = index === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3];
    const dims = index === 1 ? [size, length] : [length, size];
    return tf.reshape(tf.transpose(tf.reshape(part, [batch, length, heads, size]), order), [
      batch * heads,
      ...dims,
    ]);
  });
  const scores = tf.add(tf.mul(ops.matmul(q, k), 1 / Math.sqrt(size)), mask);
  const mixed = tf.reshape(ops.matmul(tf.softmax(scores), v), [batch, heads, length, size]);
  const joined = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [batch * length, width]);
  return ops.linear(joined, block.out.w, block.out.b);
}

function transformerBlock(tf, random, width) {
  const norm = () => ({ gain: filled(tf, [width], 1), bias: filled(tf, [width], 0) });
  return {
    norm1: norm(),
    norm2: norm(),
    project: linear(tf, random, width, 3 * width),
    out: linear(tf, random, width, width),
    up: linear(tf, random, width, 4 * width),
    down: linear(tf, random, 4 * width, width),
  };
}

function causalMask(tf, length) {
  const hidden = (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0);
  return tf.tensor(Float32Array.from({ length: length * length }, hidden), [1, length, length]);
}

/** Two pre-LN blocks with learned positions and a final norm. */
export function transformer(tf, ops, random) {
  const [vocabulary, width, heads, length, batch] = [1000, 512, 8, 128, 16];
  const embedding = variable(tf, random, [vocabulary, width], 1);
  const positions = variable(tf, random, [length, width], 1);
  const blocks = [transformerBlock(tf, random, width), transformerBlock(tf, random, width)];
  const last = { gain: filled(tf, [width], 1), bias: filled(tf, [width], 0) };
  const decoder = linear(tf, random, width, vocabulary);
  const shape = { batch, length, heads, mask: causalMask(tf, length) };
  return {
    model:
      "vocabulary 1000, 2 pre-LN blocks, width 512, 8 heads, MLP 2048, GELU, causal; length 128, batch 16; AdamW",
    unit: "tokens",
    unitsPerStep: length * batch,
    batches: tokenBatches(tf, random, vocabulary, length * batch),
    optimizer: tf.train.adam(3e-4, 0.9, 0.999, 1e-8),
    clip: 0,
    decay: 3e-4 * 0.01,
    loss({ tokens, targets }) {
      const looked = tf.reshape(ops.lookUp(embedding, tokens), [batch, length, width]);
      let x = tf.reshape(tf.add(looked, positions), [batch * length, width]);
      for (const block of blocks) {
        x = tf.add(x, attention(tf, ops, block, layerNorm(tf, block.norm1, x), shape));
        const inner = gelu(tf, ops.linear(layerNorm(tf, block.norm2, x), block.up.w, block.up.b));
        x = tf.add(x, ops.linear(inner, block.down.w, block.down.b));
      }
      return ops.crossEntropy(ops.linear(layerNorm(tf, last, x), decoder.w, decoder.b), targets);
    },
  };
}

/** The MNIST-sized network. */
export function conv(tf, ops, random) {
  const batch = 64;
  const channels = [
    [1, 32],
    [32, 64],
    [64, 64],
  ];
  const layers = channels.map(([inputs, outputs]) => ({
    w: variable(tf, random, [3, 3, inputs, outputs], 1 / Math.sqrt(9 * inputs)),
    b: filled(tf, [outputs], 0),
  }));
  const [hidden, out] = [linear(tf, random, 64 * 7 * 7, 128), linear(tf, random, 128, 10)];
  const step = (x, k) => tf.relu(tf.add(ops.convolve(x, layers[k].w), layers[k].b));
  return {
    model:
      "MNIST-sized, convolutions 3x3 32-64-64 with padding 1, linear 128, 10; batch 64; SGD 0.01 with momentum 0.9",
    unit: "samples",
    unitsPerStep: batch,
    batches: Array.from({ length: 8 }, () => ({
      images: tf.tensor(Float32Array.from({ length: batch * 784 }, random), [batch, 28, 28, 1]),
      targets: randomTokens(tf, random, 10, batch),
    })),
    optimizer: tf.train.momentum(0.01, 0.9),
    clip: 0,
    decay: 0,
    loss({ images, targets }) {
      const once = tf.maxPool(step(step(images, 0), 1), 2, 2, "valid");
      const twice = tf.maxPool(step(once, 2), 2, 2, "valid");
      const inner = tf.relu(ops.linear(tf.reshape(twice, [batch, 64 * 7 * 7]), hidden.w, hidden.b));
      return ops.crossEntropy(ops.linear(inner, out.w, out.b), targets);
    },
  };
}
