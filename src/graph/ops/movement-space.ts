/** Iteration spaces of operations that only move elements. */

import type { DimIndex, IterationSpace, Loop } from "../op-rules.ts";
import { type Shape, sizeOf, type TensorType } from "../shape.ts";

/** One parallel loop for each dim. */
export function parallelLoops(shape: Shape): Loop[] {
  return shape.map((size, dim) => ({ name: `d${dim}`, size, kind: "parallel" }));
}

/** A slice or pad: dims that keep their size are parallel, the others are needed whole. */
export function partSpace(operand: Shape, result: Shape): IterationSpace {
  const index: DimIndex[] = result.map((_, dim) => [dim]);
  return {
    loops: result.map((size, dim) => ({
      name: `d${dim}`,
      size,
      kind: operand[dim] === size ? "parallel" : "whole",
    })),
    operands: [index.map((loops, dim) => (operand[dim] === result[dim] ? loops : []))],
    results: [index],
    flopsPerPoint: 0,
  };
}

/** Concat and split: every dim but the joined one is parallel. */
export function joinSpace(
  dim: number,
  inputs: readonly TensorType[],
  results: readonly TensorType[],
): IterationSpace {
  const whole = inputs.length === 1 ? (inputs[0] as TensorType) : (results[0] as TensorType);
  const index = (type: TensorType): DimIndex[] =>
    type.shape.map((_, i) => (i === dim && type !== whole ? [] : [i]));
  return {
    loops: whole.shape.map((size, i) => ({ name: `d${i}`, size, kind: i === dim ? "whole" : "parallel" })),
    operands: inputs.map(index),
    results: results.map(index),
    flopsPerPoint: 0,
  };
}

/**
 * Matches runs of dims with equal products. In a run of one dim against several, the loops are the finer dims and the
 * coarse dim is indexed by all of them, outermost first; a run of several against several is needed whole, with the result's
 * dims as its loops. So is a tensor without elements.
 */
export function reshapeSpace(from: Shape, to: Shape): IterationSpace {
  if (sizeOf(to) === 0) return wholeSpace(from, to);
  const loops: Loop[] = [];
  const operand: DimIndex[] = [];
  const result: DimIndex[] = [];
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    const run = matchRun(from, to, i, j);
    const isWhole = run.from.length > 1 && run.to.length > 1;
    const fine = isWhole || run.from.length < run.to.length ? run.to : run.from;
    const indices = fine.map(
      (size) => loops.push({ name: `d${loops.length}`, size, kind: isWhole ? "whole" : "parallel" }) - 1,
    );
    const index = (dims: readonly number[]): DimIndex[] =>
      dims.length < 2 ? dims.map(() => indices) : indices.map((loop) => [loop]);
    operand.push(...(isWhole ? run.from.map(() => []) : index(run.from)));
    result.push(...index(run.to));
    i += run.from.length;
    j += run.to.length;
  }
  return { loops, operands: [operand], results: [result], flopsPerPoint: 0 };
}

function wholeSpace(from: Shape, to: Shape): IterationSpace {
  return {
    loops: to.map((size, dim) => ({ name: `d${dim}`, size, kind: "whole" })),
    operands: [from.map(() => [])],
    results: [to.map((_, dim) => [dim])],
    flopsPerPoint: 0,
  };
}

/** The shortest runs of dims from i and j whose sizes multiply to the same number; trailing ones join the last run. */
function matchRun(from: Shape, to: Shape, i: number, j: number): { from: number[]; to: number[] } {
  let [endFrom, endTo] = [Math.min(i + 1, from.length), Math.min(j + 1, to.length)];
  let [a, b] = [sizeOf(from.slice(i, endFrom)), sizeOf(to.slice(j, endTo))];
  while (a !== b) {
    if (endFrom < from.length && (a < b || endTo === to.length)) a *= from[endFrom++] as number;
    else b *= to[endTo++] as number;
  }
  while (endTo === to.length && endFrom < from.length && from[endFrom] === 1) endFrom++;
  while (endFrom === from.length && endTo < to.length && to[endTo] === 1) endTo++;
  return { from: from.slice(i, endFrom), to: to.slice(j, endTo) };
}
