/** An engine that computes nothing: it checks shapes and counts bytes, so plans for a thousand devices can be tried on one. */

import type { Graph } from "../graph/graph.ts";
import { bytesOfType, type TensorType } from "../graph/shape.ts";
import { structureKey } from "../graph/structure.ts";
import { checkBuffers, type Engine, type Kernel } from "./engine.ts";

/** What the null engine has been asked to do so far. */
interface NullCounts {
  /** Segments of different structure. */
  readonly prepared: number;
  readonly bound: number;
  readonly runs: number;
  /** Bytes of all inputs and outputs over all runs. */
  readonly bytes: number;
}

export interface NullEngine extends Engine {
  counts(): NullCounts;
}

/** Checks the types of bound buffers and leaves their contents alone. */
export function nullEngine(): NullEngine {
  const keys = new Set<string>();
  const counts = { bound: 0, runs: 0, bytes: 0 };
  const kernelOf = (segment: Graph): Kernel => ({
    bind: (inputs, outputs) => {
      checkBuffers(segment, inputs, outputs);
      counts.bound++;
      const bytes = bytesPerRun(segment);
      return {
        run: () => {
          counts.runs++;
          counts.bytes += bytes;
        },
      };
    },
  });
  return {
    name: "null",
    prepare: (segment) => {
      keys.add(structureKey(segment));
      return Promise.resolve(kernelOf(segment));
    },
    counts: () => ({ prepared: keys.size, ...counts }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function bytesPerRun({ inputs, outputs, types }: Graph): number {
  const values = [...inputs.keys(), ...outputs.map(({ value }) => value)];
  return values.reduce((sum, value) => sum + bytesOfType(types[value] as TensorType), 0);
}
