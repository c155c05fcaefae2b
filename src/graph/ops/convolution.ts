/**
 * Convolution over images (cross-correlation, as in every network library) and its two gradients. All three visit the same
 * products and differ only in which of the three tensors they add up:
 *
 *     y[n, o, oh, ow]  +=  x[n, c, oh·stride + kh·dilation - pad, ...] · w[o, c, kh, kw]
 *
 * That form is linear in each tensor, so that the derivatives of every one of them are the other two.
 */

import { only } from "../functions.ts";
import type { OpOf, Window } from "../op.ts";
import { type Dense, type Loop, type OpRules, ShapeError } from "../op-rules.ts";
import { type Shape, showType, sizeOf, type TensorType } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type NamedIndex, namedSpace } from "./named-space.ts";
import { type Extent, expectImage, resultExtent, tapsAlong } from "./window.ts";

type ConvolutionKind = "conv2d" | "conv2d-input-grad" | "conv2d-weight-grad";

export const convolution: { readonly [K in ConvolutionKind]: OpRules<K> } = {
  conv2d: {
    infer: (op, inputs) => {
      const [x, w] = inputs as [TensorType, TensorType];
      const [n, c, height, width] = expectImage(x, "the input", "[N, C, H, W]");
      const [o, channels, kh, kw] = expectImage(w, "the weight", "[O, C/groups, KH, KW]");
      expectSameDtype(x, w);
      expectGroups(op.groups, c, o, `input ${showType(x)} and weight ${showType(w)}`);
      if (channels * op.groups !== c) {
        throw new ShapeError(
          `input ${showType(x)} and weight ${showType(w)} do not fit together: the input has ${c} channels, ` +
            `the weight expects ${channels} in each of ${op.groups} groups`,
        );
      }
      return [{ dtype: x.dtype, shape: [n, o, ...resultExtent(op.window, [kh, kw], [height, width])] }];
    },
    space: (op, inputs, results) => {
      const sizes = sizesOf(op, [inputs[0], inputs[1], results[0]]);
      const loops = [
        loop(sizes, "n", "parallel"),
        ...groupLoop(op.groups),
        loop(sizes, "o", "parallel"),
        loop(sizes, "oh", "window"),
        loop(sizes, "ow", "window"),
        loop(sizes, "c", "reduce"),
        loop(sizes, "kh", "reduce"),
        loop(sizes, "kw", "reduce"),
      ];
      return namedSpace(loops, [windowedImage, weight], [resultImage], 2);
    },
    derive: (op, { inputs, gradients: [dy], wanted }) => {
      const [x, w] = inputs as [Tensor, Tensor];
      if (!dy) return [undefined, undefined];
      return [
        wanted[0] ? inputGradient(op, dy, w, x) : undefined,
        wanted[1] ? weightGradient(op, x, dy, w) : undefined,
      ];
    },
    evaluate: (op, inputs, [type]) => {
      const [x, w] = inputs as [Dense, Dense];
      const y = zeros(type as TensorType);
      forEachProduct(op, x.shape, w.shape, y.shape, (xi, wi, yi) => accumulate(y, yi, x, xi, w, wi));
      return [y];
    },
  },

  "conv2d-input-grad": {
    infer: (op, inputs) => {
      const [dy, w] = inputs as [TensorType, TensorType];
      const [n, o, oh, ow] = expectImage(dy, "the gradient", "[N, O, H', W']");
      const [outputs, channels, kh, kw] = expectImage(w, "the weight", "[O, C/groups, KH, KW]");
      const operands = `gradient ${showType(dy)} and weight ${showType(w)}`;
      expectSameDtype(dy, w);
      const c = channels * op.groups;
      expectGroups(op.groups, c, o, operands);
      if (outputs !== o) {
        throw new ShapeError(
          `${operands} do not fit together: ${o} channels of the gradient, ${outputs} of the weight`,
        );
      }
      expectExtent(resultExtent(op.window, [kh, kw], [op.height, op.width]), [oh, ow], operands);
      return [{ dtype: dy.dtype, shape: [n, c, op.height, op.width] }];
    },
    space: (op, inputs, results) => {
      const sizes = sizesOf(op, [results[0], inputs[1], inputs[0]]);
      const loops = [
        loop(sizes, "n", "parallel"),
        ...groupLoop(op.groups),
        loop(sizes, "c", "parallel"),
        loop(sizes, "ih", "window"),
        loop(sizes, "iw", "window"),
        loop(sizes, "o", "reduce"),
        loop(sizes, "kh", "reduce"),
        loop(sizes, "kw", "reduce"),
      ];
      const hits = (sizes.oh * sizes.ow) / (sizes.ih * sizes.iw);
      return namedSpace(
        loops,
        [["n", "g o", "ih kh", "iw kw"], weight],
        [["n", "g c", "ih", "iw"]],
        2 * hits,
      );
    },
    derive: (op, { inputs, gradients: [dx], wanted }) => {
      const [dy, w] = inputs as [Tensor, Tensor];
      if (!dx) return [undefined, undefined];
      return [
        wanted[0] ? forward(op, dx, w) : undefined,
        wanted[1] ? weightGradient(op, dx, dy, w) : undefined,
      ];
    },
    evaluate: (op, inputs, [type]) => {
      const [dy, w] = inputs as [Dense, Dense];
      const dx = zeros(type as TensorType);
      forEachProduct(op, dx.shape, w.shape, dy.shape, (xi, wi, yi) => accumulate(dx, xi, dy, yi, w, wi));
      return [dx];
    },
  },

  "conv2d-weight-grad": {
    infer: (op, inputs) => {
      const [x, dy] = inputs as [TensorType, TensorType];
      const [n, c, height, width] = expectImage(x, "the input", "[N, C, H, W]");
      const [samples, o, oh, ow] = expectImage(dy, "the gradient", "[N, O, H', W']");
      const operands = `input ${showType(x)} and gradient ${showType(dy)}`;
      expectSameDtype(x, dy);
      expectGroups(op.groups, c, o, operands);
      if (samples !== n) {
        throw new ShapeError(
          `${operands} do not fit together: ${n} samples of the input, ${samples} of the gradient`,
        );
      }
      expectExtent(resultExtent(op.window, op.kernel, [height, width]), [oh, ow], operands);
      return [{ dtype: x.dtype, shape: [o, c / op.groups, ...op.kernel] }];
    },
    space: (op, inputs, results) => {
      const sizes = sizesOf(op, [inputs[0], results[0], inputs[1]]);
      const loops = [
        ...groupLoop(op.groups),
        loop(sizes, "o", "parallel"),
        loop(sizes, "c", "parallel"),
        loop(sizes, "kh", "parallel"),
        loop(sizes, "kw", "parallel"),
        loop(sizes, "n", "reduce"),
        loop(sizes, "oh", "reduce"),
        loop(sizes, "ow", "reduce"),
      ];
      return namedSpace(loops, [windowedImage, resultImage], [weight], 2);
    },
    derive: (op, { inputs, gradients: [dw], wanted }) => {
      const [x, dy] = inputs as [Tensor, Tensor];
      if (!dw) return [undefined, undefined];
      return [
        wanted[0] ? inputGradient(op, dy, dw, x) : undefined,
        wanted[1] ? forward(op, x, dw) : undefined,
      ];
    },
    evaluate: (op, inputs, [type]) => {
      const [x, dy] = inputs as [Dense, Dense];
      const dw = zeros(type as TensorType);
      forEachProduct(op, x.shape, dw.shape, dy.shape, (xi, wi, yi) => accumulate(dw, wi, x, xi, dy, yi));
      return [dw];
    },
  },
};

/** What the three operations have in common. */
interface Convolution {
  readonly window: Window;
  readonly groups: number;
}

function forward({ window, groups }: Convolution, x: Tensor, w: Tensor): Tensor {
  return only(x.scope.apply({ kind: "conv2d", window, groups }, [x, w]));
}

/** Gradient of the input; `x` gives its height and width. */
function inputGradient({ window, groups }: Convolution, dy: Tensor, w: Tensor, x: Tensor): Tensor {
  const [, , height, width] = x.shape as Image;
  return only(dy.scope.apply({ kind: "conv2d-input-grad", window, groups, height, width }, [dy, w]));
}

/** Gradient of the weight; `w` gives the size of its kernel. */
function weightGradient({ window, groups }: Convolution, x: Tensor, dy: Tensor, w: Tensor): Tensor {
  const [, , kh, kw] = w.shape as Image;
  return only(x.scope.apply({ kind: "conv2d-weight-grad", window, groups, kernel: [kh, kw] }, [x, dy]));
}

function expectSameDtype(a: TensorType, b: TensorType): void {
  if (a.dtype !== b.dtype)
    throw new ShapeError(`operands ${showType(a)} and ${showType(b)} have different types`);
}

function expectGroups(groups: number, c: number, o: number, operands: string): void {
  if (Number.isSafeInteger(groups) && groups >= 1 && c % groups === 0 && o % groups === 0) return;
  throw new ShapeError(
    `${operands} do not fit together: ${groups} groups must divide the ${c} input channels and the ${o} output channels`,
  );
}

function expectExtent(expected: Extent, got: Extent, operands: string): void {
  if (expected[0] === got[0] && expected[1] === got[1]) return;
  throw new ShapeError(
    `${operands} do not fit together: the window gives a result of [${expected}], the gradient has [${got}]`,
  );
}

const windowedImage: NamedIndex = ["n", "g c", "oh kh", "ow kw"];
const weight: NamedIndex = ["g o", "c", "kh", "kw"];
const resultImage: NamedIndex = ["n", "g o", "oh", "ow"];

type Image = readonly [number, number, number, number];
type Sizes = Readonly<Record<"n" | "o" | "c" | "ih" | "iw" | "oh" | "ow" | "kh" | "kw", number>>;

/** Loop sizes from the types of input, weight and result; `o` and `c` are channels of one group. */
function sizesOf(op: Convolution, types: readonly (TensorType | undefined)[]): Sizes {
  const [x, w, y] = types as [TensorType, TensorType, TensorType];
  const [, , ih, iw] = x.shape as Image;
  const [outputs, c, kh, kw] = w.shape as Image;
  const [n, , oh, ow] = y.shape as Image;
  return { n, o: outputs / op.groups, c, ih, iw, oh, ow, kh, kw };
}

function loop(sizes: Sizes, name: keyof Sizes, kind: Loop["kind"]): Loop {
  return { name, size: sizes[name], kind };
}

function groupLoop(groups: number): readonly Loop[] {
  return groups > 1 ? [{ name: "g", size: groups, kind: "parallel" }] : [];
}

/** Calls `visit` with the offsets of input, weight and result of every product that does not fall on padding. */
function forEachProduct(
  op: OpOf<ConvolutionKind>,
  x: Shape,
  w: Shape,
  y: Shape,
  visit: (xi: number, wi: number, yi: number) => void,
): void {
  const [samples, c, ih, iw] = x as Image;
  const [o, perGroup, kh, kw] = w as Image;
  const [, , oh, ow] = y as Image;
  const rows = tapsAlong(0, op.window, [kh, kw], [ih, iw], [oh, ow]);
  const columns = tapsAlong(1, op.window, [kh, kw], [ih, iw], [oh, ow]);
  const outputsPerGroup = o / op.groups;
  for (let plane = 0; plane < samples * o; plane++) {
    const [sample, output] = [Math.floor(plane / o), plane % o];
    const firstChannel = sample * c + Math.floor(output / outputsPerGroup) * perGroup;
    for (let channel = 0; channel < perGroup; channel++) {
      for (const row of rows) {
        const xRow = ((firstChannel + channel) * ih + row.input) * iw;
        const wRow = ((output * perGroup + channel) * kh + row.kernel) * kw;
        const yRow = (plane * oh + row.result) * ow;
        for (const column of columns) visit(xRow + column.input, wRow + column.kernel, yRow + column.result);
      }
    }
  }
}

function zeros(type: TensorType): Dense {
  return { shape: type.shape, data: new Float64Array(sizeOf(type.shape)) };
}

/** sum[at] += a[i] · b[j]. */
function accumulate(sum: Dense, at: number, a: Dense, i: number, b: Dense, j: number): void {
  sum.data[at] = (sum.data[at] as number) + (a.data[i] as number) * (b.data[j] as number);
}
