/**
 * Windows that slide over the last two dims of NCHW tensors; shared by convolution and pooling. Along one dim, with kernel 3,
 * stride 2, dilation 1, one element of padding (`.`) on both sides and an input of five elements:
 *
 *     input      . 0 1 2 3 4 .
 *     result 0  [k k k]
 *     result 1      [k k k]
 *     result 2          [k k k]
 *
 * Pictures of all cases: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning".
 */

import { isFloat } from "../dtype.ts";
import type { Window } from "../op.ts";
import { ShapeError } from "../op-rules.ts";
import { showType, type TensorType } from "../shape.ts";

/** Height and width: of an image, a kernel or a result. */
export type Extent = readonly [number, number];

/** One place where a window touches the input: result `result` reads element `input` with kernel element `kernel`. */
export interface Tap {
  readonly result: number;
  readonly kernel: number;
  readonly input: number;
}

/** A float tensor of four dims; throws a `ShapeError` naming `role` and what its dims should be otherwise. */
export function expectImage(
  type: TensorType,
  role: string,
  dims: string,
): readonly [number, number, number, number] {
  const [a, b, c, d] = type.shape;
  const fits = a !== undefined && b !== undefined && c !== undefined && d !== undefined;
  if (!fits || type.shape.length !== 4 || !isFloat(type.dtype)) {
    throw new ShapeError(`expects ${role} as floats ${dims}, got ${showType(type)}`);
  }
  return [a, b, c, d];
}

/** How many windows fit along both dims; throws a `ShapeError` with every reason why the window is not usable. */
export function resultExtent(window: Window, kernel: Extent, image: Extent): Extent {
  const problems = [
    ...wholeNumbers("stride", window.stride, 1),
    ...wholeNumbers("dilation", window.dilation, 1),
    ...wholeNumbers("kernel", kernel, 1),
    ...wholeNumbers("padding", window.pad, 0),
    ...wholeNumbers("height and width of the input", image, 1),
  ];
  const covered = [covers(window, kernel, 0), covers(window, kernel, 1)] as const;
  const padded = [paddedSize(window, image, 0), paddedSize(window, image, 1)] as const;
  if (problems.length === 0 && (covered[0] > padded[0] || covered[1] > padded[1])) {
    problems.push(
      `the kernel [${kernel}] with dilation [${window.dilation}] covers [${covered}] elements, but the input ` +
        `[${image}] with padding [${window.pad}] has only [${padded}]`,
    );
  }
  if (problems.length > 0) throw new ShapeError(problems.join("; "));
  return [
    Math.floor((padded[0] - covered[0]) / window.stride[0]) + 1,
    Math.floor((padded[1] - covered[1]) / window.stride[1]) + 1,
  ];
}

/** Every tap along one dim (0: height, 1: width) that falls on the input and not on its padding; by result, then kernel. */
export function tapsAlong(
  dim: 0 | 1,
  window: Window,
  kernel: Extent,
  image: Extent,
  result: Extent,
): readonly Tap[] {
  const taps: Tap[] = [];
  for (let at = 0; at < result[dim]; at++) {
    for (let element = 0; element < kernel[dim]; element++) {
      const input = at * window.stride[dim] + element * window.dilation[dim] - window.pad[dim];
      if (input >= 0 && input < image[dim]) taps.push({ result: at, kernel: element, input });
    }
  }
  return taps;
}

/** Elements from the first to the last that the kernel touches along one dim. */
function covers(window: Window, kernel: Extent, dim: 0 | 1): number {
  return (kernel[dim] - 1) * window.dilation[dim] + 1;
}

function paddedSize(window: Window, image: Extent, dim: 0 | 1): number {
  return window.pad[dim] + image[dim] + window.pad[dim === 0 ? 2 : 3];
}

function wholeNumbers(name: string, values: readonly number[], min: number): string[] {
  const valid = values.every((value) => Number.isSafeInteger(value) && value >= min);
  return valid ? [] : [`${name} must be whole numbers of at least ${min}, got [${values}]`];
}
