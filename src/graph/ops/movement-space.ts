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
 * coarse dim is indexed by all of them, outermost first; a run of several against several is needed whole.
 */
export function reshapeSpace(from: Shape, to: Shape): IterationSpace {
  const loops: Loop[] = [];
  const operand: DimIndex[] = [];
  const result: DimIndex[] = [];
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    const run = matchRun(from, to, i, j);
    const [fine, coarse] = run.from.length >= run.to.length ? [run.from, run.to] : [run.to, run.from];
    const kind = coarse.length <= 1 ? "parallel" : "whole";
    const indices = fine.map((size, at) => loops.push({ name: `d${loops.length + at}`, size, kind }) - 1);
    const single = indices.map((loop) => [loop]);
    const joint = coarse.map(() => (coarse.length === 1 ? indices : []));
    operand.push(...(fine === run.from ? single : joint));
    result.push(...(fine === run.from ? (coarse.length === fine.length ? single : joint) : single));
    i += run.from.length;
    j += run.to.length;
  }
  return { loops, operands: [operand], results: [result], flopsPerPoint: 0 };
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
