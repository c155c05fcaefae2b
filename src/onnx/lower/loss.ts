/** Cross-entropy with ignored targets, and the dropout mask from counter-based random bits. */

import type { DType } from "../../graph/dtype.ts";
import type { OpOf } from "../../graph/op.ts";
import { sizeOf, stridesOf } from "../../graph/shape.ts";
import type { Emitter } from "../emitter.ts";
import { dataTypeOf } from "../encode.ts";
import { type Lowering, operand, operandType, resultType, type Site } from "../site.ts";
import { guarded } from "./lookup.ts";

type LossKind = "cross-entropy" | "cross-entropy-grad" | "dropout-mask";

/** Targets with a last dim of 1: whether they count, and the class, 0 where ignored; another negative one is out of range. */
function targetsOf(site: Site, ignore: number): { readonly counts: string; readonly classes: string } {
  const { emitter } = site;
  const shape = operandType(site, 1).shape;
  const size = operandType(site, 0).shape.at(-1) as number;
  const column = emitter.reshape(operand(site, 1), [...shape, 1]);
  const ignored = emitter.emit("Equal", [column, emitter.scalar("i32", ignore)]);
  const counted = emitter.emit("Where", [ignored, emitter.scalar("i32", 0), column]);
  const negative = emitter.emit("Less", [counted, emitter.scalar("i32", 0)]);
  return {
    counts: emitter.emit("Not", [ignored]),
    classes: emitter.emit("Where", [negative, emitter.scalar("i32", size), counted]),
  };
}

const smallest: { readonly [K in DType]?: number } = {
  f16: 2 ** -24,
  f32: 2 ** -126,
  f64: 2 ** -1022,
};

/** The probabilities p = softmax(x), and -log(p[target]) bounded by the smallest number of the dtype. */
function crossEntropy(ignore: number, site: Site): readonly string[] {
  const { emitter } = site;
  const { dtype, shape } = operandType(site, 0);
  const { counts, classes } = targetsOf(site, ignore);
  const probabilities = emitter.emit("Softmax", [operand(site, 0)], { axis: -1 });
  const chosen = emitter.emit("GatherElements", [probabilities, classes], { axis: shape.length - 1 });
  const bounded = emitter.emit("Max", [chosen, emitter.scalar(dtype, smallest[dtype] ?? 0)]);
  const loss = emitter.emit("Neg", [emitter.emit("Log", [bounded])]);
  const counted = emitter.emit("Where", [counts, loss, emitter.scalar(dtype, 0)]);
  return [emitter.reshape(counted, shape.slice(0, -1)), probabilities];
}

/** p·dLogSum - one-hot(target)·dTarget; the one-hot part is added at one element of each row. */
function crossEntropyGrad({ ignore, first }: OpOf<"cross-entropy-grad">, site: Site): readonly string[] {
  const { emitter } = site;
  const { dtype, shape } = operandType(site, 0);
  const { counts, classes } = targetsOf(site, ignore);
  const zero = emitter.scalar(dtype, 0);
  const counted = (index: number): string => {
    const gradient = emitter.reshape(operand(site, index), [...shape.slice(0, -1), 1]);
    return emitter.emit("Where", [counts, gradient, zero]);
  };
  const dTarget = counted(2);
  const dLogSum = site.inputs[3] === site.inputs[2] ? dTarget : counted(3);
  const scaled = emitter.emit("Mul", [operand(site, 0), dLogSum]);
  const minus = emitter.emit("Neg", [dTarget]);
  const attributes = { axis: shape.length - 1, reduction: "add" };
  if (first === undefined) return [emitter.emit("ScatterElements", [scaled, classes, minus], attributes)];
  const { safe, valid } = ownTargets(site, first);
  const own = emitter.emit("Where", [valid, minus, zero]);
  return [emitter.emit("ScatterElements", [scaled, safe, own], attributes)];
}

/** Targets counted from class `first`, 0 where they are none of these classes, and whether they are. */
function ownTargets(site: Site, first: number): { readonly safe: string; readonly valid: string } {
  const { emitter } = site;
  const { shape } = operandType(site, 1);
  const counted = emitter.emit("Sub", [operand(site, 1), emitter.scalar("i32", first)]);
  return guarded(emitter, counted, shape, operandType(site, 0).shape.at(-1) as number);
}

/** x ^= x >>> bits. */
function shiftXor(emitter: Emitter, x: string, bits: number): string {
  const shifted = emitter.emit("BitShift", [x, emitter.scalar("u32", bits)], { direction: "RIGHT" });
  return emitter.emit("BitwiseXor", [x, shifted]);
}

/** `hashIndex` of base/random.ts in 32-bit tensor arithmetic. */
function hashIndex(emitter: Emitter, x: string): string {
  let mixed = shiftXor(emitter, x, 16);
  mixed = emitter.emit("Mul", [mixed, emitter.scalar("u32", 0x7feb352d)]);
  mixed = shiftXor(emitter, mixed, 15);
  mixed = emitter.emit("Mul", [mixed, emitter.scalar("u32", 0x846ca68b)]);
  return shiftXor(emitter, mixed, 16);
}

/** sum(i[dim]·strides[dim]) modulo 2^32 for every element: one list where it is short, else a sum over two parts. */
function offsets(emitter: Emitter, shape: readonly number[], strides: readonly number[]): string {
  const cut = shape.findIndex((_, dim) => sizeOf(shape.slice(dim)) <= 65_536);
  const part = (from: number, to: number) => {
    const own = shape.map((size, dim) => (dim >= from && dim < to ? size : 1));
    const ownStrides = stridesOf(own);
    const values = Array.from({ length: sizeOf(own) }, (_, element) =>
      own.reduce(
        (sum, size, dim) =>
          sum + (Math.floor(element / (ownStrides[dim] as number)) % size) * (strides[dim] as number),
        0,
      ),
    );
    return emitter.constant(
      "u32",
      own,
      Uint32Array.from(values, (value) => value | 0),
    );
  };
  const rank = shape.length;
  if (cut === 0 || rank === 0) return part(0, rank);
  const inner = cut < 0 ? rank : cut;
  return emitter.emit("Add", [part(0, inner), part(inner, rank)]);
}

/**
 * hash >>> 8 is below keep·2^24 exactly when the hash is below the next whole number of 256ths, so the 24 random bits of
 * `uniform` are compared without being converted to a float.
 */
const dropoutMask: Lowering<"dropout-mask"> = (op, site) => {
  const { emitter } = site;
  const { dtype, shape } = resultType(site);
  const threshold = Math.ceil(op.keep * 2 ** 24) * 256;
  const kept = emitter.scalar(dtype, 1 / op.keep);
  if (threshold >= 2 ** 32) return [emitter.filled(dtype, shape, 1 / op.keep)];
  const unsigned = (index: number) => emitter.emit("Cast", [operand(site, index)], { to: dataTypeOf("u32") });
  const start = emitter.emit("Add", [unsigned(0), unsigned(1)]);
  const bits = hashIndex(emitter, emitter.emit("Add", [offsets(emitter, shape, op.strides), start]));
  const below = emitter.emit("Less", [bits, emitter.scalar("u32", threshold)]);
  return [emitter.emit("Where", [below, kept, emitter.scalar(dtype, 0)])];
};

export const loss: { readonly [K in LossKind]: Lowering<K> } = {
  "cross-entropy": (op, site) => crossEntropy(op.ignore, site),
  "cross-entropy-grad": (op, site) => crossEntropyGrad(op, site),
  "dropout-mask": dropoutMask,
};
