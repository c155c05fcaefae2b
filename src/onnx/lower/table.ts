/** The lowering table: how each operation is written in ONNX operators. One entry for each kind; a missing one does not compile. */

import type { OpKind } from "../../graph/op.ts";
import type { Lowering } from "../site.ts";
import { collective } from "./collective.ts";
import { convolution } from "./convolution.ts";
import { elementwise } from "./elementwise.ts";
import { lookup } from "./lookup.ts";
import { loss } from "./loss.ts";
import { matrix } from "./matmul.ts";
import { movement } from "./movement.ts";
import { normalization } from "./normalization.ts";
import { pooling } from "./pooling.ts";
import { recurrent } from "./recurrent.ts";
import { recurrentStep } from "./recurrent-step.ts";
import { reduce } from "./reduce.ts";

const lowerings: { readonly [K in OpKind]: Lowering<K> } = {
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

/** The entry of `kind`. The cast is safe because the table is keyed by kind. */
export function loweringOf(kind: OpKind): Lowering<OpKind> {
  return lowerings[kind] as Lowering<OpKind>;
}
