/** The operation table: everything the compiler knows about an operation stands in its one entry here. */

import type { OpKind } from "./op.ts";
import type { OpRules } from "./op-rules.ts";
import { collective } from "./ops/collective.ts";
import { convolution } from "./ops/convolution.ts";
import { elementwise } from "./ops/elementwise.ts";
import { lookup } from "./ops/lookup.ts";
import { loss } from "./ops/loss.ts";
import { matrix } from "./ops/matmul.ts";
import { movement } from "./ops/movement.ts";
import { normalization } from "./ops/normalization.ts";
import { pooling } from "./ops/pooling.ts";
import { recurrent } from "./ops/recurrent.ts";
import { recurrentStep } from "./ops/recurrent-step.ts";
import { reduce } from "./ops/reduce.ts";

/** One entry for each kind; a missing one does not compile. */
export const opTable: { readonly [K in OpKind]: OpRules<K> } = {
  ...elementwise,
  ...reduce,
  ...movement,
  ...matrix,
  ...lookup,
  ...normalization,
  ...convolution,
  ...pooling,
  ...loss,
  ...collective,
  ...recurrent,
  ...recurrentStep,
};

/** The entry of `kind`. The cast is safe because the table is keyed by kind; it is the only one that dispatch needs. */
export function rulesOf(kind: OpKind): OpRules<OpKind> {
  return opTable[kind] as OpRules<OpKind>;
}
