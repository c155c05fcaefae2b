/** Pooling over windows and its gradients. */

import type { Window } from "../../graph/op.ts";
import { sizeOf } from "../../graph/shape.ts";
import type { Emitter } from "../emitter.ts";
import type { OnnxAttributes } from "../model.ts";
import { type Lowering, operand, operandType, resultType, type Site } from "../site.ts";
import { kernelElements, paddedBy, seenBy } from "./window.ts";

type Four = readonly [number, number, number, number];

/** What the four operations have in common. */
interface Pooling {
  readonly window: Window;
  readonly kernel: readonly [number, number];
}

type PoolingKind = "max-pool" | "max-pool-grad" | "avg-pool" | "avg-pool-grad";

function windowAttributes({ kernel, window }: Pooling): OnnxAttributes {
  return {
    kernel_shape: kernel,
    strides: window.stride,
    pads: window.pad,
    dilations: window.dilation,
  };
}

/**
 * For each element of the kernel in row-major order: the windows of which it is the first maximum, found by comparing the input as
 * that element saw it with the result. (`MaxPool` can return the winners' offsets, but is then 17 times slower.)
 */
const maxPoolGrad: Lowering<"max-pool-grad"> = (op, site) => {
  const { emitter } = site;
  const { dtype } = resultType(site);
  const [y, dy] = [operand(site, 1), operand(site, 2)];
  const x = paddedBy(site, op.window, Number.NEGATIVE_INFINITY);
  const extent = operandType(site, 2).shape.slice(2) as [number, number];
  const shares: string[] = [];
  let open: string | undefined;
  for (const element of kernelElements(op.kernel)) {
    const equal = emitter.emit("Equal", [seenBy(site, op.window, x, element, extent), y]);
    const wins = open === undefined ? equal : emitter.emit("And", [equal, open]);
    shares.push(emitter.emit("Where", [wins, dy, emitter.scalar(dtype, 0)]));
    const lost = emitter.emit("Not", [wins]);
    open = open === undefined ? lost : emitter.emit("And", [open, lost]);
  }
  return [placed(op, site, shares)];
};

/** Adds up, at every element of the input, what each element of the kernel sends there: one [n, c, oh, ow] tensor for each. */
function placed(op: Pooling, site: Site, shares: readonly string[]): string {
  const { emitter } = site;
  const { dtype, shape } = resultType(site);
  const [n, c, height, width] = shape as Four;
  const [oh, ow] = operandType(site, site.inputs.length - 1).shape.slice(2) as [number, number];
  if (tilesExactly(op, [height, width])) {
    const [kh, kw] = op.kernel;
    const columns = shares.map((share) => emitter.reshape(share, [n * c, oh, ow, 1]));
    const rows = Array.from({ length: kh }, (_, row) =>
      emitter.reshape(joined(emitter, columns.slice(row * kw, (row + 1) * kw), 3), [n * c, oh, 1, width]),
    );
    return emitter.reshape(joined(emitter, rows, 2), shape);
  }
  const planes = shares.map((share) => emitter.reshape(share, [n * c, 1, oh, ow]));
  const count = shares.length;
  const unit = Array.from({ length: count * count }, (_, i) => (i % (count + 1) === 0 ? 1 : 0));
  const weight = emitter.constant(dtype, [count, 1, ...op.kernel], unit);
  return emitter.reshape(
    emitter.emit("ConvTranspose", [joined(emitter, planes, 1), weight], transposed(op, [height, width])),
    shape,
  );
}

function joined(emitter: Emitter, parts: readonly string[], axis: number): string {
  return parts.length === 1 ? (parts[0] as string) : emitter.emit("Concat", parts, { axis });
}

/** Attributes of the transposed convolution that takes results back to an image of this size. */
function transposed(op: Pooling, image: readonly [number, number]): OnnxAttributes {
  return { ...windowAttributes(op), output_padding: image.map((size, dim) => remainder(op, dim, size)) };
}

/** Each window sends its gradient, divided by the number of elements it averages, to all of them. */
const avgPoolGrad: Lowering<"avg-pool-grad"> = (op, site) => {
  const { emitter } = site;
  const { shape: out } = operandType(site, 0);
  const { dtype, shape } = resultType(site);
  const [n, c, height, width] = shape as Four;
  const [oh, ow] = [out[2] as number, out[3] as number];
  const shares = emitter.constant(dtype, [oh, ow], sharesOf(op, [height, width], [oh, ow]));
  const scaled = emitter.emit("Mul", [operand(site, 0), shares]);
  const planes = emitter.reshape(scaled, [n * c, 1, oh, ow]);
  const ones = emitter.constant(dtype, [1, 1, ...op.kernel], new Array<number>(sizeOf(op.kernel)).fill(1));
  const dx = emitter.emit("ConvTranspose", [planes, ones], transposed(op, [height, width]));
  return [emitter.reshape(dx, shape)];
};

/** Elements at the end of a dim that no window reaches. */
function remainder(op: Pooling, dim: number, size: number): number {
  const reach = ((op.kernel[dim] as number) - 1) * (op.window.dilation[dim] as number) + 1;
  const padded = size + (op.window.pad[dim] as number) + (op.window.pad[dim + 2] as number);
  return (padded - reach) % (op.window.stride[dim] as number);
}

function tilesExactly(op: Pooling, image: readonly number[]): boolean {
  const { stride, pad, dilation } = op.window;
  return (
    pad.every((count) => count === 0) &&
    [0, 1].every((dim) => {
      const kernel = op.kernel[dim] as number;
      const dense = dilation[dim] === 1 || kernel === 1;
      return kernel === stride[dim] && dense && (image[dim] as number) % kernel === 0;
    })
  );
}

/** 1 / (number of elements that a window sees), for every window. */
function sharesOf(op: Pooling, image: readonly number[], out: readonly number[]): number[] {
  const seen = [0, 1].map((dim) =>
    Array.from({ length: out[dim] as number }, (_, at) => {
      const start = at * (op.window.stride[dim] as number) - (op.window.pad[dim] as number);
      const taps = Array.from(
        { length: op.kernel[dim] as number },
        (_tap, k) => start + k * (op.window.dilation[dim] as number),
      );
      return taps.filter((index) => index >= 0 && index < (image[dim] as number)).length;
    }),
  ) as [number[], number[]];
  return seen[0].flatMap((rows) => seen[1].map((columns) => 1 / (rows * columns)));
}

export const pooling: { readonly [K in PoolingKind]: Lowering<K> } = {
  "max-pool": (op, site) => [site.emitter.emit("MaxPool", [operand(site, 0)], windowAttributes(op))],
  "max-pool-grad": maxPoolGrad,
  "avg-pool": (op, site) => [
    site.emitter.emit("AveragePool", [operand(site, 0)], {
      ...windowAttributes(op),
      count_include_pad: 0,
    }),
  ],
  "avg-pool-grad": avgPoolGrad,
};
