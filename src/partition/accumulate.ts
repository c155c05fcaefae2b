/** Segments that add their results to what earlier items left there. */

import { GraphBuilder, replay } from "../graph/builder.ts";
import { add } from "../graph/functions.ts";
import type { Graph } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";

/**
 * The segment with one more input for each output in `outputs` (positions): the total so far, which is added to the result. The new
 * inputs come after the others, in the order of `outputs`.
 */
export function accumulating(segment: Graph, outputs: readonly number[]): Graph {
  const builder = new GraphBuilder();
  const tensors = replay(builder, segment);
  const totals = new Map(
    outputs.map((position) => {
      const { name, value } = segment.outputs[position] as Graph["outputs"][number];
      return [
        position,
        builder.input(`total:${position}:${name}`, "gradient", segment.types[value] as TensorType),
      ];
    }),
  );
  const place = segment.nodes.at(-1) ?? {};
  segment.outputs.forEach(({ name, value }, position) => {
    const result = tensors[value] as Tensor;
    const total = totals.get(position);
    builder.output(name, total === undefined ? result : builder.within(place, () => add(total, result)));
  });
  return builder.build();
}
