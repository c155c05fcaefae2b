/**
 * Recurrent layers as one `Scan` over time whose body is one step. A `Scan` reads and writes the steps of its tensors in place;
 * measured (one thread, 32 steps, batch 20, 400 units) it is faster than the same nodes unrolled, and its session is made in 20 ms
 * instead of 70.
 *
 *     state h, c ─┐                    ┌─► state h, c
 *     z[t] ───────┴─► body, one step ──┴─► h[t], saved[t]        u comes from the graph around
 */

import type { DType } from "../../graph/dtype.ts";
import { Emitter } from "../emitter.ts";
import type { OnnxValue } from "../model.ts";
import { type Lowering, operand, operandParts, operandType, type Site } from "../site.ts";
import { Arithmetic, gruCell, gruCellGrad, lstmCell, lstmCellGrad } from "./recurrent-cell.ts";

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

type Step = (body: Arithmetic, states: readonly string[], inputs: readonly string[]) => StepResults;

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
  const body = new Arithmetic(new Emitter("s"));
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

/** The extent of a layer from its initial state [B, H]. */
function extentOf(site: Site, state: number): Extent {
  const { dtype, shape } = operandType(site, state);
  const [batch, units] = shape as readonly [number, number];
  return { dtype, batch, units };
}

/** x·wᵀ + b for all steps, one [T, B, H] tensor for each gate; the rows of w and b are views where they are inputs. */
function projected(site: Site, units: number, biases: readonly string[]): ScanInputs["sequences"] {
  const { emitter } = site;
  const [steps, batch, width] = operandType(site, 0).shape as readonly [number, number, number];
  const x = emitter.reshape(operand(site, 0), [steps * batch, width]);
  return operandParts(site, 1, biases.length).map((w, gate) => {
    const rows = emitter.emit("Gemm", [x, w, biases[gate] as string], { transB: 1 });
    return { name: emitter.reshape(rows, [steps, batch, units]), width: units };
  });
}

/** Names for the results of an operation from the saved values that were wanted, in order. */
function saved(names: readonly string[], wanted: readonly boolean[]): readonly string[] {
  const left = [...names];
  return wanted.map((isWanted) => (isWanted ? (left.shift() as string) : ""));
}

const lstm: Lowering<"lstm"> = (_op, site) => {
  const extent = extentOf(site, 4);
  const { units } = extent;
  const [ui, uf, ug, uo] = operandParts(site, 2, 4) as Four;
  const wanted = site.used.slice(3);
  const given = {
    states: [operand(site, 4), operand(site, 5)],
    sequences: projected(site, units, operandParts(site, 3, 4)),
  };
  const results = scan(site, extent, given, false, (body, [h, c], [zi, zf, zg, zo]) => {
    const gate = (activation: string, u: string, z: string | undefined) =>
      body.op(activation, body.emitter.emit("Gemm", [h as string, u, z as string], { transB: 1 }));
    const [i, f] = [gate("Sigmoid", ui, zi), gate("Sigmoid", uf, zf)];
    const [g, o] = [gate("Tanh", ug, zg), gate("Sigmoid", uo, zo)];
    const { hidden, cell, factors } = lstmCell(body, [i, f, g, o], c as string);
    const made = [() => h as string, ...factors].flatMap((factor, k) => (wanted[k] ? [factor()] : []));
    return {
      states: [hidden, cell],
      sequences: [hidden, ...made].map((name) => ({ name, width: units })),
    };
  });
  const [hLast, cLast, h, ...rest] = results as [string, string, string];
  return [h, hLast, cLast, ...saved(rest, wanted)];
};

/** dh or the like is left out where it is a constant 0. */
function isZero(site: Site, index: number): boolean {
  return site.inputs[index]?.constant === 0;
}

function sequences(site: Site, indices: readonly number[], units: number): ScanInputs["sequences"] {
  return indices.map((index) => ({ name: operand(site, index), width: units }));
}

const lstmGrad: Lowering<"lstm-grad"> = (_op, site) => {
  const extent = extentOf(site, 8);
  const { units } = extent;
  const u = operand(site, 0);
  const given = {
    states: [operand(site, 8), operand(site, 9)],
    sequences: sequences(site, isZero(site, 7) ? [1, 2, 3, 4, 5, 6] : [1, 2, 3, 4, 5, 6, 7], units),
  };
  const results = scan(site, extent, given, true, (body, [dhNext, dcNext], inputs) => {
    const dh = inputs[6];
    const dHidden = dh === undefined ? (dhNext as string) : body.add(dhNext as string, dh);
    const { dz, dcBefore } = lstmCellGrad(body, inputs as Six, dHidden, dcNext);
    return {
      states: [body.op("MatMul", dz, u), dcBefore],
      sequences: [{ name: dz, width: 4 * units }],
    };
  });
  const [dh0, dc0, dz] = results as [string, string, string];
  return [dz, dh0, dc0];
};

/** The recurrent bias of r and a is added to the other one; that of n is inside the product with r. */
const gru: Lowering<"gru"> = (_op, site) => {
  const extent = extentOf(site, 5);
  const { units } = extent;
  const [ur, ua, un] = operandParts(site, 2, 3) as Three;
  const [br, ba, bn] = operandParts(site, 3, 3) as Three;
  const [pr, pa, pn] = operandParts(site, 4, 3) as Three;
  const wanted = site.used.slice(2);
  const biases = [site.emitter.emit("Add", [br, pr]), site.emitter.emit("Add", [ba, pa]), bn];
  const given = { states: [operand(site, 5)], sequences: projected(site, units, biases) };
  const results = scan(site, extent, given, false, (body, [before], [zr, za, zn]) => {
    const h = before as string;
    const product = (u: string, z: string) => body.emitter.emit("Gemm", [h, u, z], { transB: 1 });
    const r = body.op("Sigmoid", product(ur, zr as string));
    const a = body.op("Sigmoid", product(ua, za as string));
    const q = product(un, pn);
    const gates = { r, a, q, zn: zn as string, before: h, dtype: extent.dtype };
    const { hidden, factors } = gruCell(body, gates);
    const made = [() => h, ...factors].flatMap((factor, k) => (wanted[k] ? [factor()] : []));
    return { states: [hidden], sequences: [hidden, ...made].map((name) => ({ name, width: units })) };
  });
  const [hLast, h, ...rest] = results as [string, string];
  return [h, hLast, ...saved(rest, wanted)];
};

const gruGrad: Lowering<"gru-grad"> = (_op, site) => {
  const extent = extentOf(site, 7);
  const { units } = extent;
  const u = operand(site, 0);
  const given = {
    states: [operand(site, 7)],
    sequences: sequences(site, isZero(site, 6) ? [1, 2, 3, 4, 5] : [1, 2, 3, 4, 5, 6], units),
  };
  const results = scan(site, extent, given, true, (body, [dhNext], inputs) => {
    const dh = inputs[5];
    const dHidden = dh === undefined ? (dhNext as string) : body.add(dhNext as string, dh);
    const { dz, dq, direct } = gruCellGrad(body, inputs as Five, dHidden);
    return {
      states: [body.op("Gemm", dq, u, direct)],
      sequences: [
        { name: dz, width: 3 * units },
        { name: dq, width: 3 * units },
      ],
    };
  });
  const [dh0, dz, dq] = results as [string, string, string];
  return [dz, dq, dh0];
};

type Three = readonly [string, string, string];
type Four = readonly [string, string, string, string];
type Five = readonly [...Four, string];
type Six = readonly [...Five, string];

export const recurrent: { readonly [K in RecurrentKind]: Lowering<K> } = {
  lstm,
  "lstm-grad": lstmGrad,
  gru,
  "gru-grad": gruGrad,
};
