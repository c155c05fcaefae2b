/**
 * Operations over the devices of a mesh where one kernel has the operands of all ranks. Programs exchange these by instructions
 * instead; as a model they let one engine run a split graph whole.
 */

import { type Lowering, operands, type Site } from "../site.ts";

type CollectiveKind = "all-reduce" | "all-gather" | "reduce-scatter";

/** A name of its own for the result of every rank that is used: two outputs of a model cannot be one value. */
function toAll({ emitter, used }: Site, value: string): readonly string[] {
  return used.map((wanted) => (wanted ? emitter.emit("Identity", [value]) : ""));
}

function total(site: Site, operator: "Add" | "Max"): string {
  return operands(site).reduce((sum, next) => site.emitter.emit(operator, [sum, next]));
}

export const collective: { readonly [K in CollectiveKind]: Lowering<K> } = {
  "all-reduce": (op, site) => toAll(site, total(site, op.reduce === "sum" ? "Add" : "Max")),
  "all-gather": (_op, site) => toAll(site, site.emitter.emit("Concat", operands(site), { axis: 0 })),
  "reduce-scatter": (op, site) =>
    site.emitter.emitMany(
      "Split",
      [total(site, "Add"), site.emitter.ints(op.sizes)],
      { axis: 0 },
      op.sizes.map(() => true),
    ),
};
