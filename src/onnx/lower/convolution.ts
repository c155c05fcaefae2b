/**
 * Convolution and its gradients. Measured (16x64x32x32, 3x3, 64 to 64 channels, one thread): the input gradient as a convolution
 * with flipped and transposed weights 139 GFLOP/s, `ConvTranspose` 116; the weight gradient as one matrix product for each element
 * of the kernel 139, by gathered patches 97, `Conv` with swapped dims 56; forward 133.
 */

import type { OpOf, Window } from "../../graph/op.ts";
import type { Emitter } from "../emitter.ts";
import type { OnnxAttributes } from "../model.ts";
import { type Lowering, operand, operandType, resultType, type Site } from "../site.ts";
import { kernelElements, paddedBy, seenBy } from "./window.ts";

type ConvolutionKind = "conv2d" | "conv2d-input-grad" | "conv2d-weight-grad";
type Four = readonly [number, number, number, number];

function attributes(window: Window, groups: number, kernel: readonly number[]): OnnxAttributes {
  return {
    kernel_shape: kernel,
    strides: window.stride,
    pads: window.pad,
    dilations: window.dilation,
    group: groups,
  };
}

const inputGrad: Lowering<"conv2d-input-grad"> = (op, site) => {
  const [, , kh, kw] = operandType(site, 1).shape as Four;
  const reach = [0, 1].map((dim) => ((dim === 0 ? kh : kw) - 1) * (op.window.dilation[dim] as number));
  const unit = op.window.stride.every((step) => step === 1);
  const pads = op.window.pad.map((count, side) => (reach[side % 2] as number) - count);
  if (unit && pads.every((count) => count >= 0)) {
    const window: Window = { ...op.window, pad: pads as unknown as Window["pad"] };
    const weight = turned(site, op.groups);
    const dx = site.emitter.emit("Conv", [operand(site, 0), weight], attributes(window, op.groups, [kh, kw]));
    return [dx];
  }
  return [transposedConvolution(op, site, [kh, kw], reach)];
};

function transposedConvolution(
  op: OpOf<"conv2d-input-grad">,
  site: Site,
  kernel: readonly number[],
  reach: readonly number[],
): string {
  const rest = [op.height, op.width].map((size, dim) => {
    const padded = size + (op.window.pad[dim] as number) + (op.window.pad[dim + 2] as number);
    return (padded - (reach[dim] as number) - 1) % (op.window.stride[dim] as number);
  });
  return site.emitter.emit("ConvTranspose", [operand(site, 0), operand(site, 1)], {
    ...attributes(op.window, op.groups, kernel),
    output_padding: rest,
  });
}

/** [O, C/g, kh, kw] → [C, O/g, kh, kw], with the kernel turned by 180 degrees. */
function turned(site: Site, groups: number): string {
  const { emitter } = site;
  const [o, c, kh, kw] = operandType(site, 1).shape as Four;
  let weight = operand(site, 1);
  if (kh * kw > 1) {
    const back = emitter.ints([-1, -1]);
    const ends = emitter.ints([-kh - 1, -kw - 1]);
    weight = emitter.emit("Slice", [weight, back, ends, emitter.ints([2, 3]), back]);
  }
  if (groups === 1) return emitter.emit("Transpose", [weight], { perm: [1, 0, 2, 3] });
  const grouped = emitter.reshape(weight, [groups, o / groups, c, kh, kw]);
  const swapped = emitter.emit("Transpose", [grouped], { perm: [0, 2, 1, 3, 4] });
  return emitter.reshape(swapped, [groups * c, o / groups, kh, kw]);
}

/** dy · (the input as one element of the kernel saw it)ᵀ, summed over samples. */
const weightGrad: Lowering<"conv2d-weight-grad"> = (op, site) => {
  const { emitter } = site;
  const [n, c] = operandType(site, 0).shape as Four;
  const [, o, oh, ow] = operandType(site, 1).shape as Four;
  const [perOutput, perInput] = [o / op.groups, c / op.groups];
  const lead = op.groups === 1 ? [n] : [n, op.groups];
  const rank = lead.length + 2;
  const dy = emitter.reshape(operand(site, 1), [...lead, perOutput, oh * ow]);
  const x = paddedBy(site, op.window, 0);
  const seen = kernelElements(op.kernel).map((element) =>
    emitter.reshape(seenBy(site, op.window, x, element, [oh, ow]), [...lead, perInput, oh * ow]),
  );
  const count = seen.length;
  if (perInput < fewChannels && count > 1) {
    const gathered = emitter.emit("Concat", seen, { axis: rank - 2 });
    const sums = sumOfSamples(emitter, product(site, dy, gathered, rank));
    const split = emitter.reshape(sums, [o, count, perInput]);
    const ordered = emitter.emit("Transpose", [split], { perm: [0, 2, 1] });
    return [emitter.reshape(ordered, resultType(site).shape)];
  }
  const wide = [...lead, perOutput, perInput, 1];
  const parts = seen.map((patch) => emitter.reshape(product(site, dy, patch, rank), wide));
  const stacked = count === 1 ? (parts[0] as string) : emitter.emit("Concat", parts, { axis: rank });
  return [emitter.reshape(sumOfSamples(emitter, stacked), resultType(site).shape)];
};

/** Below this many channels a product for each element of the kernel is too thin; all of them are gathered for one (7 times faster). */
const fewChannels = 16;

function sumOfSamples(emitter: Emitter, x: string): string {
  return emitter.emit("ReduceSum", [x, emitter.ints([0])], { keepdims: 0 });
}

/** dy [..., o, p] times the transpose of x [..., c, p]. */
function product(site: Site, dy: string, x: string, rank: number): string {
  const { emitter } = site;
  if (resultType(site).dtype === "f32") return emitter.emitContrib("FusedMatMul", [dy, x], { transB: 1 });
  const perm = Array.from({ length: rank }, (_, dim) => (dim < rank - 2 ? dim : 2 * rank - 3 - dim));
  return emitter.emit("MatMul", [dy, emitter.emit("Transpose", [x], { perm })]);
}

export const convolution: { readonly [K in ConvolutionKind]: Lowering<K> } = {
  conv2d: (op, site) => {
    const [, , kh, kw] = operandType(site, 1).shape as Four;
    return [
      site.emitter.emit(
        "Conv",
        [operand(site, 0), operand(site, 1)],
        attributes(op.window, op.groups, [kh, kw]),
      ),
    ];
  },
  "conv2d-input-grad": inputGrad,
  "conv2d-weight-grad": weightGrad,
};
