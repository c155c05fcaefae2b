/** Pooling over windows and its gradients. */

import type { OpOf } from "../../graph/op.ts";
import { sizeOf } from "../../graph/shape.ts";
import type { OnnxAttributes } from "../model.ts";
import { type Lowering, operand, operandType, resultType, type Site } from "../site.ts";

type PoolingKind = "max-pool" | "max-pool-grad" | "avg-pool" | "avg-pool-grad";

function windowAttributes({ kernel, window }: OpOf<PoolingKind>): OnnxAttributes {
  return {
    kernel_shape: kernel,
    strides: window.stride,
    pads: window.pad,
    dilations: window.dilation,
  };
}

/** ONNX Runtime's `MaxPool` names the first maximum of a window by its offset in the whole tensor. */
const maxPoolGrad: Lowering<"max-pool-grad"> = (op, site) => {
  const { emitter } = site;
  const { dtype, shape } = resultType(site);
  const [, winners] = emitter.emitMany("MaxPool", [operand(site, 0)], windowAttributes(op), [true, true]);
  const count = sizeOf(operandType(site, 2).shape);
  const dx = emitter.emit(
    "ScatterElements",
    [
      emitter.filled(dtype, [sizeOf(shape)], 0),
      emitter.reshape(winners as string, [count]),
      emitter.reshape(operand(site, 2), [count]),
    ],
    { axis: 0, reduction: windowsAreApart(op) ? "none" : "add" },
  );
  return [emitter.reshape(dx, shape)];
};

/** True when no element of the input is seen by two windows. */
function windowsAreApart({ kernel, window }: OpOf<PoolingKind>): boolean {
  return [0, 1].every(
    (dim) =>
      ((kernel[dim] as number) - 1) * (window.dilation[dim] as number) < (window.stride[dim] as number),
  );
}

/** Each window sends its gradient, divided by the number of elements it averages, to all of them. */
const avgPoolGrad: Lowering<"avg-pool-grad"> = (op, site) => {
  const { emitter } = site;
  const { shape: out } = operandType(site, 0);
  const { dtype, shape } = resultType(site);
  const [n, c, height, width] = shape as readonly [number, number, number, number];
  const [oh, ow] = [out[2] as number, out[3] as number];
  const shares = emitter.constant(dtype, [oh, ow], sharesOf(op, [height, width], [oh, ow]));
  const scaled = emitter.emit("Mul", [operand(site, 0), shares]);
  if (tilesExactly(op, [height, width])) return [repeated(site, scaled, op, out)];
  const planes = emitter.reshape(scaled, [n * c, 1, oh, ow]);
  const ones = emitter.constant(dtype, [1, 1, ...op.kernel], new Array<number>(sizeOf(op.kernel)).fill(1));
  const dx = emitter.emit("ConvTranspose", [planes, ones], {
    ...windowAttributes(op),
    output_padding: [0, 1].map((dim) => remainder(op, dim, [height, width][dim] as number)),
  });
  return [emitter.reshape(dx, shape)];
};

/** Elements at the end of a dim that no window reaches. */
export function remainder(op: OpOf<PoolingKind>, dim: number, size: number): number {
  const reach = ((op.kernel[dim] as number) - 1) * (op.window.dilation[dim] as number) + 1;
  const padded = size + (op.window.pad[dim] as number) + (op.window.pad[dim + 2] as number);
  return (padded - reach) % (op.window.stride[dim] as number);
}

function tilesExactly(op: OpOf<PoolingKind>, image: readonly number[]): boolean {
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

/** [n, c, oh, ow] → [n, c, oh·kh, ow·kw], every element kh·kw times. */
function repeated(site: Site, x: string, op: OpOf<PoolingKind>, out: readonly number[]): string {
  const { emitter } = site;
  const [n, c, oh, ow] = out as readonly [number, number, number, number];
  const spread = emitter.reshape(x, [n * c, oh, 1, ow, 1]);
  const shape = emitter.ints([n * c, oh, op.kernel[0], ow, op.kernel[1]]);
  return emitter.reshape(emitter.emit("Expand", [spread, shape]), resultType(site).shape);
}

/** 1 / (number of elements that a window sees), for every window. */
function sharesOf(op: OpOf<PoolingKind>, image: readonly number[], out: readonly number[]): number[] {
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
