/** Operations that only move elements. */

import { type Lowering, operand, operands, operandType } from "../site.ts";

type MovementKind =
  | "constant"
  | "iota"
  | "broadcast"
  | "reshape"
  | "transpose"
  | "slice"
  | "concat"
  | "split"
  | "pad";

export const movement: { readonly [K in MovementKind]: Lowering<K> } = {
  constant: (op, { emitter }) => [emitter.filled(op.dtype, op.shape, op.value)],
  iota: (op, { emitter }) => {
    const size = op.shape[op.dim] as number;
    const line = emitter.constant(
      op.dtype,
      op.shape.map((_, dim) => (dim === op.dim ? size : 1)),
      Array.from({ length: size }, (_, i) => i),
    );
    return [emitter.emit("Expand", [line, emitter.ints(op.shape)])];
  },
  broadcast: (op, site) => [site.emitter.emit("Expand", [operand(site, 0), site.emitter.ints(op.shape)])],
  reshape: (op, site) => [site.emitter.reshape(operand(site, 0), op.shape)],
  transpose: (op, site) => [site.emitter.emit("Transpose", [operand(site, 0)], { perm: op.permutation })],
  slice: (op, site) => {
    const { emitter } = site;
    const { shape } = operandType(site, 0);
    const cut = shape.flatMap((size, dim) =>
      op.start[dim] === 0 && op.stop[dim] === size && op.step[dim] === 1 ? [] : [dim],
    );
    const x = operand(site, 0);
    if (cut.length === 0) return [emitter.emit("Identity", [x])];
    const along = (list: readonly number[]) => emitter.ints(cut.map((dim) => list[dim] as number));
    return [emitter.emit("Slice", [x, along(op.start), along(op.stop), emitter.ints(cut), along(op.step)])];
  },
  concat: (op, site) => [site.emitter.emit("Concat", operands(site), { axis: op.dim })],
  split: (op, site) => {
    const inputs = [operand(site, 0), site.emitter.ints(op.sizes)];
    return site.emitter.emitMany(
      "Split",
      inputs,
      { axis: op.dim },
      op.sizes.map(() => true),
    );
  },
  pad: (op, site) => {
    const { emitter } = site;
    const { dtype, shape } = operandType(site, 0);
    if (shape.length === 0) return [emitter.emit("Identity", [operand(site, 0)])];
    const counts = emitter.ints([...op.before, ...op.after]);
    return [emitter.emit("Pad", [operand(site, 0), counts, emitter.scalar(dtype, op.value)])];
  },
};
