/** Reads the numbers made by PyTorch; their format is described in test/fixtures/pytorch/README.md. */

import { readFileSync } from "node:fs";
import type { Dense } from "../../src/graph/op-rules.ts";

type Stored = Readonly<Record<string, { readonly shape: number[]; readonly data: number[] }>>;

/** One case: options as written, tensors by name. Asking for a tensor that the case lacks throws. */
export interface PytorchCase<Options> {
  readonly name: string;
  readonly options: Options;
  input(name: string): Dense;
  output(name: string): Dense;
  gradient(name: string): Dense;
}

/** The cases of `test/fixtures/pytorch/<subject>.json`; `input` finds parameters, too. */
export function pytorchCases<Options>(subject: string): readonly PytorchCase<Options>[] {
  const file = new URL(`../fixtures/pytorch/${subject}.json`, import.meta.url);
  const { cases } = JSON.parse(readFileSync(file, "utf8")) as {
    cases: {
      name: string;
      options: Options;
      inputs: Stored;
      parameters: Stored;
      outputs: Stored;
      gradients: Stored;
    }[];
  };
  return cases.map(({ name, options, inputs, parameters, outputs, gradients }) => {
    const tensor = (from: Stored) => (key: string) => {
      const found = from[key];
      if (found === undefined) throw new Error(`${subject}, ${name}: there is no "${key}"`);
      return { shape: found.shape, data: Float64Array.from(found.data) };
    };
    return {
      name,
      options,
      input: tensor({ ...inputs, ...parameters }),
      output: tensor(outputs),
      gradient: tensor(gradients),
    };
  });
}
