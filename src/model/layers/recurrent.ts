/** Recurrent layers over [time, batch, features]. They carry their state from one chunk of time to the next. */

import { UserError } from "../../base/errors.ts";
import { add, constant, gru as gruOf, lstm as lstmOf } from "../../graph/functions.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { uniformWithin, zeros } from "../initializer.ts";
import { checkCounts, checkShare, defineLayer, type Layer, type LayerOptions } from "../layer.ts";
import { type ModelBuilder, modelOf } from "../model-builder.ts";
import { applyDropout } from "./basic.ts";

export interface RecurrentOptions extends LayerOptions {
  readonly units: number;
  /** Share of the layer's output that is zeroed in training; default 0. */
  readonly dropout?: number;
  /** Whether the input is added to the output, which must then be as wide; default false. */
  readonly residual?: boolean;
}

/**
 * LSTM (Hochreiter & Schmidhuber 1997): [time, batch, in] → [time, batch, units]. Parameters `weight` [4·units, in], `recurrent`
 * [4·units, units], `bias` [4·units], with the gates in blocks i, f, g, o as in PyTorch.
 */
export function lstm(options: RecurrentOptions): Layer {
  return recurrentLayer("lstm", options, 4, ({ builder, name, units, ...operands }) => {
    const hidden = builder.nextUse(`${name}.h`);
    const cell = builder.nextUse(`${name}.c`);
    const [h0, c0] = [carried(operands.x, hidden, units), carried(operands.x, cell, units)];
    const [h, hLast, cLast] = lstmOf({ ...operands, h0, c0 });
    carry(operands.x, hidden, hLast);
    carry(operands.x, cell, cLast);
    return h;
  });
}

/**
 * GRU (Cho et al. 2014, with the reset gate after the product as in cuDNN): [time, batch, in] → [time, batch, units]. Parameters
 * `weight` [3·units, in], `recurrent` [3·units, units], `bias` and `recurrentBias` [3·units], gates in blocks r, update, n as in PyTorch.
 */
export function gru(options: RecurrentOptions): Layer {
  return recurrentLayer("gru", options, 3, ({ builder, name, units, ...operands }) => {
    const p = builder.parameter(`${name}.recurrentBias`, [3 * units], zeros, "bias");
    const hidden = builder.nextUse(`${name}.h`);
    const [h, hLast] = gruOf({ ...operands, p, h0: carried(operands.x, hidden, units) });
    carry(operands.x, hidden, hLast);
    return h;
  });
}

interface Recurrence {
  readonly x: Tensor;
  readonly w: Tensor;
  readonly u: Tensor;
  readonly b: Tensor;
  readonly builder: ModelBuilder;
  readonly name: string;
  readonly units: number;
}

function recurrentLayer(
  kind: string,
  options: RecurrentOptions,
  gates: number,
  run: (recurrence: Recurrence) => Tensor,
): Layer {
  const { units, dropout = 0, residual = false } = options;
  checkCounts(kind, { units });
  checkShare(kind, "dropout", dropout);
  return defineLayer(kind, options, (x, builder, name) => {
    const [, , width] = x.shape;
    if (x.shape.length !== 3 || width === undefined) {
      throw new UserError(`${kind} "${name}" expects [time, batch, features], got [${x.shape}]`);
    }
    if (residual && width !== units) {
      throw new UserError(
        `${kind} "${name}" cannot add its input of width ${width} to its output of width ${units}; make them equal`,
      );
    }
    const bound = uniformWithin(1 / Math.sqrt(units));
    const w = builder.parameter(`${name}.weight`, [gates * units, width], bound);
    const u = builder.parameter(`${name}.recurrent`, [gates * units, units], bound);
    const b = builder.parameter(`${name}.bias`, [gates * units], zeros, "bias");
    const h = applyDropout(run({ x, w, u, b, builder, name, units }), name, dropout);
    return residual ? add(x, h) : h;
  });
}

/** The state before this chunk of x; zero where its sequences are not cut. */
function carried(x: Tensor, name: string, units: number): Tensor {
  const builder = modelOf(x);
  const shape = [x.shape[1] as number, units];
  return builder.isChunked(x, 0)
    ? builder.state(name, shape, "carried", zeros)
    : constant(builder, x.dtype, shape, 0);
}

function carry(x: Tensor, name: string, value: Tensor): void {
  const builder = modelOf(x);
  if (builder.isChunked(x, 0)) builder.setState(name, value);
}
