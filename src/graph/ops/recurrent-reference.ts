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

/** Element i of each of `many`. */
function elements(many: readonly Dense[], i: number): readonly number[] {
  return many.map((x) => at(x, i));
}

/** Puts one value into each of `into`, at element i. */
function store(into: readonly Dense[], i: number, values: readonly number[]): void {
  values.forEach((value, k) => {
    (into[k] as Dense).data[i] = value;
  });
}

/** Puts the values of the gates of one unit into row `row`, whose blocks are the gates. */
function storeGates(into: Dense, row: number, unit: number, values: readonly number[]): void {
  const width = into.shape.at(-1) as number;
  values.forEach((value, block) => {
    into.data[row * width + (block * width) / values.length + unit] = value;
  });
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

/** One unit of one sample: h, c, f, Mi, Mf, Mg, Mo and K from z of its gates and c of the step before. */
function lstmUnit(gate: (block: number) => number, before: number): readonly number[] {
  const [i, f, g, o] = [sigmoid(gate(0)), sigmoid(gate(1)), Math.tanh(gate(2)), sigmoid(gate(3))];
  const c = f * before + i * g;
  const squashed = Math.tanh(c);
  return [
    o * squashed,
    c,
    f,
    g * i * (1 - i),
    before * f * (1 - f),
    i * (1 - g * g),
    squashed * o * (1 - o),
    o * (1 - squashed * squashed),
  ];
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
      const [hidden, state, ...factors] = lstmUnit(gate, cBefore[cell] as number) as [number, number];
      [h[cell], c[cell]] = [hidden, state];
      store(saved, row * units + unit, [hidden, hBefore[cell] as number, ...factors]);
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

/** One step for the units whose rows of u are given. */
export function evaluateLstmStep(inputs: readonly Dense[]): readonly Dense[] {
  const [zx, u, hBefore, cBefore] = inputs as [Dense, Dense, Dense, Dense];
  const [batch, units] = cBefore.shape as [number, number];
  const results = tensors(8, batch, units);
  each(0, batch, units, ({ cell, sample, unit }) => {
    const gate = (block: number): number => {
      const column = block * units + unit;
      return at(zx, sample * 4 * units + column) + dot(hBefore.data, sample, u, column);
    };
    store(results, cell, lstmUnit(gate, at(cBefore, cell)));
  });
  return results;
}

/** dz of gate blocks i, f, g, o, then the gradient of c of the step before; of one unit of one sample. */
function lstmUnitGrad(dHidden: number, dcNext: number, factors: readonly number[]): readonly number[] {
  const [f, mi, mf, mg, mo, k] = factors as Six;
  const dCell = dHidden * k + dcNext;
  return [dCell * mi, dCell * mf, dCell * mg, dHidden * mo, dCell * f];
}

export function evaluateLstmGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [u, dh, dhLast, dcLast] = [0, 7, 8, 9].map((i) => inputs[i]) as [Dense, Dense, Dense, Dense];
  const factors = inputs.slice(1, 7);
  const [steps, batch, units] = dh.shape as [number, number, number];
  const dz = tensor(steps, batch, 4 * units);
  let [dhNext, dcNext] = [dhLast.data, dcLast.data];
  for (let t = steps - 1; t >= 0; t--) {
    const dcBefore = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      const here = row * units + unit;
      const dHidden = at(dh, here) + (dhNext[cell] as number);
      const made = lstmUnitGrad(dHidden, dcNext[cell] as number, elements(factors, here));
      storeGates(dz, row, unit, made.slice(0, 4));
      dcBefore[cell] = made[4] as number;
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

export function evaluateLstmStepGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [dh, dc] = inputs.slice(6) as [Dense, Dense];
  const [batch, units] = dh.shape as [number, number];
  const [dz, dcBefore] = [tensor(batch, 4 * units), tensor(batch, units)];
  each(0, batch, units, ({ cell, sample, unit }) => {
    const made = lstmUnitGrad(at(dh, cell), at(dc, cell), elements(inputs.slice(0, 6), cell));
    storeGates(dz, sample, unit, made.slice(0, 4));
    dcBefore.data[cell] = made[4] as number;
  });
  return [dz, dcBefore];
}

type Five = readonly [number, number, number, number, number];
type Six = readonly [...Five, number];

/** One unit of one sample: h, r, a, Mr, Ma and Mn from x·wᵀ + b and h'·uᵀ + p of its gates and its own h'. */
function gruUnit(
  given: (block: number) => number,
  hidden: (block: number) => number,
  last: number,
): readonly number[] {
  const [r, a, q] = [sigmoid(given(0) + hidden(0)), sigmoid(given(1) + hidden(1)), hidden(2)];
  const n = Math.tanh(given(2) + r * q);
  const h = (1 - a) * n + a * last;
  return [h, r, a, q * r * (1 - r), (last - n) * a * (1 - a), (1 - a) * (1 - n * n)];
}

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
      const last = before[cell] as number;
      const [made, ...factors] = gruUnit(given, hidden, last) as [number];
      h[cell] = made;
      store(saved, row * units + unit, [made, last, ...factors]);
    });
    before = h;
  }
  const [h, ...factors] = saved as [Dense, ...Dense[]];
  return [h, { shape: [batch, units], data: before.slice() }, ...factors];
}

/** One step for the units whose rows of u are given. */
export function evaluateGruStep(inputs: readonly Dense[]): readonly Dense[] {
  const [zx, u, p, before, own] = inputs as [Dense, Dense, Dense, Dense, Dense];
  const [batch, units] = own.shape as [number, number];
  const results = tensors(6, batch, units);
  each(0, batch, units, ({ cell, sample, unit }) => {
    const given = (block: number) => at(zx, sample * 3 * units + block * units + unit);
    const hidden = (block: number) =>
      dot(before.data, sample, u, block * units + unit) + at(p, block * units + unit);
    store(results, cell, gruUnit(given, hidden, at(own, cell)));
  });
  return results;
}

interface GruGradients {
  /** Of x·wᵀ + b, gate blocks r, a, n. */
  readonly dz: readonly number[];
  /** Of h'·uᵀ + p, gate blocks r, a, n. */
  readonly dq: readonly number[];
  /** Of the unit's own h', but for what goes through u. */
  readonly direct: number;
}

/** The gradients of one unit of one sample. */
function gruUnitGrad(dHidden: number, factors: readonly number[]): GruGradients {
  const [r, a, mr, ma, mn] = factors as Five;
  const dn = dHidden * mn;
  const [dr, da] = [dn * mr, dHidden * ma];
  return { dz: [dr, da, dn], dq: [dr, da, dn * r], direct: dHidden * a };
}

export function evaluateGruGrad(inputs: readonly Dense[]): readonly Dense[] {
  const [u, dh, dhLast] = [0, 6, 7].map((i) => inputs[i]) as [Dense, Dense, Dense];
  const factors = inputs.slice(1, 6);
  const [steps, batch, units] = dh.shape as [number, number, number];
  const [dz, dq] = tensors(2, steps, batch, 3 * units) as [Dense, Dense];
  let dhNext = dhLast.data;
  for (let t = steps - 1; t >= 0; t--) {
    const direct = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      const here = row * units + unit;
      const dHidden = at(dh, here) + (dhNext[cell] as number);
      const made = gruUnitGrad(dHidden, elements(factors, here));
      storeGates(dz, row, unit, made.dz);
      storeGates(dq, row, unit, made.dq);
      direct[cell] = made.direct;
    });
    const dhBefore = new Float64Array(batch * units);
    each(t, batch, units, ({ cell, row, unit }) => {
      dhBefore[cell] = (direct[cell] as number) + through(dq, row, u, unit);
    });
    dhNext = dhBefore;
  }
  return [dz, dq, { shape: [batch, units], data: dhNext.slice() }];
}

export function evaluateGruStepGrad(inputs: readonly Dense[]): readonly Dense[] {
  const dh = inputs[5] as Dense;
  const [batch, units] = dh.shape as [number, number];
  const [dz, dq] = tensors(2, batch, 3 * units) as [Dense, Dense];
  const direct = tensor(batch, units);
  each(0, batch, units, ({ cell, sample, unit }) => {
    const made = gruUnitGrad(at(dh, cell), elements(inputs.slice(0, 5), cell));
    storeGates(dz, sample, unit, made.dz);
    storeGates(dq, sample, unit, made.dq);
    direct.data[cell] = made.direct;
  });
  return [dz, dq, direct];
}
