/** Reference evaluation of the recurrent operations: one scalar at a time, straight from the equations in `op.ts`. */

import type { Dense } from "../op-rules.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

function tensor(...shape: number[]): Dense {
  return { shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) };
}

function tensors(count: number, ...shape: number[]): Dense[] {
  return Array.from({ length: count }, () => tensor(...shape));
}

function at(x: Dense, i: number): number {
  return x.data[i] as number;
}

/** Row `row` of x against row `column` of w: one element of x·wᵀ. */
function dot(x: Float64Array, row: number, w: Dense, column: number): number {
  const width = w.shape[1] as number;
  let total = 0;
  for (let k = 0; k < width; k++) total += (x[row * width + k] as number) * at(w, column * width + k);
  return total;
}

/** Row `row` of dz against column `column` of u: one element of dz·u. */
function through(dz: Dense, row: number, u: Dense, column: number): number {
  const [gates, units] = u.shape as [number, number];
  let total = 0;
  for (let j = 0; j < gates; j++) total += at(dz, row * gates + j) * at(u, j * units + column);
  return total;
}

interface Cell {
  /** Index of (sample, unit) in [B, H]. */
  readonly cell: number;
  /** Row of (step, sample) in [T·B, ...]. */
  readonly row: number;
  readonly sample: number;
  readonly unit: number;
}

/** Calls `visit` for every sample and unit of step t. */
function each(t: number, batch: number, units: number, visit: (at: Cell) => void): void {
  for (let sample = 0; sample < batch; sample++) {
    for (let unit = 0; unit < units; unit++)
      visit({ cell: sample * units + unit, row: t * batch + sample, sample, unit });
  }
}

export function evaluateLstm(inputs: readonly Dense[]): readonly Dense[] {
  const [x, w, u, b, h0, c0] = inputs as [Dense, Dense, Dense, Dense, Dense, Dense];
  const [steps, batch] = x.shape as [number, number];
  const units = u.shape[1] as number;
  const saved = tensors(8, steps, batch, units);
  let [hBefore, cBefore] = [h0.data, c0.data];
  for (let t = 0; t < steps; t++) {
    const [h, c] = [new Float64Array(batch * units), new Float64Array(batch * units)];
    each(t, batch, units, ({ cell, row, sample, unit }) => {
      const gate = (block: number): number => {
        const column = block * units + unit;
        return dot(x.data, row, w, column) + dot(hBefore, sample, u, column) + at(b, column);
      };
      const [i, f, g, o] = [sigmoid(gate(0)), sigmoid(gate(1)), Math.tanh(gate(2)), sigmoid(gate(3))];
      const before = cBefore[cell] as number;
      c[cell] = f * before + i * g;
      const squashed = Math.tanh(c[cell]);
      h[cell] = o * squashed;
      const values = [
        h[cell],
        hBefore[cell] as number,
        f,
        g * i * (1 - i),
        before * f * (1 - f),
        i * (1 - g * g),
        squashed * o * (1 - o),
        o * (1 - squashed * squashed),
      ];
      values.forEach((value, k) => {
        (saved[k] as Dense).data[row * units + unit] = value;
      });
    });
    [hBefore, cBefore] = [h, c];
  }
  const [h, ...factors] = saved as [Dense, ...Dense[]];
  return [
    h,
    { shape: [batch, units], data: hBefore.slice() },
    { shape: [batch, units], data: cBefore.slice() },
    ...factors,
  ];
}

export function evaluateLstmGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [u, f, mi, mf, mg, mo, k, dh, dhLast, dcLast] = inputs as Ten;
  const [steps, batch, units] = f.shape as [number, number, number];
  const dz = tensor(steps, batch, 4 * units);
  let [dhNext, dcNext] = [dhLast.data, dcLast.data];
  for (let t = steps - 1; t >= 0; t--) {
    const dcBefore = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      const here = row * units + unit;
      const dHidden = at(dh, here) + (dhNext[cell] as number);
      const dCell = dHidden * at(k, here) + (dcNext[cell] as number);
      [dCell * at(mi, here), dCell * at(mf, here), dCell * at(mg, here), dHidden * at(mo, here)].forEach(
        (value, block) => {
          dz.data[row * 4 * units + block * units + unit] = value;
        },
      );
      dcBefore[cell] = dCell * at(f, here);
    });
    const dhBefore = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      dhBefore[cell] = through(dz, row, u, unit);
    });
    [dhNext, dcNext] = [dhBefore, dcBefore];
  }
  return [
    dz,
    { shape: [batch, units], data: dhNext.slice() },
    { shape: [batch, units], data: dcNext.slice() },
  ];
}

type Eight = readonly [Dense, Dense, Dense, Dense, Dense, Dense, Dense, Dense];
type Ten = readonly [Dense, Dense, Dense, Dense, Dense, Dense, Dense, Dense, Dense, Dense];

export function evaluateGru(inputs: readonly Dense[]): readonly Dense[] {
  const [x, w, u, b, p, h0] = inputs as [Dense, Dense, Dense, Dense, Dense, Dense];
  const [steps, batch] = x.shape as [number, number];
  const units = u.shape[1] as number;
  const saved = tensors(7, steps, batch, units);
  let before = h0.data;
  for (let t = 0; t < steps; t++) {
    const h = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, sample, unit }) => {
      const given = (block: number) =>
        dot(x.data, row, w, block * units + unit) + at(b, block * units + unit);
      const hidden = (block: number) =>
        dot(before, sample, u, block * units + unit) + at(p, block * units + unit);
      const [r, a, q] = [sigmoid(given(0) + hidden(0)), sigmoid(given(1) + hidden(1)), hidden(2)];
      const n = Math.tanh(given(2) + r * q);
      const last = before[cell] as number;
      h[cell] = (1 - a) * n + a * last;
      [h[cell], last, r, a, q * r * (1 - r), (last - n) * a * (1 - a), (1 - a) * (1 - n * n)].forEach(
        (value, k) => {
          (saved[k] as Dense).data[row * units + unit] = value as number;
        },
      );
    });
    before = h;
  }
  const [h, ...factors] = saved as [Dense, ...Dense[]];
  return [h, { shape: [batch, units], data: before.slice() }, ...factors];
}

export function evaluateGruGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [u, r, a, mr, ma, mn, dh, dhLast] = inputs as Eight;
  const [steps, batch, units] = r.shape as [number, number, number];
  const [dz, dq] = tensors(2, steps, batch, 3 * units) as [Dense, Dense];
  let dhNext = dhLast.data;
  for (let t = steps - 1; t >= 0; t--) {
    const direct = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      const here = row * units + unit;
      const dHidden = at(dh, here) + (dhNext[cell] as number);
      const dn = dHidden * at(mn, here);
      const [dr, da, start] = [dn * at(mr, here), dHidden * at(ma, here), row * 3 * units + unit];
      [dz.data[start], dz.data[start + units], dz.data[start + 2 * units]] = [dr, da, dn];
      [dq.data[start], dq.data[start + units], dq.data[start + 2 * units]] = [dr, da, dn * at(r, here)];
      direct[cell] = dHidden * at(a, here);
    });
    const dhBefore = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      dhBefore[cell] = (direct[cell] as number) + through(dq, row, u, unit);
    });
    dhNext = dhBefore;
  }
  return [dz, dq, { shape: [batch, units], data: dhNext.slice() }];
}
