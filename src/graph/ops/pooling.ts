/**
 * Maximum and average over sliding windows, channel by channel, and their gradients. Padding never takes part: it is not
 * counted in an average and never is a maximum, so that a window with nothing but padding has no value and is refused.
 */

import { only } from "../functions.ts";
import type { Window } from "../op.ts";
import { type Dense, type IterationSpace, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { sameShape, showType, sizeOf, type TensorType } from "../shape.ts";
import { namedSpace } from "./named-space.ts";
import { type Extent, expectImage, resultExtent, tapsAlong } from "./window.ts";

type PoolingKind = "max-pool" | "max-pool-grad" | "avg-pool" | "avg-pool-grad";

export const pooling: { readonly [K in PoolingKind]: OpRules<K> } = {
  "max-pool": {
    infer: (op, [x]) => [pooled(op, x as TensorType)],
    space: (op, inputs, results) => forwardSpace(op, inputs, results, "whole"),
    derive: ({ window, kernel }, { inputs: [x], outputs: [y], gradients: [dy] }) =>
      x && y && dy
        ? [only(x.scope.apply({ kind: "max-pool-grad", window, kernel }, [x, y, dy]))]
        : [undefined],
    evaluate: (op, [input], [type]) => {
      const x = input as Dense;
      const y = zeros((type as TensorType).shape);
      forEachWindow(op, x.shape, y.shape, (window, at) => {
        y.data[at] = x.data[firstMaximum(window, x.data)] as number;
      });
      return [y];
    },
  },

  "max-pool-grad": {
    infer: (op, inputs) => {
      const [x, y, dy] = inputs as [TensorType, TensorType, TensorType];
      const expected = pooled(op, x);
      expectType(y, expected, `the result of pooling ${showType(x)}`);
      expectType(dy, expected, `the gradient of pooling ${showType(x)}`);
      return [x];
    },
    space: (op, inputs, results) => backwardSpace(op, inputs, results, 2),
    derive: null,
    evaluate: (op, inputs) => {
      const [x, , dy] = inputs as [Dense, Dense, Dense];
      const dx = zeros(x.shape);
      forEachWindow(op, x.shape, dy.shape, (window, at) => {
        const winner = firstMaximum(window, x.data);
        dx.data[winner] = (dx.data[winner] as number) + (dy.data[at] as number);
      });
      return [dx];
    },
  },

  "avg-pool": {
    infer: (op, [x]) => [pooled(op, x as TensorType)],
    space: (op, inputs, results) => forwardSpace(op, inputs, results, "reduce"),
    derive: ({ window, kernel }, { inputs: [x], gradients: [dy] }) => {
      if (!x || !dy) return [undefined];
      const [, , height, width] = x.shape as [number, number, number, number];
      return [only(dy.scope.apply({ kind: "avg-pool-grad", window, kernel, height, width }, [dy]))];
    },
    evaluate: (op, [input], [type]) => {
      const x = input as Dense;
      const y = zeros((type as TensorType).shape);
      forEachWindow(op, x.shape, y.shape, (window, at) => {
        const total = window.reduce((sum, index) => sum + (x.data[index] as number), 0);
        y.data[at] = total / window.length;
      });
      return [y];
    },
  },

  "avg-pool-grad": {
    infer: (op, [gradient]) => {
      const dy = gradient as TensorType;
      const [n, c] = expectImage(dy, "the gradient", "[N, C, H', W']");
      const x: TensorType = { dtype: dy.dtype, shape: [n, c, op.height, op.width] };
      expectType(dy, pooled(op, x), `the gradient of pooling ${showType(x)}`);
      return [x];
    },
    space: (op, inputs, results) => backwardSpace(op, inputs, results, 1),
    derive: ({ window, kernel }, { gradients: [dx] }) =>
      dx ? [only(dx.scope.apply({ kind: "avg-pool", window, kernel }, [dx]))] : [undefined],
    evaluate: (op, [gradient], [type]) => {
      const dy = gradient as Dense;
      const dx = zeros((type as TensorType).shape);
      forEachWindow(op, dx.shape, dy.shape, (window, at) => {
        const share = (dy.data[at] as number) / window.length;
        for (const index of window) dx.data[index] = (dx.data[index] as number) + share;
      });
      return [dx];
    },
  },
};

/** What the four operations have in common. */
interface Pooling {
  readonly window: Window;
  readonly kernel: Extent;
}

/** Type of the result of pooling `x`. */
function pooled(op: Pooling, x: TensorType): TensorType {
  const [n, c, height, width] = expectImage(x, "the input", "[N, C, H, W]");
  const image: Extent = [height, width];
  const result = resultExtent(op.window, op.kernel, image);
  for (const dim of [0, 1] as const) {
    const touched = new Set(tapsAlong(dim, op.window, op.kernel, image, result).map((tap) => tap.result));
    if (touched.size < result[dim]) {
      throw new ShapeError(
        `input ${showType(x)} and kernel [${op.kernel}] do not fit together: with padding [${op.window.pad}] ` +
          "some windows would see nothing but padding",
      );
    }
  }
  return { dtype: x.dtype, shape: [n, c, ...result] };
}

function expectType(got: TensorType, expected: TensorType, what: string): void {
  if (got.dtype === expected.dtype && sameShape(got.shape, expected.shape)) return;
  throw new ShapeError(`${what} with this window must be ${showType(expected)}, got ${showType(got)}`);
}

/** `taps`: an average adds up what its window sees, a maximum needs all of it. */
function forwardSpace(
  op: Pooling,
  inputs: readonly TensorType[],
  results: readonly TensorType[],
  taps: "reduce" | "whole",
): IterationSpace {
  const [y] = results as [TensorType];
  const loops = [
    ...planeLoops(y),
    { name: "oh", size: y.shape[2] as number, kind: "window" as const },
    { name: "ow", size: y.shape[3] as number, kind: "window" as const },
    { name: "kh", size: op.kernel[0], kind: taps },
    { name: "kw", size: op.kernel[1], kind: taps },
  ];
  const seen = ["n", "c", "oh kh", "ow kw"];
  return namedSpace(
    loops,
    inputs.map(() => seen),
    [["n", "c", "oh", "ow"]],
    1,
  );
}

/** Every element of the input adds up what the windows that see it send back; all operands are seen through windows. */
function backwardSpace(
  op: Pooling,
  inputs: readonly TensorType[],
  results: readonly TensorType[],
  flopsPerTap: number,
): IterationSpace {
  const [dy, dx] = [inputs.at(-1), results[0]] as [TensorType, TensorType];
  const loops = [
    ...planeLoops(dx),
    { name: "ih", size: dx.shape[2] as number, kind: "window" as const },
    { name: "iw", size: dx.shape[3] as number, kind: "window" as const },
    { name: "kh", size: op.kernel[0], kind: "reduce" as const },
    { name: "kw", size: op.kernel[1], kind: "reduce" as const },
  ];
  const seen = ["n", "c", "ih kh", "iw kw"];
  const hits = sizeOf(dy.shape.slice(2)) / sizeOf(dx.shape.slice(2));
  return namedSpace(
    loops,
    inputs.map(() => seen),
    [["n", "c", "ih", "iw"]],
    flopsPerTap * hits,
  );
}

function planeLoops(type: TensorType): readonly Loop[] {
  return [
    { name: "n", size: type.shape[0] as number, kind: "parallel" },
    { name: "c", size: type.shape[1] as number, kind: "parallel" },
  ];
}

/** Calls `visit` for every result with the offsets, in row-major order, of the input elements that its window sees. */
function forEachWindow(
  op: Pooling,
  x: readonly number[],
  y: readonly number[],
  visit: (window: readonly number[], at: number) => void,
): void {
  const [image, result] = [x.slice(2), y.slice(2)] as unknown as [Extent, Extent];
  const rows = tapsAlong(0, op.window, op.kernel, image, result);
  const columns = tapsAlong(1, op.window, op.kernel, image, result);
  const windows = Array.from({ length: sizeOf(result) }, (): number[] => []);
  for (const row of rows) {
    for (const column of columns) {
      windows[row.result * result[1] + column.result]?.push(row.input * image[1] + column.input);
    }
  }
  for (let plane = 0; plane < sizeOf(x.slice(0, 2)); plane++) {
    windows.forEach((window, at) => {
      visit(
        window.map((index) => plane * sizeOf(image) + index),
        plane * windows.length + at,
      );
    });
  }
}

/** The offset in `window` of the largest value, the first one of several; a NaN wins. */
function firstMaximum(window: readonly number[], values: Float64Array): number {
  return window.reduce((best, index) => {
    const [value, most] = [values[index] as number, values[best] as number];
    return value > most || (Number.isNaN(value) && !Number.isNaN(most)) ? index : best;
  });
}

function zeros(shape: readonly number[]): Dense {
  return { shape, data: new Float64Array(sizeOf(shape)) };
}
