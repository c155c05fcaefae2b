/** What the data tests share: reading batches back as text positions, by index arithmetic of their own. */
import { invariant } from "../../src/base/errors.ts";
import type { Batch } from "../../src/data/dataset.ts";

/** All batches of an iterable. */
export async function collect(batches: AsyncIterable<Batch>): Promise<Batch[]> {
  const all: Batch[] = [];
  for await (const batch of batches) all.push(batch);
  return all;
}

/** The values of an input as plain numbers. */
export function numbers(batch: Batch, name: string): number[] {
  const tensor = batch.inputs[name];
  invariant(tensor !== undefined, `no input ${name}`);
  return Array.from(tensor.data, Number);
}

/** The (token, target) pairs of each lane of a time-major text batch, padding left out. */
export function lanes(batch: Batch): [number, number][][] {
  const [time = 0, width = 0] = batch.inputs["tokens"]?.shape ?? [];
  const tokens = numbers(batch, "tokens");
  const targets = numbers(batch, "targets");
  return Array.from({ length: width }, (_, lane) => {
    const pairs: [number, number][] = [];
    for (let t = 0; t < time; t++) {
      const at = t * width + lane;
      if (targets[at] !== -1) pairs.push([tokens[at] ?? Number.NaN, targets[at] ?? Number.NaN]);
    }
    return pairs;
  });
}
