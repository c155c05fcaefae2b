/** Reductions over any dims. */

import type { ReduceKind } from "../../graph/op.ts";
import { type Lowering, operand } from "../site.ts";

function reduction(opType: string): Lowering<ReduceKind> {
  return (op, site) => [
    site.emitter.emit(opType, [operand(site, 0), site.emitter.ints(op.dims)], { keepdims: op.keep ? 1 : 0 }),
  ];
}

/** The sum of squares has an operator of its own. */
const sum: Lowering<"sum"> = (op, site) => {
  const squared = site.inputs[0]?.squared;
  if (squared === undefined) return reduction("ReduceSum")(op, site);
  return [
    site.emitter.emit("ReduceSumSquare", [squared, site.emitter.ints(op.dims)], {
      keepdims: op.keep ? 1 : 0,
    }),
  ];
};

export const reduce: { readonly [K in ReduceKind]: Lowering<K> } = {
  sum,
  mean: reduction("ReduceMean"),
  "reduce-max": reduction("ReduceMax"),
};
