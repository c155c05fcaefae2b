import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { avgPool, maxPool, only } from "../../src/graph/functions.ts";
import type { OpOf, Window } from "../../src/graph/op.ts";
import { type Dense, ShapeError } from "../../src/graph/op-rules.ts";
import { opTable, rulesOf } from "../../src/graph/op-table.ts";
import { type Shape, sizeOf, type TensorType } from "../../src/graph/shape.ts";
import { distinctDense, expectClose, randomDense } from "./dense.ts";
import { checkGradients } from "./gradient-check.ts";
import { pytorchCases } from "./pytorch-cases.ts";
import { checkSpace, flopsOf } from "./space-check.ts";

type PoolingOp = OpOf<"max-pool"> | OpOf<"max-pool-grad"> | OpOf<"avg-pool"> | OpOf<"avg-pool-grad">;

const plain: Window = { stride: [1, 1], pad: [0, 0, 0, 0], dilation: [1, 1] };

const size = (max: number, min = 1) => fc.integer({ min, max });

/** Padding is smaller than the kernel and dilation leaves no window without an element, as `infer` demands. */
const cases = fc
  .record({
    x: fc.tuple(size(2), size(2), size(6), size(6)),
    kernel: fc.tuple(size(3), size(3)),
    stride: fc.tuple(size(3), size(3)),
    pad: fc.tuple(size(2, 0), size(2, 0), size(2, 0), size(2, 0)),
    dilation: fc.tuple(size(2), size(2)),
  })
  .map(({ x, kernel, stride, pad, dilation }) => ({ x, kernel, window: { stride, pad, dilation } }))
  .filter(({ x, kernel, window }) => fits({ kind: "max-pool", kernel, window }, x));

function fits(op: PoolingOp, ...shapes: Shape[]): boolean {
  try {
    infer(op, ...shapes);
    return true;
  } catch {
    return false;
  }
}

function infer(op: PoolingOp, ...shapes: Shape[]): readonly TensorType[] {
  return rulesOf(op.kind).infer(
    op,
    shapes.map((shape) => ({ dtype: "f64", shape })),
  );
}

function run(op: PoolingOp, ...inputs: Dense[]): Dense {
  return rulesOf(op.kind).evaluate(op, inputs, infer(op, ...inputs.map(({ shape }) => shape)))[0] as Dense;
}

function dense(shape: Shape, values: readonly number[]): Dense {
  return { shape, data: Float64Array.from(values) };
}

interface Options {
  readonly kernel: [number, number];
  readonly stride: [number, number];
  readonly padding: [number, number];
  readonly dilation?: [number, number];
  readonly countPadding?: boolean;
}

function windowOf({ stride, padding: [height, width], dilation = [1, 1] }: Options): Window {
  return { stride, pad: [height, width, height, width], dilation };
}

describe("max-pool", () => {
  test.each(pytorchCases<Options>("max-pool"))("agrees with PyTorch: $name", (known) => {
    const { kernel } = known.options;
    const window = windowOf(known.options);
    const x = known.input("x");
    const y = run({ kind: "max-pool", kernel, window }, x);
    expectClose(y, known.output("y"), 1e-12);
    const dx = run({ kind: "max-pool-grad", kernel, window }, x, y, known.input("r"));
    expectClose(dx, known.gradient("x"), 1e-12);
  });

  test("has the derivative that finite differences give, for any window", () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ x, kernel, window }, seed) => {
        checkGradients({
          inputs: { x: distinctDense(x, seed) },
          build: (at) => maxPool(at.x, kernel, window),
        });
      }),
      { numRuns: 40 },
    );
  });

  test("is never won by padding, even where all elements are negative", () => {
    const x = dense([1, 1, 2, 2], [-4, -3, -2, -1]);
    const y = run({ kind: "max-pool", kernel: [2, 2], window: { ...plain, pad: [1, 1, 1, 1] } }, x);
    expect([...y.data]).toEqual([-4, -3, -3, -2, -1, -1, -2, -1, -1]);
  });

  test("gives the gradient to the first of several equal maxima", () => {
    const x = dense([1, 1, 2, 2], [0, 5, 5, 5]);
    const dx = run(
      { kind: "max-pool-grad", kernel: [2, 2], window: plain },
      x,
      dense([1, 1, 1, 1], [5]),
      dense([1, 1, 1, 1], [7]),
    );
    expect([...dx.data]).toEqual([0, 7, 0, 0]);
  });

  test("passes a NaN on, so that a broken loss is seen", () => {
    const x = dense([1, 1, 1, 3], [1, Number.NaN, 9]);
    expect([...run({ kind: "max-pool", kernel: [1, 3], window: plain }, x).data]).toEqual([Number.NaN]);
  });
});

describe("avg-pool", () => {
  const comparable = pytorchCases<Options>("average-pool").filter(
    ({ options }) => options.countPadding === false || options.padding.every((length) => length === 0),
  );
  test.each(comparable)("agrees with PyTorch: $name", (known) => {
    const { kernel } = known.options;
    const window = windowOf(known.options);
    const x = known.input("x");
    expectClose(run({ kind: "avg-pool", kernel, window }, x), known.output("y"), 1e-12);
    const [height, width] = x.shape.slice(2) as [number, number];
    const dx = run({ kind: "avg-pool-grad", kernel, window, height, width }, known.input("r"));
    expectClose(dx, known.gradient("x"), 1e-12);
  });

  test("and its gradient have the derivatives that finite differences give, for any window", () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ x, kernel, window }, seed) => {
        checkGradients({ inputs: { x: randomDense(x, seed) }, build: (at) => avgPool(at.x, kernel, window) });
        const y = infer({ kind: "avg-pool", kernel, window }, x)[0] as TensorType;
        const op = { kind: "avg-pool-grad", kernel, window, height: x[2], width: x[3] } as const;
        checkGradients({
          inputs: { dy: randomDense(y.shape, seed) },
          build: ({ dy }) => only(dy.scope.apply(op, [dy])),
        });
      }),
      { numRuns: 30 },
    );
  });

  test("of a constant image is that constant, up to the border", () => {
    fc.assert(
      fc.property(cases, ({ x, kernel, window }) => {
        const image = dense(x, new Array<number>(sizeOf(x)).fill(3));
        for (const value of run({ kind: "avg-pool", kernel, window }, image).data)
          expect(value).toBeCloseTo(3, 12);
      }),
    );
  });
});

test("pooling and its gradients can be cut by samples and channels only", () => {
  const kernel = [2, 3] as const;
  const window: Window = { stride: [2, 1], pad: [1, 0, 0, 1], dilation: [1, 1] };
  const x = distinctDense([3, 2, 7, 5], 1);
  const y = run({ kind: "max-pool", kernel, window }, x);
  const dy = randomDense(y.shape, 2);
  const [height, width] = [7, 5];
  expect(checkSpace({ op: { kind: "max-pool", kernel, window }, inputs: [x] })).toEqual(["n", "c"]);
  expect(checkSpace({ op: { kind: "max-pool-grad", kernel, window }, inputs: [x, y, dy] })).toEqual([
    "n",
    "c",
  ]);
  expect(checkSpace({ op: { kind: "avg-pool", kernel, window }, inputs: [x] })).toEqual(["n", "c"]);
  const gradient = { kind: "avg-pool-grad", kernel, window, height, width } as const;
  expect(checkSpace({ op: gradient, inputs: [dy] })).toEqual(["n", "c"]);
});

test("an average and its gradient add once for every result and kernel element", () => {
  fc.assert(
    fc.property(cases, ({ x, kernel, window }) => {
      const input: TensorType = { dtype: "f64", shape: x };
      const [y] = infer({ kind: "avg-pool", kernel, window }, x) as [TensorType];
      const expected = sizeOf(y.shape) * sizeOf(kernel);
      const forward = opTable["avg-pool"].space({ kind: "avg-pool", kernel, window }, [input], [y]);
      const op = { kind: "avg-pool-grad", kernel, window, height: x[2], width: x[3] } as const;
      const backward = opTable["avg-pool-grad"].space(op, [y], [input]);
      expect(flopsOf(forward)).toBe(expected);
      expect(flopsOf(backward) / expected).toBeCloseTo(1, 12);
    }),
  );
});

describe("operands that do not fit are refused", () => {
  const pool = { kind: "max-pool", kernel: [2, 2], window: plain } as const;
  const refusals: [string, PoolingOp, Shape[]][] = [
    ["expects the input as floats [N, C, H, W], got f64[2,8,8]", pool, [[2, 8, 8]]],
    ["the kernel [2,2] with dilation [1,1] covers [2,2] elements, but the input [1,8]", pool, [[1, 1, 1, 8]]],
    [
      "input f64[1,1,4,4] and kernel [2,2] do not fit together: with padding [2,0,0,0] some windows would see nothing but padding",
      { ...pool, window: { ...plain, pad: [2, 0, 0, 0] } },
      [[1, 1, 4, 4]],
    ],
    [
      "would see nothing but padding",
      { ...pool, window: { stride: [1, 1], pad: [1, 0, 1, 0], dilation: [2, 1] } },
      [[1, 1, 1, 4]],
    ],
    [
      "stride must be whole numbers of at least 1, got [1,0]",
      { ...pool, window: { ...plain, stride: [1, 0] } },
      [[1, 1, 4, 4]],
    ],
    [
      "the gradient of pooling f64[1,1,4,4] with this window must be f64[1,1,3,3], got f64[1,1,2,3]",
      { ...pool, kind: "max-pool-grad" },
      [
        [1, 1, 4, 4],
        [1, 1, 3, 3],
        [1, 1, 2, 3],
      ],
    ],
    [
      "the result of pooling f64[1,1,4,4] with this window must be f64[1,1,3,3], got f64[1,2,3,3]",
      { ...pool, kind: "max-pool-grad" },
      [
        [1, 1, 4, 4],
        [1, 2, 3, 3],
        [1, 1, 3, 3],
      ],
    ],
    [
      "the gradient of pooling f64[1,1,4,5] with this window must be f64[1,1,3,4], got f64[1,1,3,3]",
      { ...pool, kind: "avg-pool-grad", height: 4, width: 5 },
      [[1, 1, 3, 3]],
    ],
  ];
  test.each(refusals)("%s", (message, op, shapes) => {
    expect(() => infer(op, ...shapes)).toThrow(ShapeError);
    expect(() => infer(op, ...shapes)).toThrow(message);
  });
});
