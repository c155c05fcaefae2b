/** Indexed reads and writes. ONNX counts negative indices from the end; our operations do not, so they are guarded. */

import { sizeOf } from "../../graph/shape.ts";
import type { Emitter } from "../emitter.ts";
import { dataTypeOf } from "../encode.ts";
import { type Lowering, operand, operandType, resultType, type Site } from "../site.ts";

type LookupKind = "gather" | "scatter-add" | "take" | "take-grad";

/** Indices in which a negative one is out of range at the upper end too, so that ONNX Runtime refuses it. */
function refusingNegative(emitter: Emitter, indices: string, size: number): string {
  const negative = emitter.emit("Less", [indices, emitter.scalar("i32", 0)]);
  return emitter.emit("Where", [negative, emitter.scalar("i32", size), indices]);
}

/** Indices with a last dim of 1, moved to 0 where they are out of range, and whether they are in range. */
export function guarded(
  emitter: Emitter,
  indices: string,
  shape: readonly number[],
  size: number,
): { readonly safe: string; readonly valid: string } {
  const column = emitter.reshape(indices, [...shape, 1]);
  const valid = emitter.emit("And", [
    emitter.emit("GreaterOrEqual", [column, emitter.scalar("i32", 0)]),
    emitter.emit("Less", [column, emitter.scalar("i32", size)]),
  ]);
  return { safe: emitter.emit("Where", [valid, column, emitter.scalar("i32", 0)]), valid };
}

/** `ScatterND` adds whole rows, but with several threads it loses additions to the same row; `ScatterElements` never does. */
function scatterAdd(site: Site): readonly string[] {
  const { emitter } = site;
  const result = resultType(site);
  const rows = sizeOf(operandType(site, 0).shape);
  const size = result.shape[0] as number;
  const rest = sizeOf(result.shape.slice(1));
  const indices = emitter.reshape(refusingNegative(emitter, operand(site, 0), size), [rows, 1]);
  const updates = emitter.reshape(operand(site, 1), [rows, rest]);
  const zeros = emitter.filled(result.dtype, [size, rest], 0);
  if (site.threads > 1) {
    const wide = emitter.emit("Expand", [indices, emitter.ints([rows, rest])]);
    const sums = emitter.emit("ScatterElements", [zeros, wide, updates], { axis: 0, reduction: "add" });
    return [emitter.reshape(sums, result.shape)];
  }
  const wide = emitter.emit("Cast", [indices], { to: dataTypeOf("i64") });
  const sums = emitter.emit("ScatterND", [zeros, wide, updates], { reduction: "add" });
  return [emitter.reshape(sums, result.shape)];
}

function take(site: Site): readonly string[] {
  const { emitter } = site;
  const { dtype, shape } = operandType(site, 0);
  const lead = shape.slice(0, -1);
  const { safe, valid } = guarded(emitter, operand(site, 1), lead, shape.at(-1) as number);
  const found = emitter.emit("GatherElements", [operand(site, 0), safe], { axis: shape.length - 1 });
  return [emitter.reshape(emitter.emit("Where", [valid, found, emitter.scalar(dtype, 0)]), lead)];
}

function takeGrad(size: number, site: Site): readonly string[] {
  const { emitter } = site;
  const { dtype, shape } = operandType(site, 1);
  const { safe, valid } = guarded(emitter, operand(site, 0), shape, size);
  const column = emitter.reshape(operand(site, 1), [...shape, 1]);
  const updates = emitter.emit("Where", [valid, column, emitter.scalar(dtype, 0)]);
  const zeros = emitter.filled(dtype, [...shape, size], 0);
  return [emitter.emit("ScatterElements", [zeros, safe, updates], { axis: shape.length })];
}

export const lookup: { readonly [K in LookupKind]: Lowering<K> } = {
  gather: (_op, site) => {
    const size = operandType(site, 0).shape[0] as number;
    const indices = refusingNegative(site.emitter, operand(site, 1), size);
    return [site.emitter.emit("Gather", [operand(site, 0), indices], { axis: 0 })];
  },
  "scatter-add": (_op, site) => scatterAdd(site),
  take: (_op, site) => take(site),
  "take-grad": (op, site) => takeGrad(op.size, site),
};
