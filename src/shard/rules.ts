/** Operations whose loops do not say how they are split: what needs all of a dim can still be done in parts, with a sum or a maximum between. */

import { lookup } from "./rules/lookup.ts";
import { loss } from "./rules/loss.ts";
import { normalization } from "./rules/normalization.ts";
import { recurrent } from "./rules/recurrent.ts";
import { reduce } from "./rules/reduce.ts";
import { window } from "./rules/window.ts";
import type { SplitRules } from "./site.ts";

export const specialRules: SplitRules = {
  ...reduce,
  ...lookup,
  ...loss,
  ...normalization,
  ...recurrent,
  ...window,
};
