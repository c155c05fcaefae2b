/** Reading an image through one element of a sliding window. */

import type { Window } from "../../graph/op.ts";
import { operand, operandType, type Site } from "../site.ts";

/** Operand 0, an image, with `value` around it. */
export function paddedBy(site: Site, { pad }: Window, value: number): string {
  const { emitter } = site;
  const x = operand(site, 0);
  if (pad.every((count) => count === 0)) return x;
  const counts = emitter.ints([0, 0, pad[0], pad[1], 0, 0, pad[2], pad[3]]);
  return emitter.emit("Pad", [x, counts, emitter.scalar(operandType(site, 0).dtype, value)]);
}

/** The elements of the padded image that one element (row, column) of the kernel meets: [n, c, oh, ow]. */
export function seenBy(
  site: Site,
  { stride, dilation, pad }: Window,
  padded: string,
  element: readonly [number, number],
  extent: readonly [number, number],
): string {
  const { emitter } = site;
  const image = operandType(site, 0).shape.slice(2);
  const start = element.map((at, dim) => at * (dilation[dim] as number));
  const stop = start.map((from, dim) => from + ((extent[dim] as number) - 1) * (stride[dim] as number) + 1);
  const isWhole = image.every(
    (size, dim) =>
      start[dim] === 0 &&
      stride[dim] === 1 &&
      stop[dim] === size + (pad[dim] as number) + (pad[dim + 2] as number),
  );
  if (isWhole) return padded;
  const bounds = [start, stop, [2, 3], stride].map((list) => emitter.ints(list));
  return emitter.emit("Slice", [padded, ...bounds]);
}

/** Row and column of every element of a kernel, row by row. */
export function kernelElements(kernel: readonly [number, number]): readonly (readonly [number, number])[] {
  return Array.from({ length: kernel[0] * kernel[1] }, (_, i) => [Math.floor(i / kernel[1]), i % kernel[1]]);
}
