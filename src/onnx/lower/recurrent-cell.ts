/**
 * One step of a recurrent layer in ONNX operators, from its gates on: what the body of a scan and a step on its own have in common.
 * Which values are saved, and the equations, are in `op.ts`.
 */

import type { DType } from "../../graph/dtype.ts";
import type { Emitter } from "../emitter.ts";

/** An emitter with the arithmetic that steps are made of. */
export class Arithmetic {
  readonly emitter: Emitter;

  constructor(emitter: Emitter) {
    this.emitter = emitter;
  }

  op(opType: string, ...inputs: readonly string[]): string {
    return this.emitter.emit(opType, inputs);
  }

  add(a: string, b: string): string {
    return this.op("Add", a, b);
  }

  sub(a: string, b: string): string {
    return this.op("Sub", a, b);
  }

  mul(a: string, b: string): string {
    return this.op("Mul", a, b);
  }

  /** a·(1 - b). */
  rest(a: string, b: string): string {
    return this.sub(a, this.mul(a, b));
  }

  /** 1 - x. */
  complement(x: string, dtype: DType): string {
    return this.sub(this.emitter.scalar(dtype, 1), x);
  }

  /** The tensors beside each other along dim 1. */
  join(...parts: readonly string[]): string {
    return this.emitter.emit("Concat", parts, { axis: 1 });
  }

  /** x cut along dim 1. */
  cut(x: string, sizes: readonly number[]): readonly string[] {
    return this.emitter.emitMany(
      "Split",
      [x, this.emitter.ints(sizes)],
      { axis: 1 },
      sizes.map(() => true),
    );
  }
}

/** Makes a value that is saved for the derivative, where it is wanted. */
export type Factor = () => string;

/** The gates after their activations and c of the step before → h, c, and f, Mi, Mf, Mg, Mo, K. */
export function lstmCell(
  make: Arithmetic,
  [i, f, g, o]: readonly [i: string, f: string, g: string, o: string],
  before: string,
): { readonly hidden: string; readonly cell: string; readonly factors: readonly Factor[] } {
  const [kept, input] = [make.mul(f, before), make.mul(i, g)];
  const cell = make.add(kept, input);
  const squashed = make.op("Tanh", cell);
  const hidden = make.mul(o, squashed);
  const factors = [
    () => f,
    () => make.rest(input, i),
    () => make.rest(kept, f),
    () => make.sub(i, make.mul(input, g)),
    () => make.rest(hidden, o),
    () => make.sub(o, make.mul(hidden, squashed)),
  ];
  return { hidden, cell, factors };
}

/** f, Mi, Mf, Mg, Mo, K, dh and dc of the step (no dc: it is 0) → dz and dc of the step before. */
export function lstmCellGrad(
  make: Arithmetic,
  [f, mi, mf, mg, mo, k]: readonly [f: string, mi: string, mf: string, mg: string, mo: string, k: string],
  dHidden: string,
  dcNext: string | undefined,
): { readonly dz: string; readonly dcBefore: string } {
  const through = make.mul(dHidden, k);
  const dCell = dcNext === undefined ? through : make.add(through, dcNext);
  const dz = make.join(make.mul(dCell, mi), make.mul(dCell, mf), make.mul(dCell, mg), make.mul(dHidden, mo));
  return { dz, dcBefore: make.mul(dCell, f) };
}

/** What a GRU's unit is made of. */
interface GruGates {
  readonly r: string;
  readonly a: string;
  /** h'·u_nᵀ + p_n. */
  readonly q: string;
  /** x·w_nᵀ + b_n. */
  readonly zn: string;
  readonly before: string;
  readonly dtype: DType;
}

/** → h, and r, a, Mr, Ma, Mn. */
export function gruCell(
  make: Arithmetic,
  { r, a, q, zn, before, dtype }: GruGates,
): { readonly hidden: string; readonly factors: readonly Factor[] } {
  const gated = make.mul(r, q);
  const n = make.op("Tanh", make.add(zn, gated));
  const change = make.sub(before, n);
  const hidden = make.add(n, make.mul(a, change));
  const factors = [
    () => r,
    () => a,
    () => make.rest(gated, r),
    () => make.mul(change, make.rest(a, a)),
    () => make.mul(make.complement(a, dtype), make.complement(make.mul(n, n), dtype)),
  ];
  return { hidden, factors };
}

/** r, a, Mr, Ma, Mn and dh → dz, dq, and a∘dh: the gradient of the units' own h' but for what goes through u. */
export function gruCellGrad(
  make: Arithmetic,
  [r, a, mr, ma, mn]: readonly [r: string, a: string, mr: string, ma: string, mn: string],
  dHidden: string,
): { readonly dz: string; readonly dq: string; readonly direct: string } {
  const dn = make.mul(dHidden, mn);
  const [dr, da] = [make.mul(dn, mr), make.mul(dHidden, ma)];
  return {
    dz: make.join(dr, da, dn),
    dq: make.join(dr, da, make.mul(dn, r)),
    direct: make.mul(dHidden, a),
  };
}
