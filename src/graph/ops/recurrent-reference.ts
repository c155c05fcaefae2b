/** Reference evaluation of the recurrent operations: one scalar at a time, straight from the equations. */

import type { Dense } from "../op-rules.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

interface Walk {
  readonly steps: number;
  readonly batch: number;
  readonly units: number;
}

function tensor(...shape: number[]): Dense {
  return { shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) };
}

function at(x: Dense, i: number): number {
  return x.data[i] as number;
}

/** sum over k of h[row, k] · u[k, column]. */
function product(h: Float64Array, row: number, u: Dense, column: number, units: number): number {
  const width = u.shape[1] as number;
  let total = 0;
  for (let k = 0; k < units; k++) total += (h[row * units + k] as number) * at(u, k * width + column);
  return total;
}

/** Calls `visit(t, b, j)` for every step, sample and unit in order of time (or against it). */
function each(
  { steps, batch, units }: Walk,
  visit: (t: number, b: number, j: number) => void,
  t: number,
): void {
  if (t < 0 || t >= steps) return;
  for (let b = 0; b < batch; b++) for (let j = 0; j < units; j++) visit(t, b, j);
}

/** i, f, o = σ(z + h·U), g = tanh(z + h·U); c = f·c + i·g; h = o·tanh(c). */
export function evaluateLstm(inputs: readonly Dense[]): readonly Dense[] {
  const [z, u, h0, c0] = inputs as [Dense, Dense, Dense, Dense];
  const [steps, batch] = z.shape as [number, number, number];
  const units = u.shape[0] as number;
  const [h, c, gates] = [
    tensor(steps, batch, units),
    tensor(steps, batch, units),
    tensor(steps, batch, 4 * units),
  ];
  let [hBefore, cBefore] = [h0.data, c0.data];
  for (let t = 0; t < steps; t++) {
    each(
      { steps, batch, units },
      (_t, b, j) => {
        const start = (t * batch + b) * 4 * units;
        const gate = (block: number): number => {
          const value = at(z, start + block * units + j) + product(hBefore, b, u, block * units + j, units);
          const active = block === 3 ? Math.tanh(value) : sigmoid(value);
          gates.data[start + block * units + j] = active;
          return active;
        };
        const [i, f, o, g] = [gate(0), gate(1), gate(2), gate(3)];
        const cell = f * (cBefore[b * units + j] as number) + i * g;
        c.data[(t * batch + b) * units + j] = cell;
        h.data[(t * batch + b) * units + j] = o * Math.tanh(cell);
      },
      t,
    );
    hBefore = h.data.slice(t * batch * units, (t + 1) * batch * units);
    cBefore = c.data.slice(t * batch * units, (t + 1) * batch * units);
  }
  const last = (data: Float64Array): Dense => ({ shape: [batch, units], data: data.slice() });
  return [h, last(hBefore), last(cBefore), c, gates];
}

export function evaluateLstmGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [u, c0, c, gates, dh, dhLast, dcLast] = inputs as [Dense, Dense, Dense, Dense, Dense, Dense, Dense];
  const [steps, batch, units] = c.shape as [number, number, number];
  const dz = tensor(steps, batch, 4 * units);
  let [dhNext, dcNext] = [dhLast.data, dcLast.data];
  for (let t = steps - 1; t >= 0; t--) {
    const dcBefore = new Float64Array(batch * units);
    each(
      { steps, batch, units },
      (_t, b, j) => {
        const cell = b * units + j;
        const [here, start] = [t * batch * units + cell, (t * batch + b) * 4 * units + j];
        const [i, f, o, g] = [
          at(gates, start),
          at(gates, start + units),
          at(gates, start + 2 * units),
          at(gates, start + 3 * units),
        ];
        const before = t === 0 ? at(c0, cell) : at(c, here - batch * units);
        const squashed = Math.tanh(at(c, here));
        const dHidden = at(dh, here) + (dhNext[cell] as number);
        const dCell = dHidden * o * (1 - squashed * squashed) + (dcNext[cell] as number);
        dz.data[start] = dCell * g * i * (1 - i);
        dz.data[start + units] = dCell * before * f * (1 - f);
        dz.data[start + 2 * units] = dHidden * squashed * o * (1 - o);
        dz.data[start + 3 * units] = dCell * i * (1 - g * g);
        dcBefore[cell] = dCell * f;
      },
      t,
    );
    dhNext = throughWeights(dz, u, t, batch, units);
    dcNext = dcBefore;
  }
  return [
    dz,
    { shape: [batch, units], data: dhNext.slice() },
    { shape: [batch, units], data: dcNext.slice() },
  ];
}

/** dz[t]·uᵀ. */
function throughWeights(dz: Dense, u: Dense, t: number, batch: number, units: number): Float64Array {
  const width = u.shape[1] as number;
  const result = new Float64Array(batch * units);
  for (let b = 0; b < batch; b++) {
    for (let k = 0; k < units; k++) {
      let total = 0;
      for (let j = 0; j < width; j++) total += at(dz, (t * batch + b) * width + j) * at(u, k * width + j);
      result[b * units + k] = total;
    }
  }
  return result;
}

/** r, u = σ(z + p), n = tanh(z + r·q) with p = h·w + b and q its last block; h = (1 - u)·n + u·h. */
export function evaluateGru(inputs: readonly Dense[]): readonly Dense[] {
  const [z, w, bias, h0] = inputs as [Dense, Dense, Dense, Dense];
  const [steps, batch] = z.shape as [number, number, number];
  const units = w.shape[0] as number;
  const [h, gates, q] = [
    tensor(steps, batch, units),
    tensor(steps, batch, 3 * units),
    tensor(steps, batch, units),
  ];
  let before = h0.data;
  for (let t = 0; t < steps; t++) {
    each(
      { steps, batch, units },
      (_t, b, j) => {
        const start = (t * batch + b) * 3 * units + j;
        const hidden = (block: number) =>
          product(before, b, w, block * units + j, units) + at(bias, block * units + j);
        const r = sigmoid(at(z, start) + hidden(0));
        const update = sigmoid(at(z, start + units) + hidden(1));
        const candidate = hidden(2);
        const n = Math.tanh(at(z, start + 2 * units) + r * candidate);
        gates.data[start] = r;
        gates.data[start + units] = update;
        gates.data[start + 2 * units] = n;
        q.data[(t * batch + b) * units + j] = candidate;
        h.data[(t * batch + b) * units + j] = (1 - update) * n + update * (before[b * units + j] as number);
      },
      t,
    );
    before = h.data.slice(t * batch * units, (t + 1) * batch * units);
  }
  return [h, { shape: [batch, units], data: before.slice() }, gates, q];
}

export function evaluateGruGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [w, h0, h, gates, q, dh, dhLast] = inputs as [Dense, Dense, Dense, Dense, Dense, Dense, Dense];
  const [steps, batch, units] = h.shape as [number, number, number];
  const [dz, dp] = [tensor(steps, batch, 3 * units), tensor(steps, batch, 3 * units)];
  let dhNext = dhLast.data;
  for (let t = steps - 1; t >= 0; t--) {
    const direct = new Float64Array(batch * units);
    each(
      { steps, batch, units },
      (_t, b, j) => {
        const cell = b * units + j;
        const [here, start] = [t * batch * units + cell, (t * batch + b) * 3 * units + j];
        const [r, update, n] = [at(gates, start), at(gates, start + units), at(gates, start + 2 * units)];
        const before = t === 0 ? at(h0, cell) : at(h, here - batch * units);
        const dHidden = at(dh, here) + (dhNext[cell] as number);
        const dn = dHidden * (1 - update) * (1 - n * n);
        const dr = dn * at(q, here) * r * (1 - r);
        const du = dHidden * (before - n) * update * (1 - update);
        [dz.data[start], dz.data[start + units], dz.data[start + 2 * units]] = [dr, du, dn];
        [dp.data[start], dp.data[start + units], dp.data[start + 2 * units]] = [dr, du, dn * r];
        direct[cell] = dHidden * update;
      },
      t,
    );
    const through = throughWeights(dp, w, t, batch, units);
    dhNext = direct.map((value, i) => value + (through[i] as number));
  }
  return [dz, dp, { shape: [batch, units], data: dhNext.slice() }];
}
