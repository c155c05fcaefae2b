/** Which operations work on sums that are not added up yet: f(a) + f(b) = f(a + b). Adding up later means adding up less often. */

import type { Op } from "../graph/op.ts";
import type { SplitAxis } from "./mesh.ts";

/** What is known of an operand: along which axes it is partial, how many uses it has, and how many elements. */
export interface Summand {
  readonly partial: readonly SplitAxis[];
  readonly uses: number;
  readonly size: number;
}

/**
 * The axes along which the results stay partial, with all partial operands as they are; none: the operands have to be added up first.
 * A value with several uses is added up once, for all of them.
 */
export function passesSums(op: Op, operands: readonly Summand[], resultSize: number): readonly SplitAxis[] {
  const [a, b] = operands;
  const open = operands.filter(({ partial }) => partial.length > 0);
  if (a === undefined || open.length === 0 || open.some(({ uses }) => uses > 1)) return [];
  switch (op.kind) {
    case "neg":
    case "reshape":
    case "transpose":
    case "sum":
    case "slice":
      return a.partial;
    case "add":
    case "sub":
      return a.partial.join() === b?.partial.join() ? a.partial : [];
    case "mul":
    case "div":
      return b?.partial.length === 0 && resultSize <= a.size ? a.partial : [];
    default:
      return [];
  }
}
