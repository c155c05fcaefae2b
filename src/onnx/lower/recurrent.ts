/**
 * Recurrent layers as one `Scan` over time whose body is one step. Measured (one thread, 32 steps, batch 20, 400 units): a `Scan`
 * is about a tenth faster than the same nodes unrolled, and its session is made in 20 ms instead of 70.
 *
 *     state h, c ─┐                    ┌─► state h, c
 *     z[t] ───────┴─► body, one step ──┴─► h[t], c[t], gates[t]        u comes from the graph around
 */

import type { DType } from "../../graph/dtype.ts";
import type { Shape } from "../../graph/shape.ts";
import { Emitter } from "../emitter.ts";
import type { OnnxValue } from "../model.ts";
import { type Lowering, operand, operandType, type Site } from "../site.ts";

type RecurrentKind = "lstm" | "lstm-grad" | "gru" | "gru-grad";

/** What flows through a scan: the carried states, then what is read at each step. */
interface ScanInputs {
  readonly states: readonly string[];
  readonly sequences: readonly { readonly name: string; readonly width: number }[];
}

/** What one step makes: the next states, then what is written at each step, with the last dim's size. */
interface StepResults {
  readonly states: readonly string[];
  readonly sequences: readonly { readonly name: string; readonly width: number }[];
}

type Step = (body: Body, states: readonly string[], inputs: readonly string[]) => StepResults;

/** The emitter of a body with the arithmetic that its steps are made of. */
class Body {
  readonly emitter: Emitter = new Emitter("s");
  readonly units: number;

  constructor(units: number) {
    this.units = units;
  }

  op(opType: string, ...inputs: readonly string[]): string {
    return this.emitter.emit(opType, inputs);
  }

  add(a: string, b: string): string {
    return this.op("Add", a, b);
  }

  sub(a: string, b: string): string {
    return this.op("Sub", a, b);
  }

  mul(a: string, b: string): string {
    return this.op("Mul", a, b);
  }

  /** a·(1 - b). */
  rest(a: string, b: string): string {
    return this.sub(a, this.mul(a, b));
  }

  /** Blocks of the last dim, as multiples of the number of units. */
  blocks(x: string, counts: readonly number[]): readonly string[] {
    const sizes = this.emitter.ints(counts.map((count) => count * this.units));
    return this.emitter.emitMany(
      "Split",
      [x, sizes],
      { axis: 1 },
      counts.map(() => true),
    );
  }

  join(...parts: readonly string[]): string {
    return this.emitter.emit("Concat", parts, { axis: 1 });
  }
}

interface Extent {
  readonly dtype: DType;
  readonly batch: number;
  readonly units: number;
}

/** Adds the scan; returns the names of the last states, then of the sequences. */
function scan(
  site: Site,
  extent: Extent,
  given: ScanInputs,
  backward: boolean,
  step: Step,
): readonly string[] {
  const { dtype, batch, units } = extent;
  const body = new Body(units);
  const value = (width: number, name = body.emitter.name()): OnnxValue => ({
    name,
    dtype,
    shape: [batch, width],
  });
  const states = given.states.map(() => value(units));
  const inputs = given.sequences.map(({ width }) => value(width));
  const made = step(
    body,
    states.map(({ name }) => name),
    inputs.map(({ name }) => name),
  );
  const results = [
    ...made.states.map((name) => value(units, name)),
    ...made.sequences.map(({ name, width }) => value(width, body.op("Identity", name))),
  ];
  const direction = backward ? 1 : 0;
  return site.emitter.emitMany(
    "Scan",
    [...given.states, ...given.sequences.map(({ name }) => name)],
    {
      body: body.emitter.graph([...states, ...inputs], results),
      num_scan_inputs: inputs.length,
      scan_input_directions: inputs.map(() => direction),
      scan_output_directions: made.sequences.map(() => direction),
    },
    results.map(() => true),
  );
}

/** Batch and units from a [B, H] operand. */
function extentOf(site: Site, state: number): Extent {
  const { dtype, shape } = operandType(site, state);
  const [batch, units] = shape as readonly [number, number];
  return { dtype, batch, units };
}

/** i, f, o = σ(z + h·U), g = tanh(z + h·U); c = f·c + i·g; h = o·tanh(c). */
const lstm: Lowering<"lstm"> = (_op, site) => {
  const extent = extentOf(site, 2);
  const { units } = extent;
  const [z, u] = [operand(site, 0), operand(site, 1)];
  const [, , , wantsCell, wantsGates] = site.used;
  const given = {
    states: [operand(site, 2), operand(site, 3)],
    sequences: [{ name: z, width: 4 * units }],
  };
  const results = scan(site, extent, given, false, (body, [h, c], [zt]) => {
    const sum = body.op("Gemm", h as string, u, zt as string);
    const [squashed, candidate] = body.blocks(sum, [3, 1]) as [string, string];
    const ifo = body.op("Sigmoid", squashed);
    const g = body.op("Tanh", candidate);
    const [i, f, o] = body.blocks(ifo, [1, 1, 1]) as [string, string, string];
    const cell = body.add(body.mul(f, c as string), body.mul(i, g));
    const hidden = body.mul(o, body.op("Tanh", cell));
    return {
      states: [hidden, cell],
      sequences: [
        { name: hidden, width: units },
        ...(wantsCell ? [{ name: cell, width: units }] : []),
        ...(wantsGates ? [{ name: body.join(ifo, g), width: 4 * units }] : []),
      ],
    };
  });
  const [hLast, cLast, h, ...saved] = results as [string, string, string];
  const rest = saved as string[];
  return [
    h,
    hLast,
    cLast,
    wantsCell ? (rest.shift() as string) : "",
    wantsGates ? (rest.shift() as string) : "",
  ];
};

/** Backward through time; see `evaluateLstmGrad`. f·c(before) is taken as c - i·g, so the cells need not be shifted. */
const lstmGrad: Lowering<"lstm-grad"> = (_op, site) => {
  const extent = extentOf(site, 1);
  const { units } = extent;
  const u = operand(site, 0);
  const silent = site.inputs[4]?.constant === 0;
  const given = {
    states: [operand(site, 5), operand(site, 6)],
    sequences: [
      { name: operand(site, 2), width: units },
      { name: operand(site, 3), width: 4 * units },
      ...(silent ? [] : [{ name: operand(site, 4), width: units }]),
    ],
  };
  const results = scan(site, extent, given, true, (body, [dhNext, dcNext], [c, gates, dh]) => {
    const [i, f, o, g] = body.blocks(gates as string, [1, 1, 1, 1]) as [string, string, string, string];
    const squashed = body.op("Tanh", c as string);
    const hidden = body.mul(o, squashed);
    const dHidden = dh === undefined ? (dhNext as string) : body.add(dhNext as string, dh);
    const dCell = body.add(body.mul(dHidden, body.sub(o, body.mul(hidden, squashed))), dcNext as string);
    const input = body.mul(i, g);
    const kept = body.sub(c as string, input);
    const dz = body.join(
      body.mul(dCell, body.rest(input, i)),
      body.mul(dCell, body.rest(kept, f)),
      body.mul(dHidden, body.rest(hidden, o)),
      body.mul(dCell, body.sub(i, body.mul(input, g))),
    );
    return {
      states: [body.emitter.emit("Gemm", [dz, u], { transB: 1 }), body.mul(dCell, f)],
      sequences: [{ name: dz, width: 4 * units }],
    };
  });
  const [dh0, dc0, dz] = results as [string, string, string];
  return [dz, dh0, dc0];
};

/** r, u = σ(z + p), n = tanh(z + r·q) with p = h·w + b and q its last block; h = n + u·(h - n). */
const gru: Lowering<"gru"> = (_op, site) => {
  const extent = extentOf(site, 3);
  const { units } = extent;
  const [z, w, b] = [operand(site, 0), operand(site, 1), operand(site, 2)];
  const [, , wantsGates, wantsCandidate] = site.used;
  const given = { states: [operand(site, 3)], sequences: [{ name: z, width: 3 * units }] };
  const results = scan(site, extent, given, false, (body, [h], [zt]) => {
    const before = h as string;
    const [pGates, q] = body.blocks(body.op("Gemm", before, w, b), [2, 1]) as [string, string];
    const [zGates, zNew] = body.blocks(zt as string, [2, 1]) as [string, string];
    const ru = body.op("Sigmoid", body.add(zGates, pGates));
    const [r, update] = body.blocks(ru, [1, 1]) as [string, string];
    const n = body.op("Tanh", body.add(zNew, body.mul(r, q)));
    const hidden = body.add(n, body.mul(update, body.sub(before, n)));
    return {
      states: [hidden],
      sequences: [
        { name: hidden, width: units },
        ...(wantsGates ? [{ name: body.join(ru, n), width: 3 * units }] : []),
        ...(wantsCandidate ? [{ name: q, width: units }] : []),
      ],
    };
  });
  const [hLast, h, ...saved] = results as [string, string];
  const rest = saved as string[];
  return [
    h,
    hLast,
    wantsGates ? (rest.shift() as string) : "",
    wantsCandidate ? (rest.shift() as string) : "",
  ];
};

/** Backward through time; see `evaluateGruGrad`. */
const gruGrad: Lowering<"gru-grad"> = (_op, site) => {
  const extent = extentOf(site, 1);
  const { units } = extent;
  const w = operand(site, 0);
  const silent = site.inputs[5]?.constant === 0;
  const given = {
    states: [operand(site, 6)],
    sequences: [
      { name: shifted(site), width: units },
      { name: operand(site, 3), width: 3 * units },
      { name: operand(site, 4), width: units },
      ...(silent ? [] : [{ name: operand(site, 5), width: units }]),
    ],
  };
  const results = scan(site, extent, given, true, (body, [dhNext], [before, gates, q, dh]) => {
    const [r, update, n] = body.blocks(gates as string, [1, 1, 1]) as [string, string, string];
    const dHidden = dh === undefined ? (dhNext as string) : body.add(dhNext as string, dh);
    const through = body.rest(dHidden, update);
    const dn = body.sub(through, body.mul(through, body.mul(n, n)));
    const dr = body.mul(body.mul(dn, q as string), body.rest(r, r));
    const du = body.mul(body.mul(dHidden, body.sub(before as string, n)), body.rest(update, update));
    const dp = body.join(dr, du, body.mul(dn, r));
    const direct = body.mul(dHidden, update);
    return {
      states: [body.emitter.emit("Gemm", [dp, w, direct], { transB: 1 })],
      sequences: [
        { name: body.join(dr, du, dn), width: 3 * units },
        { name: dp, width: 3 * units },
      ],
    };
  });
  const [dh0, dz, dp] = results as [string, string, string];
  return [dz, dp, dh0];
};

/** h of the step before, for every step: [h0, h[0], ..., h[T-2]]. */
function shifted(site: Site): string {
  const { emitter } = site;
  const [steps, batch, units] = operandType(site, 2).shape as readonly [number, number, number];
  const first = emitter.reshape(operand(site, 1), [1, batch, units] satisfies Shape);
  if (steps === 1) return first;
  const bounds = [[0], [steps - 1], [0]].map((list) => emitter.ints(list));
  return emitter.emit("Concat", [first, emitter.emit("Slice", [operand(site, 2), ...bounds])], { axis: 0 });
}

export const recurrent: { readonly [K in RecurrentKind]: Lowering<K> } = {
  lstm,
  "lstm-grad": lstmGrad,
  gru,
  "gru-grad": gruGrad,
};
