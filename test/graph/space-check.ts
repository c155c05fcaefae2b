/**
 * Holds an iteration space to its word: cutting a parallel loop in two must cut the results, cutting a reduce loop must leave
 * partial sums. Left out are loops that touch a dim through a sliding window, where a cut needs a halo: they are known by sizes
 * that do not multiply to that of the dim, so choose windows for which they do not by chance.
 */

import { expect } from "vitest";
import type { DType } from "../../src/graph/dtype.ts";
import type { Op } from "../../src/graph/op.ts";
import type { Dense, DimIndex, IterationSpace } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import { sizeOf, stridesOf, type TensorType } from "../../src/graph/shape.ts";
import { expectClose } from "./dense.ts";

/** `dtypes` of the operands are f64 where not given. */
export interface SpaceCheck {
  readonly op: Op;
  readonly inputs: readonly Dense[];
  readonly dtypes?: readonly DType[];
  /** The operation for a loop that is shortened to `size`, where the operation itself states that size. */
  readonly resize?: (name: string, size: number) => Op;
  /** Result dims that no loop may index, because the data say where a result goes: `["result 0, dim 1"]`. */
  readonly uncovered?: readonly string[];
}

/** Cuts every loop that can be cut; returns the names of those it cut, so that a test can say which it expects. */
export function checkSpace({ op, inputs, dtypes, resize = () => op, uncovered = [] }: SpaceCheck): string[] {
  const rules = rulesOf(op.kind);
  const typed = (operands: readonly Dense[]): TensorType[] =>
    operands.map(({ shape }, i) => ({ dtype: dtypes?.[i] ?? "f64", shape }));
  const types = typed(inputs);
  const results = rules.infer(op, types);
  const space = rules.space(op, types, results);
  checkSizes(space, types, results, uncovered);
  const whole = rules.evaluate(op, inputs, results);
  const cut: string[] = [];
  for (const [loop, { name, size, kind }] of space.loops.entries()) {
    const indices = [...space.operands, ...space.results].flat();
    const shapes = [...types, ...results].flatMap((type) => type.shape);
    const windowed = indices.some(
      (index, i) => index.includes(loop) && !isMixedRadix(space, index, shapes[i] as number),
    );
    if (size < 2 || windowed || (kind !== "parallel" && kind !== "reduce")) continue;
    cut.push(name);
    const middle = Math.floor(size / 2);
    const parts = [[0, middle] as const, [middle, size] as const].map(([from, to]) => {
      const part = inputs.map((input, i) => restrict(input, space, space.operands[i] ?? [], loop, from, to));
      const partOp = resize(name, to - from);
      return rules.evaluate(partOp, part, rules.infer(partOp, typed(part)));
    });
    whole.forEach((expected, i) => {
      const index = space.results[i] ?? [];
      const what = `result ${i} of ${op.kind} with ${kind} loop ${name} cut at ${middle}`;
      if (kind === "reduce") {
        const [a, b] = parts.map((part) => part[i]) as [Dense, Dense];
        expectClose(
          { shape: a.shape, data: a.data.map((value, at) => value + (b.data[at] as number)) },
          expected,
          1e-12,
          what,
        );
      } else {
        expectClose(
          (parts[0] as readonly Dense[])[i] as Dense,
          restrict(expected, space, index, loop, 0, middle),
          1e-12,
          what,
        );
        expectClose(
          (parts[1] as readonly Dense[])[i] as Dense,
          restrict(expected, space, index, loop, middle, size),
          1e-12,
          what,
        );
      }
    });
  }
  return cut;
}

/** Every dim of every result is covered by the loops that index it. */
function checkSizes(
  space: IterationSpace,
  types: readonly TensorType[],
  results: readonly TensorType[],
  uncovered: readonly string[],
): void {
  expect(space.operands.map((index) => index.length)).toEqual(types.map((type) => type.shape.length));
  expect(space.results.map((index) => index.length)).toEqual(results.map((type) => type.shape.length));
  results.forEach((type, i) => {
    type.shape.forEach((size, dim) => {
      const [what, index] = [`result ${i}, dim ${dim}`, space.results[i]?.[dim] ?? []];
      if (uncovered.includes(what)) expect(index, what).toEqual([]);
      else expect(sizeOf(loopSizes(space, index)), what).toBe(size);
    });
  });
}

/** Floating-point operations of the whole space. */
export function flopsOf(space: IterationSpace): number {
  return space.loops.reduce((product, loop) => product * loop.size, space.flopsPerPoint);
}

function loopSizes(space: IterationSpace, index: DimIndex): number[] {
  return index.map((loop) => space.loops[loop]?.size ?? Number.NaN);
}

function isMixedRadix(space: IterationSpace, index: DimIndex, size: number): boolean {
  return sizeOf(loopSizes(space, index)) === size;
}

/** The part of a tensor that belongs to steps `from` to `to` of a loop. */
function restrict(
  x: Dense,
  space: IterationSpace,
  index: readonly DimIndex[],
  loop: number,
  from: number,
  to: number,
): Dense {
  return index.reduce((part, loops, dim) => {
    const at = loops.indexOf(loop);
    if (at < 0) return part;
    const inner = sizeOf(loopSizes(space, loops.slice(at + 1)));
    const size = space.loops[loop]?.size as number;
    return keep(part, dim, (i) => {
      const step = Math.floor(i / inner) % size;
      return step >= from && step < to;
    });
  }, x);
}

/** The elements of `x` whose index along `dim` is wanted. */
function keep(x: Dense, dim: number, wanted: (index: number) => boolean): Dense {
  const size = x.shape[dim] as number;
  const stride = stridesOf(x.shape)[dim] as number;
  const count = Array.from({ length: size }, (_, i) => i).filter(wanted).length;
  return {
    shape: x.shape.with(dim, count),
    data: x.data.filter((_, element) => wanted(Math.floor(element / stride) % size)),
  };
}
