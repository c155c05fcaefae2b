/** Convolution and pooling over images, NCHW. */

import { UserError } from "../../base/errors.ts";
import {
  add,
  avgPool as averagePool,
  conv2d,
  maxPool as maximumPool,
  reshape,
} from "../../graph/functions.ts";
import { kaiming, zeros } from "../initializer.ts";
import { checkCounts, defineLayer, type Layer, type LayerOptions } from "../layer.ts";

type Pair = number | readonly [number, number];

export interface ConvolutionOptions extends LayerOptions {
  readonly channels: number;
  readonly kernel: Pair;
  readonly stride?: Pair;
  /** Zeros around the image, or "same" for a result as large as the input at stride 1; default 0. */
  readonly padding?: Pair | "same";
  readonly dilation?: Pair;
  readonly groups?: number;
  readonly bias?: boolean;
}

/** [N, C, H, W] → [N, channels, H', W']. Parameters `weight` [channels, C/groups, kh, kw], `bias` [channels]. */
export function convolution(options: ConvolutionOptions): Layer {
  const { channels, groups = 1, bias = true } = options;
  const [kernel, stride, dilation] = [
    pair(options.kernel),
    pair(options.stride ?? 1),
    pair(options.dilation ?? 1),
  ];
  checkCounts("convolution", { channels, groups, kernel: Math.min(...kernel), stride: Math.min(...stride) });
  return defineLayer("convolution", options, (x, builder, name) => {
    const [, width] = x.shape;
    if (x.shape.length !== 4 || width === undefined) {
      throw new UserError(
        `convolution "${name}" expects [samples, channels, height, width], got [${x.shape}]`,
      );
    }
    if (width % groups !== 0)
      throw new UserError(`convolution "${name}": ${groups} groups do not divide ${width} channels`);
    const shape = [channels, width / groups, ...kernel];
    const weight = builder.parameter(
      `${name}.weight`,
      shape,
      kaiming((width / groups) * kernel[0] * kernel[1]),
    );
    const y = conv2d(x, weight, {
      stride,
      dilation,
      groups,
      pad: padding(options.padding ?? 0, kernel, dilation),
    });
    if (!bias) return y;
    return add(y, reshape(builder.parameter(`${name}.bias`, [channels], zeros, "bias"), [channels, 1, 1]));
  });
}

export interface PoolOptions extends LayerOptions {
  readonly kernel: Pair;
  /** Default: the kernel's size. */
  readonly stride?: Pair;
  readonly padding?: Pair;
}

/** Maximum of each window. */
export function maxPool(options: PoolOptions): Layer {
  const { kernel, window } = poolWindow(options);
  return defineLayer("maxPool", options, (x) => maximumPool(x, kernel, window));
}

/** Average of each window; padding is not counted. */
export function avgPool(options: PoolOptions): Layer {
  const { kernel, window } = poolWindow(options);
  return defineLayer("avgPool", options, (x) => averagePool(x, kernel, window));
}

function poolWindow(options: PoolOptions) {
  const kernel = pair(options.kernel);
  checkCounts("pool", { kernel: Math.min(...kernel) });
  const window = {
    stride: pair(options.stride ?? kernel),
    pad: padding(options.padding ?? 0, kernel, [1, 1]),
  };
  return { kernel, window };
}

function pair(value: Pair): readonly [number, number] {
  return typeof value === "number" ? [value, value] : value;
}

function padding(
  value: Pair | "same",
  kernel: readonly [number, number],
  dilation: readonly [number, number],
): readonly [number, number, number, number] {
  if (value !== "same") {
    const [vertical, horizontal] = pair(value);
    return [vertical, horizontal, vertical, horizontal];
  }
  const total = kernel.map((size, i) => (size - 1) * (dilation[i] as number)) as [number, number];
  const before = total.map((size) => Math.floor(size / 2)) as [number, number];
  return [before[0], before[1], total[0] - before[0], total[1] - before[1]];
}
