/**
 * The operations that the models need, once as TensorFlow.js offers them and once tuned for its wasm backend.
 *
 * Measured on the wasm backend (4.22, one thread): matrix products run at 17-40 GFLOP/s in XNNPACK, but at 2 as soon as an operand is
 * transposed or batched, which is what the built-in derivatives ask for; the input gradient of a convolution runs at 2, the same as
 * a forward convolution with flipped weights at 31; the derivatives of a table look-up and of a convolution's weights have no
 * kernel at all. The tuned operations go around that and make a whole step 2 (conv) to 10 (transformer) times faster.
 */

const IGNORED = -1;

/** What the native and the plain JavaScript backend use, and what an ordinary user writes. */
export function plainOperations(tf) {
  const wasm = tf.getBackend() === "wasm";
  return {
    matmul: (a, b) => tf.matMul(a, b),
    linear: (x, w, b) => tf.add(tf.matMul(x, w), b),
    splitRows: (x, count) => tf.split(x, count, 0),
    lookUp: wasm ? (table, ids) => lookUp(tf, table, ids) : (table, ids) => tf.gather(table, ids),
    convolve: wasm
      ? (x, w) => convolve(tf, x, w, (dy, weights) => tf.conv2dTranspose(dy, weights, x.shape, 1, "same"))
      : (x, w) => tf.conv2d(x, w, 1, "same"),
    crossEntropy: (logits, targets) => crossEntropy(tf, logits, targets),
  };
}

/** The same mathematics arranged for the wasm backend. */
export function tunedOperations(tf) {
  return {
    matmul: (a, b) => product(tf, a, b),
    linear: (x, w, b) => linear(tf, x, w, b),
    splitRows: (x, count) => splitRows(tf, x, count),
    lookUp: (table, ids) => lookUp(tf, table, ids),
    convolve: (x, w) => convolve(tf, x, w, (dy, weights) => tf.conv2d(dy, flipped(tf, weights), 1, "same")),
    crossEntropy: (logits, targets) => crossEntropy(tf, logits, targets),
  };
}

/** `x` [N, W] cut into `count` equal parts; in two rounds, because each part that the wasm backend cuts off copies all of `x`. */
function splitRows(tf, x, count) {
  const first = [16, 8, 4, 2].find((n) => n < count && count % n === 0 && n * n <= 2 * count);
  if (first === undefined) return tf.split(x, count, 0);
  return tf.split(x, first, 0).flatMap((part) => tf.split(part, count / first, 0));
}

function swapped(tf, x) {
  return x.rank === 2 ? tf.transpose(x) : tf.transpose(x, [0, 2, 1]);
}

/** [M, K]·[K, N], or N such products stacked: one call per product, because the batched kernel is slow. */
function untransposed(tf, a, b) {
  if (a.rank === 2) return tf.matMul(a, b);
  const [count, m, k] = a.shape;
  const n = b.shape[2];
  const lefts = splitRows(tf, tf.reshape(a, [count * m, k]), count);
  const rights = splitRows(tf, tf.reshape(b, [count * k, n]), count);
  const parts = lefts.map((left, i) => tf.matMul(left, rights[i]));
  return tf.reshape(tf.concat(parts, 0), [count, m, n]);
}

function product(tf, a, b) {
  const op = tf.customGrad((x, y, save) => {
    save([x, y]);
    return {
      value: untransposed(tf, x, y),
      gradFunc: (d, [p, q]) => [untransposed(tf, d, swapped(tf, q)), untransposed(tf, swapped(tf, p), d)],
    };
  });
  return op(a, b);
}

function linear(tf, x, w, b) {
  const op = tf.customGrad((input, weight, bias, save) => {
    save([input, weight]);
    return {
      value: tf.add(tf.matMul(input, weight), bias),
      gradFunc: (d, [p, q]) => [
        tf.matMul(d, tf.transpose(q)),
        tf.matMul(tf.transpose(p), d),
        tf.reshape(tf.matMul(tf.ones([1, d.shape[0]]), d), [d.shape[1]]),
      ],
    };
  });
  return op(x, w, b);
}

/** Rows of `table` [V, W] for `ids` [N]; the derivative is a scatter-add in JavaScript. */
function lookUp(tf, table, ids) {
  const op = tf.customGrad((t, save) => {
    save([ids]);
    const gradFunc = (d, [saved]) => {
      const [places, rows, width] = [saved.dataSync(), d.dataSync(), t.shape[1]];
      const sum = new Float32Array(t.size);
      for (let i = 0; i < places.length; i++) {
        for (let k = 0; k < width; k++) sum[places[i] * width + k] += rows[i * width + k];
      }
      return tf.tensor(sum, t.shape);
    };
    return { value: tf.gather(t, ids), gradFunc };
  });
  return op(table);
}

/** 3x3 convolution, stride 1, padding 1, of `x` [N, H, W, C] with `w` [3, 3, C, O]. */
function convolve(tf, x, w, inputGradient) {
  const op = tf.customGrad((image, weights, save) => {
    save([image, weights]);
    return {
      value: tf.conv2d(image, weights, 1, "same"),
      gradFunc: (d, [p, q]) => [inputGradient(d, q), weightGradient(tf, p, d, q.shape)],
    };
  });
  return op(x, w);
}

function flipped(tf, weights) {
  return tf.transpose(tf.reverse(weights, [0, 1]), [0, 1, 3, 2]);
}

/** One matrix product per kernel tap: window [N·H·W, C] transposed times dy [N·H·W, O]. */
function weightGradient(tf, image, dy, [kh, kw, channels, outputs]) {
  const [batch, height, width] = image.shape;
  const padded = tf.pad(image, [
    [0, 0],
    [1, 1],
    [1, 1],
    [0, 0],
  ]);
  const rows = tf.reshape(dy, [batch * height * width, outputs]);
  const taps = Array.from({ length: kh * kw }, (_, k) => {
    const at = [0, Math.floor(k / kw), k % kw, 0];
    const window = tf.slice(padded, at, [batch, height, width, channels]);
    return tf.matMul(tf.transpose(tf.reshape(window, [batch * height * width, channels])), rows);
  });
  return tf.reshape(tf.stack(taps), [kh, kw, channels, outputs]);
}

/** Mean over the valid rows of the cross-entropy of `logits` [N, V] with integer `targets` [N]. */
function crossEntropy(tf, logits, targets) {
  const op = tf.customGrad((x, save) => {
    const probabilities = tf.softmax(x);
    const hot = tf.oneHot(targets, x.shape[1]);
    const valid = tf.cast(tf.notEqual(targets, IGNORED), "float32");
    const scale = tf.div(valid, tf.sum(valid));
    const chosen = tf.sum(tf.mul(probabilities, hot), 1);
    save([probabilities, hot, scale]);
    return {
      value: tf.neg(tf.sum(tf.mul(tf.log(tf.maximum(chosen, 1e-37)), scale))),
      gradFunc: (d, [p, h, s]) => tf.mul(tf.sub(p, h), tf.expandDims(tf.mul(s, d), 1)),
    };
  });
  return op(logits);
}
