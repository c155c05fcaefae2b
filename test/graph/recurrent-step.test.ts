import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Op, OpKind } from "../../src/graph/op.ts";
import { type Dense, ShapeError } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import type { Shape } from "../../src/graph/shape.ts";
import { expectClose, randomDense } from "./dense.ts";

interface Sizes {
  readonly steps: number;
  readonly batch: number;
  readonly width: number;
  /** Units of each device. */
  readonly shares: readonly number[];
}

const uneven: Sizes = { steps: 4, batch: 3, width: 2, shares: [3, 5] };
const sizes = fc.record({
  steps: fc.integer({ min: 1, max: 4 }),
  batch: fc.integer({ min: 1, max: 3 }),
  width: fc.integer({ min: 1, max: 3 }),
  shares: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
});

function evaluate(op: Op, inputs: readonly Dense[]): readonly Dense[] {
  const rules = rulesOf(op.kind);
  const types = rules.infer(
    op,
    inputs.map(({ shape }) => ({ dtype: "f64", shape })),
  );
  const results = rules.evaluate(op, inputs, types);
  expect(results.map(({ shape }) => shape)).toEqual(types.map(({ shape }) => shape));
  return results;
}

/** The elements of the last dim with these indices, in their order. */
function columns(x: Dense, wanted: readonly number[]): Dense {
  const width = x.shape.at(-1) as number;
  const rows = x.data.length / width;
  const data = Float64Array.from({ length: rows * wanted.length }, (_, i) => {
    const row = Math.floor(i / wanted.length);
    return x.data[row * width + (wanted[i % wanted.length] as number)] as number;
  });
  return { shape: x.shape.with(-1, wanted.length), data };
}

function transposed(x: Dense): Dense {
  const [rows, width] = x.shape as [number, number];
  const data = x.data.map((_, i) => x.data[(i % rows) * width + Math.floor(i / rows)] as number);
  return { shape: [width, rows], data };
}

const rowsOf = (x: Dense, wanted: readonly number[]): Dense =>
  x.shape.length === 1 ? columns(x, wanted) : transposed(columns(transposed(x), wanted));

/** Step t of [T, ...]. */
function stepOf(x: Dense, t: number): Dense {
  const shape = x.shape.slice(1);
  const size = x.data.length / (x.shape[0] as number);
  return { shape, data: x.data.slice(t * size, (t + 1) * size) };
}

function stacked(steps: readonly Dense[]): Dense {
  const [first] = steps as [Dense];
  return {
    shape: [steps.length, ...first.shape],
    data: Float64Array.from(steps.flatMap((x) => [...x.data])),
  };
}

/** a·b. */
function product(a: Dense, b: Dense): Dense {
  return evaluate({ kind: "matmul", transposeA: false, transposeB: false }, [a, b])[0] as Dense;
}

function sum(...terms: readonly Dense[]): Dense {
  return terms.reduce((a, b) => evaluate({ kind: "add" }, [a, b])[0] as Dense);
}

/** x·wᵀ + b of all steps. */
function projected(x: Dense, w: Dense, b: Dense): Dense {
  return sum(product(x, transposed(w)), b);
}

interface Share {
  /** Its units among all. */
  readonly units: readonly number[];
  /** Its rows among those of all gates. */
  readonly rows: readonly number[];
}

function sharesOf(counts: readonly number[], gates: number): readonly Share[] {
  const all = counts.reduce((a, b) => a + b);
  return counts.map((count, device) => {
    const start = counts.slice(0, device).reduce((a, b) => a + b, 0);
    const units = Array.from({ length: count }, (_, i) => start + i);
    const rows = Array.from({ length: gates }, (_, gate) => units.map((unit) => gate * all + unit)).flat();
    return { units, rows };
  });
}

/** The columns of each share, put where they belong. */
function gathered(parts: readonly Dense[], places: readonly (readonly number[])[]): Dense {
  const order = places.flat();
  const [batch] = (parts[0] as Dense).shape as [number];
  const data = new Float64Array(batch * order.length);
  parts.forEach((part, device) => {
    const own = places[device] as readonly number[];
    part.data.forEach((value, i) => {
      const row = Math.floor(i / own.length);
      data[row * order.length + (own[i % own.length] as number)] = value;
    });
  });
  return { shape: [batch, order.length], data };
}

/** Results of each device, by result: the whole one. */
function gatheredAll(
  parts: readonly (readonly Dense[])[],
  shares: readonly Share[],
  gated: readonly number[] = [],
): readonly Dense[] {
  return (parts[0] as readonly Dense[]).map((_, result) =>
    gathered(
      parts.map((part) => part[result] as Dense),
      shares.map(({ rows, units }) => (gated.includes(result) ? rows : units)),
    ),
  );
}

function expectAll(got: readonly Dense[], expected: readonly Dense[], what: string): void {
  expect(got.length).toBe(expected.length);
  got.forEach((one, i) => {
    expectClose(one, expected[i] as Dense, 1e-12, `${what} ${i}`);
  });
}

function randoms(shapes: readonly Shape[]): readonly Dense[] {
  return shapes.map((shape, i) => randomDense(shape, i + 1));
}

const count = ({ shares }: Sizes): number => shares.reduce((a, b) => a + b);

function lstmForward(at: Sizes) {
  const [t, b, i, h] = [at.steps, at.batch, at.width, count(at)];
  return randoms([[t, b, i], [4 * h, i], [4 * h, h], [4 * h], [b, h], [b, h]]) as [
    Dense,
    Dense,
    Dense,
    Dense,
    Dense,
    Dense,
  ];
}

function checkLstm(at: Sizes): void {
  const forward = lstmForward(at);
  const [x, w, u, b, h0, c0] = forward;
  const shares = sharesOf(at.shares, 4);
  const zx = projected(x, w, b);
  let [h, c] = [h0, c0];
  const made = Array.from({ length: at.steps }, (_, t) => {
    const before = h;
    const parts = shares.map(({ units, rows }) =>
      evaluate({ kind: "lstm-step" }, [
        columns(stepOf(zx, t), rows),
        rowsOf(u, rows),
        before,
        columns(c, units),
      ]),
    );
    const results = gatheredAll(parts, shares);
    [h, c] = results as [Dense, Dense];
    return [h, before, ...results.slice(2)];
  });
  const saved = (made[0] as Dense[]).map((_, result) => stacked(made.map((step) => step[result] as Dense)));
  expectAll([saved[0] as Dense, h, c, ...saved.slice(1)], evaluate({ kind: "lstm" }, forward), "result");
}

function checkLstmGrad(at: Sizes): void {
  const forward = lstmForward(at);
  const u = forward[2];
  const [t, b, h] = [at.steps, at.batch, count(at)];
  const factors = evaluate({ kind: "lstm" }, forward).slice(4);
  const incoming = randoms([
    [t, b, h],
    [b, h],
    [b, h],
  ]) as [Dense, Dense, Dense];
  const shares = sharesOf(at.shares, 4);
  let [, dh, dc] = incoming;
  const dz: Dense[] = [];
  for (let step = t - 1; step >= 0; step--) {
    const total = sum(stepOf(incoming[0], step), dh);
    const parts = shares.map(({ units }) =>
      evaluate(
        { kind: "lstm-step-grad" },
        [...factors.map((factor) => stepOf(factor, step)), total, dc].map((one) => columns(one, units)),
      ),
    );
    dz.unshift(gatheredAll(parts, shares, [0])[0] as Dense);
    dc = gatheredAll(parts, shares, [0])[1] as Dense;
    dh = sum(
      ...parts.map(([own], device) => product(own as Dense, rowsOf(u, (shares[device] as Share).rows))),
    );
  }
  const expected = evaluate({ kind: "lstm-grad" }, [u, ...factors, ...incoming]);
  expectAll([stacked(dz), dh, dc], expected, "gradient");
}

function gruForward(at: Sizes) {
  const [t, b, i, h] = [at.steps, at.batch, at.width, count(at)];
  return randoms([[t, b, i], [3 * h, i], [3 * h, h], [3 * h], [3 * h], [b, h]]) as [
    Dense,
    Dense,
    Dense,
    Dense,
    Dense,
    Dense,
  ];
}

function checkGru(at: Sizes): void {
  const forward = gruForward(at);
  const [x, w, u, b, p, h0] = forward;
  const shares = sharesOf(at.shares, 3);
  const zx = projected(x, w, b);
  let h = h0;
  const made = Array.from({ length: at.steps }, (_, t) => {
    const before = h;
    const parts = shares.map(({ units, rows }) =>
      evaluate({ kind: "gru-step" }, [
        columns(stepOf(zx, t), rows),
        rowsOf(u, rows),
        rowsOf(p, rows),
        before,
        columns(before, units),
      ]),
    );
    const results = gatheredAll(parts, shares);
    h = results[0] as Dense;
    return [h, before, ...results.slice(1)];
  });
  const saved = (made[0] as Dense[]).map((_, result) => stacked(made.map((step) => step[result] as Dense)));
  expectAll([saved[0] as Dense, h, ...saved.slice(1)], evaluate({ kind: "gru" }, forward), "result");
}

function checkGruGrad(at: Sizes): void {
  const forward = gruForward(at);
  const u = forward[2];
  const [t, b, h] = [at.steps, at.batch, count(at)];
  const factors = evaluate({ kind: "gru" }, forward).slice(3);
  const incoming = randoms([
    [t, b, h],
    [b, h],
  ]) as [Dense, Dense];
  const shares = sharesOf(at.shares, 3);
  let dh = incoming[1];
  const [dz, dq]: [Dense[], Dense[]] = [[], []];
  for (let step = t - 1; step >= 0; step--) {
    const total = sum(stepOf(incoming[0], step), dh);
    const parts = shares.map(({ units }) =>
      evaluate(
        { kind: "gru-step-grad" },
        [...factors.map((factor) => stepOf(factor, step)), total].map((one) => columns(one, units)),
      ),
    );
    const [dzStep, dqStep, direct] = gatheredAll(parts, shares, [0, 1]) as [Dense, Dense, Dense];
    dz.unshift(dzStep);
    dq.unshift(dqStep);
    const through = parts.map(([, own], device) =>
      product(own as Dense, rowsOf(u, (shares[device] as Share).rows)),
    );
    dh = sum(direct, ...through);
  }
  const expected = evaluate({ kind: "gru-grad" }, [u, ...factors, ...incoming]);
  expectAll([stacked(dz), stacked(dq), dh], expected, "gradient");
}

const checks: readonly (readonly [string, (at: Sizes) => void])[] = [
  ["lstm", checkLstm],
  ["lstm-grad", checkLstmGrad],
  ["gru", checkGru],
  ["gru-grad", checkGruGrad],
];

describe.each(checks)("the steps of %s", (_kind, check) => {
  test("one after another, with all units in one share, make the layer", () => {
    check({ ...uneven, shares: [7] });
  });

  test("of two uneven shares, with what all units need exchanged between steps, make the layer", () => {
    check(uneven);
  });

  test("of any shares make the layer", () => {
    fc.assert(fc.property(sizes, check), { numRuns: 25 });
  });
});

describe("operands of a step that do not fit are refused, all of them at once", () => {
  const infer = (kind: OpKind, shapes: readonly Shape[]) => () =>
    rulesOf(kind).infer(
      { kind } as Op,
      shapes.map((shape) => ({ dtype: "f32", shape })),
    );

  test("lstm-step", () => {
    const wrong = infer("lstm-step", [
      [3, 8],
      [7, 5],
      [3, 6],
      [3, 2],
    ]);
    expect(wrong).toThrow(ShapeError);
    expect(wrong).toThrow(
      "operand 1 must be f32[8,5], got f32[7,5]; operand 2 must be f32[3,5], got f32[3,6]",
    );
  });

  test("gru-step", () => {
    const wrong = infer("gru-step", [[3, 8], [6, 5], [5], [3, 5], [3, 2]]);
    expect(wrong).toThrow("operand 0 must be f32[3,6], got f32[3,8]; operand 2 must be f32[6], got f32[5]");
  });

  test("a state that is not samples by units", () => {
    const state = "must be [batch, units], got f32[2,3,4]";
    expect(
      infer("lstm-step", [
        [3, 8],
        [8, 5],
        [3, 5],
        [2, 3, 4],
      ]),
    ).toThrow(`operand 3 ${state}`);
    expect(
      infer(
        "gru-step-grad",
        Array.from({ length: 6 }, () => [2, 3, 4]),
      ),
    ).toThrow(`operand 0 ${state}`);
  });
});
