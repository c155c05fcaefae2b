/** Reductions over any dims. */

import type { ReduceKind } from "../../graph/op.ts";
import { type Lowering, operand } from "../site.ts";

function reduction(opType: string): Lowering<ReduceKind> {
  return (op, site) => [
    site.emitter.emit(opType, [operand(site, 0), site.emitter.ints(op.dims)], { keepdims: op.keep ? 1 : 0 }),
  ];
}

export const reduce: { readonly [K in ReduceKind]: Lowering<K> } = {
  sum: reduction("ReduceSum"),
  mean: reduction("ReduceMean"),
  "reduce-max": reduction("ReduceMax"),
};
