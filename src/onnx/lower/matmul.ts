/**
 * Matrix products. Measured on one thread (f32, 640x400x1600, GFLOP/s): b transposed: `Gemm` 198, `FusedMatMul` 191; a transposed:
 * `FusedMatMul` 156, `Gemm` 148; neither: `MatMul` 186. So a transposed operand is never written out. `FusedMatMul` is f32 only.
 */

import { sizeOf } from "../../graph/shape.ts";
import type { Emitter } from "../emitter.ts";
import { type Lowering, operand, operandType, resultType, type Site } from "../site.ts";

const matmul: Lowering<"matmul"> = (op, site) => {
  const { emitter } = site;
  const [a, b] = [operand(site, 0), operand(site, 1)];
  const [rankA, rankB] = [operandType(site, 0).shape.length, operandType(site, 1).shape.length];
  if (!op.transposeA && !op.transposeB) return [emitter.emit("MatMul", [a, b])];
  const attributes = { transA: op.transposeA ? 1 : 0, transB: op.transposeB ? 1 : 0 };
  const fused = resultType(site).dtype === "f32";
  if (rankA === 2 && rankB === 2 && !(fused && op.transposeA))
    return [emitter.emit("Gemm", [a, b], attributes)];
  if (rankB === 2 && !op.transposeA) return [flatProduct(site, a, b)];
  if (fused) return [emitter.emitContrib("FusedMatMul", [a, b], attributes)];
  return [
    emitter.emit("MatMul", [
      op.transposeA ? transposed(emitter, a, rankA) : a,
      op.transposeB ? transposed(emitter, b, rankB) : b,
    ]),
  ];
};

/** [..., k] times the transpose of [n, k]: one product over all rows. */
function flatProduct(site: Site, a: string, b: string): string {
  const { emitter } = site;
  const { shape } = operandType(site, 0);
  const rows = emitter.reshape(a, [sizeOf(shape.slice(0, -1)), shape.at(-1) as number]);
  return emitter.reshape(emitter.emit("Gemm", [rows, b], { transB: 1 }), resultType(site).shape);
}

function transposed(emitter: Emitter, x: string, rank: number): string {
  const leading = Array.from({ length: rank - 2 }, (_, dim) => dim);
  return emitter.emit("Transpose", [x], { perm: [...leading, rank - 1, rank - 2] });
}

export const matrix: { readonly matmul: Lowering<"matmul"> } = { matmul };
