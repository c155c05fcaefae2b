/** A collective instruction ready to be started again and again: its arrays and counts are made once. */

import { invariant } from "../base/errors.ts";
import { elementBytes } from "../graph/dtype.ts";
import type { Collective } from "../program/program.ts";
import { bytesOf, type TensorBuffer } from "./engine.ts";
import type { Group, Numbers, Transfer } from "./transport.ts";

/** Starts the collective in its group, over these buffers by their numbers; `label` names it in errors. */
export function collectiveStarter(
  instruction: Collective,
  buffers: readonly TensorBuffer[],
  group: Group,
  label: string,
): () => Transfer {
  const own = buffers[instruction.buffer] as TensorBuffer;
  switch (instruction.kind) {
    case "all-reduce": {
      const { reduce } = instruction;
      const data = numbersOf(own);
      return () => group.allReduce(data, reduce, label);
    }
    case "all-gather": {
      const width = elementBytes(own.type.dtype);
      const sizes = instruction.sizes.map((size) => size * width);
      const [part, into] = [bytesOf(own), bytesOf(buffers[instruction.into] as TensorBuffer)];
      return () => group.allGather(part, sizes, into, label);
    }
    case "reduce-scatter": {
      const { sizes } = instruction;
      const [data, into] = [numbersOf(own), numbersOf(buffers[instruction.into] as TensorBuffer)];
      return () => group.reduceScatter(data, sizes, into, "sum", label);
    }
    default:
      return instruction satisfies never;
  }
}

function numbersOf({ data }: TensorBuffer): Numbers {
  invariant(
    data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array,
    "only numbers of 4 and 8 bytes can be reduced",
  );
  return data;
}
