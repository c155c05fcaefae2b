/**
 * Operations over the devices of a mesh, one operand and one result for each rank. In a graph they stand for what the devices exchange,
 * so that a split graph can be evaluated, and compared with the whole one, before there is any program.
 *
 *     all-reduce       x₀, x₁            → x₀ + x₁, x₀ + x₁
 *     all-gather       x₀, x₁            → [x₀; x₁], [x₀; x₁]
 *     reduce-scatter   [a₀; b₀], [a₁; b₁] → a₀ + a₁, b₀ + b₁
 */

import type { OpOf } from "../op.ts";
import { type Dense, type IterationSpace, type OpRules, ShapeError } from "../op-rules.ts";
import { sameShape, sameType, showType, sizeOf, type TensorType } from "../shape.ts";

type CollectiveKind = "all-reduce" | "all-gather" | "reduce-scatter";

/** Every rank waits for all others: nothing in it can be split further. */
function wholeSpace(inputs: readonly TensorType[], results: readonly TensorType[]): IterationSpace {
  const index = ({ shape }: TensorType) => shape.map(() => []);
  return { loops: [], operands: inputs.map(index), results: results.map(index), flopsPerPoint: 0 };
}

function total(reduce: OpOf<"all-reduce">["reduce"], inputs: readonly Dense[]): Float64Array {
  const combine = reduce === "sum" ? (a: number, b: number) => a + b : Math.max;
  const [first, ...others] = inputs as readonly [Dense, ...Dense[]];
  return first.data.map((value, i) =>
    others.reduce((sum, { data }) => combine(sum, data[i] as number), value),
  );
}

/** Rows of dim 0 of all operands; throws where the other dims differ. */
function rowsOf(inputs: readonly TensorType[]): number {
  const [first] = inputs as readonly [TensorType, ...TensorType[]];
  const fits = inputs.every(
    ({ dtype, shape }) =>
      shape.length > 0 && dtype === first.dtype && sameShape(shape.slice(1), first.shape.slice(1)),
  );
  if (!fits)
    throw new ShapeError(`operands must differ in dim 0 only, got ${inputs.map(showType).join(", ")}`);
  return inputs.reduce((sum, { shape }) => sum + (shape[0] as number), 0);
}

/** The one type of all operands; throws where they differ or cannot be combined. */
function checkEqual(inputs: readonly TensorType[]): TensorType {
  const [first] = inputs as readonly [TensorType, ...TensorType[]];
  if (!inputs.every((type) => sameType(type, first)))
    throw new ShapeError(`operands must have one type, got ${inputs.map(showType).join(", ")}`);
  if (first.dtype === "bool") throw new ShapeError(`expects numbers, got ${showType(first)}`);
  return first;
}

export const collective: { readonly [K in CollectiveKind]: OpRules<K> } = {
  "all-reduce": {
    infer: (_op, inputs) => {
      checkEqual(inputs);
      return inputs;
    },
    space: (_op, inputs, results) => wholeSpace(inputs, results),
    derive: null,
    evaluate: (op, inputs) => {
      const data = total(op.reduce, inputs);
      return inputs.map(({ shape }) => ({ shape, data }));
    },
  },
  "all-gather": {
    infer: (_op, inputs) => {
      const rows = rowsOf(inputs);
      return inputs.map(({ dtype, shape }) => ({ dtype, shape: shape.with(0, rows) }));
    },
    space: (_op, inputs, results) => wholeSpace(inputs, results),
    derive: null,
    evaluate: (_op, inputs, results) => {
      const { shape } = results[0] as TensorType;
      const data = new Float64Array(sizeOf(shape));
      let at = 0;
      for (const part of inputs) {
        data.set(part.data, at);
        at += part.data.length;
      }
      return inputs.map(() => ({ shape, data }));
    },
  },
  "reduce-scatter": {
    infer: (op, inputs) => {
      const { dtype, shape } = checkEqual(inputs);
      const rows = op.sizes.reduce((sum, size) => sum + size, 0);
      if (shape[0] !== rows || op.sizes.length !== inputs.length)
        throw new ShapeError(
          `parts of [${op.sizes}] rows do not make up ${inputs.length} operands of ${showType({ dtype, shape })}`,
        );
      return op.sizes.map((size) => ({ dtype, shape: shape.with(0, size) }));
    },
    space: (_op, inputs, results) => wholeSpace(inputs, results),
    derive: null,
    evaluate: (_op, inputs, results) => {
      const data = total("sum", inputs);
      let at = 0;
      return results.map(({ shape }) => {
        const size = sizeOf(shape);
        at += size;
        return { shape, data: data.subarray(at - size, at) };
      });
    },
  },
};
