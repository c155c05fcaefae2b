import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { add, conv2d, only, reshape } from "../../src/graph/functions.ts";
import type { OpOf } from "../../src/graph/op.ts";
import { type Dense, ShapeError } from "../../src/graph/op-rules.ts";
import { opTable, rulesOf } from "../../src/graph/op-table.ts";
import { type Shape, sizeOf, type TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { expectClose, randomDense } from "./dense.ts";
import { checkGradients } from "./gradient-check.ts";
import { pytorchCases } from "./pytorch-cases.ts";
import { checkSpace, flopsOf } from "./space-check.ts";

type Conv2d = OpOf<"conv2d">;

interface Case {
  readonly op: Conv2d;
  readonly x: Shape;
  readonly w: Shape;
}

const size = (max: number, min = 1) => fc.integer({ min, max });

/** Convolutions with sizes from 1, uneven padding, gaps and groups; those whose kernel does not fit are left out. */
const cases = fc
  .record({
    n: size(2),
    groups: size(2),
    c: size(2),
    o: size(2),
    image: fc.tuple(size(5), size(5)),
    kernel: fc.tuple(size(3), size(3)),
    stride: fc.tuple(size(3), size(3)),
    pad: fc.tuple(size(2, 0), size(2, 0), size(2, 0), size(2, 0)),
    dilation: fc.tuple(size(2), size(2)),
  })
  .map(
    ({ n, groups, c, o, image, kernel, stride, pad, dilation }): Case => ({
      op: { kind: "conv2d", window: { stride, pad, dilation }, groups },
      x: [n, c * groups, ...image],
      w: [o * groups, c, ...kernel],
    }),
  )
  .filter(({ op, x, w }) =>
    [0, 1].every(
      (dim) =>
        ((w[dim + 2] as number) - 1) * (op.window.dilation[dim] as number) + 1 <=
        (x[dim + 2] as number) + (op.window.pad[dim] as number) + (op.window.pad[dim + 2] as number),
    ),
  );

function types(...shapes: Shape[]): TensorType[] {
  return shapes.map((shape) => ({ dtype: "f64", shape }));
}

function resultShape({ op, x, w }: Case): Shape {
  return (opTable.conv2d.infer(op, types(x, w))[0] as TensorType).shape;
}

function run(
  op: Conv2d | OpOf<"conv2d-input-grad"> | OpOf<"conv2d-weight-grad">,
  inputs: readonly Dense[],
): Dense {
  const rules = rulesOf(op.kind);
  return rules.evaluate(op, inputs, rules.infer(op, types(...inputs.map(({ shape }) => shape))))[0] as Dense;
}

function inputGrad({ op, x }: Case): OpOf<"conv2d-input-grad"> {
  return { ...op, kind: "conv2d-input-grad", height: x[2] as number, width: x[3] as number };
}

function weightGrad({ op, w }: Case): OpOf<"conv2d-weight-grad"> {
  return { ...op, kind: "conv2d-weight-grad", kernel: [w[2] as number, w[3] as number] };
}

function dot(a: Dense, b: Dense): number {
  return a.data.reduce((total, value, i) => total + value * (b.data[i] as number), 0);
}

describe("conv2d", () => {
  interface Options {
    readonly stride: [number, number];
    readonly padding: [number, number];
    readonly dilation: [number, number];
    readonly groups: number;
  }
  test.each(pytorchCases<Options>("conv2d"))(
    "agrees with PyTorch: $name",
    ({ options, input, output, gradient }) => {
      const [top, left] = options.padding;
      const window = { ...options, pad: [top, left, top, left] as const };
      const [x, weight, bias, r] = ["x", "weight", "bias", "r"].map(input) as [Dense, Dense, Dense, Dense];
      const op: Conv2d = { kind: "conv2d", window, groups: options.groups };
      const shape = output("y").shape;
      const y = run(op, [x, weight]);
      const area = sizeOf(shape.slice(2));
      const biased = y.data.map(
        (value, i) => value + (bias.data[Math.floor(i / area) % (shape[1] as number)] as number),
      );
      expectClose({ shape: y.shape, data: biased }, output("y"), 1e-12);
      const at: Case = { op, x: x.shape, w: weight.shape };
      expectClose(run(inputGrad(at), [r, weight]), gradient("x"), 1e-12);
      expectClose(run(weightGrad(at), [x, r]), gradient("weight"), 1e-12);
    },
  );

  test("has the derivatives that finite differences give, for any window", () => {
    fc.assert(
      fc.property(cases, fc.nat(), ({ op, x, w }, seed) => {
        checkGradients({
          inputs: { x: randomDense(x, seed), w: randomDense(w, seed + 1) },
          build: (at) => only(at.x.scope.apply(op, [at.x, at.w])),
        });
      }),
      { numRuns: 40 },
    );
  });

  test("can be written with the function of the same name, and a bias that broadcasts", () => {
    checkGradients({
      inputs: { x: randomDense([2, 4, 3, 5], 1), w: randomDense([6, 2, 3, 2], 2), b: randomDense([6], 3) },
      build: ({ x, w, b }) => add(conv2d(x, w, { groups: 2, pad: [1, 0, 1, 0] }), reshape(b, [6, 1, 1])),
    });
  });
});

describe("gradients of conv2d", () => {
  test("are the adjoints of conv2d: the three tensors have one product", () => {
    fc.assert(
      fc.property(cases, fc.nat(), (at, seed) => {
        const [x, w] = [randomDense(at.x, seed), randomDense(at.w, seed + 1)];
        const dy = randomDense(resultShape(at), seed + 2);
        const product = dot(run(at.op, [x, w]), dy);
        expect(dot(run(inputGrad(at), [dy, w]), x)).toBeCloseTo(product, 9);
        expect(dot(run(weightGrad(at), [x, dy]), w)).toBeCloseTo(product, 9);
      }),
    );
  });

  test("are differentiable themselves", () => {
    fc.assert(
      fc.property(cases, fc.nat(), (at, seed) => {
        const dyShape = resultShape(at);
        const apply =
          (op: ReturnType<typeof inputGrad> | ReturnType<typeof weightGrad>) => (a: Tensor, b: Tensor) =>
            only(a.scope.apply(op, [a, b]));
        checkGradients({
          inputs: { dy: randomDense(dyShape, seed), w: randomDense(at.w, seed + 1) },
          build: ({ dy, w }) => apply(inputGrad(at))(dy, w),
        });
        checkGradients({
          inputs: { x: randomDense(at.x, seed), dy: randomDense(dyShape, seed + 1) },
          build: ({ x, dy }) => apply(weightGrad(at))(x, dy),
        });
      }),
      { numRuns: 20 },
    );
  });
});

describe("iteration spaces of convolution", () => {
  const at: Case = {
    op: { kind: "conv2d", window: { stride: [2, 1], pad: [1, 0, 1, 2], dilation: [1, 1] }, groups: 2 },
    x: [2, 4, 6, 5],
    w: [6, 2, 3, 2],
  };
  const [x, w, dy] = [randomDense(at.x, 1), randomDense(at.w, 2), randomDense(resultShape(at), 3)];
  const resize =
    <O extends { readonly groups: number }>(op: O) =>
    (name: string, length: number): O =>
      name === "g" ? { ...op, groups: length } : op;

  test("conv2d can be cut by samples, groups and output channels, and leaves partial sums over input channels", () => {
    const cut = checkSpace({ op: at.op, inputs: [x, w], resize: resize(at.op) });
    expect(cut).toEqual(["n", "g", "o", "c"]);
  });

  test("the input gradient leaves partial sums over output channels", () => {
    const op = inputGrad(at);
    const cut = checkSpace({ op, inputs: [dy, w], resize: resize(op) });
    expect(cut).toEqual(["n", "g", "c", "o"]);
  });

  test("the weight gradient leaves partial sums over samples", () => {
    const op = weightGrad(at);
    const cut = checkSpace({ op, inputs: [x, dy], resize: resize(op) });
    expect(cut).toEqual(["g", "o", "c", "n"]);
  });

  test("all three do a multiply and an add for every result, kernel element and input channel", () => {
    fc.assert(
      fc.property(cases, (any) => {
        const y = resultShape(any);
        const expected = 2 * sizeOf(y) * sizeOf(any.w.slice(1));
        const flops = [
          opTable.conv2d.space(any.op, types(any.x, any.w), types(y)),
          opTable["conv2d-input-grad"].space(inputGrad(any), types(y, any.w), types(any.x)),
          opTable["conv2d-weight-grad"].space(weightGrad(any), types(any.x, y), types(any.w)),
        ].map(flopsOf);
        for (const counted of flops) expect(counted / expected).toBeCloseTo(1, 12);
      }),
    );
  });

  test("height and width of the images are windows, so that cutting them needs a halo", () => {
    const spaces = [
      opTable.conv2d.space(at.op, types(at.x, at.w), types(resultShape(at))),
      opTable["conv2d-input-grad"].space(inputGrad(at), types(resultShape(at), at.w), types(at.x)),
    ];
    const names = spaces.map(({ loops }) =>
      loops.filter(({ kind }) => kind === "window").map(({ name }) => name),
    );
    expect(names).toEqual([
      ["oh", "ow"],
      ["ih", "iw"],
    ]);
  });
});

describe("operands that do not fit are refused", () => {
  const window = { stride: [1, 1], pad: [0, 0, 0, 0], dilation: [1, 1] } as const;
  const conv =
    (change: Partial<Conv2d>, ...shapes: Shape[]) =>
    () =>
      opTable.conv2d.infer({ kind: "conv2d", window, groups: 1, ...change }, types(...shapes));

  test.each([
    [
      conv({}, [1, 3, 8, 8], [4, 2, 3, 3]),
      "input f64[1,3,8,8] and weight f64[4,2,3,3] do not fit together: the input has 3 channels, the weight expects 2 in each of 1 groups",
    ],
    [conv({}, [3, 8, 8], [4, 3, 3, 3]), "expects the input as floats [N, C, H, W], got f64[3,8,8]"],
    [conv({}, [1, 3, 8, 8], [4, 3, 3]), "expects the weight as floats [O, C/groups, KH, KW], got f64[4,3,3]"],
    [
      conv({ groups: 2 }, [1, 3, 8, 8], [4, 3, 3, 3]),
      "2 groups must divide the 3 input channels and the 4 output channels",
    ],
    [conv({ groups: 0 }, [1, 3, 8, 8], [4, 3, 3, 3]), "0 groups must divide"],
    [
      conv({}, [1, 3, 2, 8], [4, 3, 3, 3]),
      "the kernel [3,3] with dilation [1,1] covers [3,3] elements, but the input [2,8] with padding [0,0,0,0] has only [2,8]",
    ],
    [
      conv({ window: { ...window, stride: [0, 1] } }, [1, 3, 8, 8], [4, 3, 3, 3]),
      "stride must be whole numbers of at least 1, got [0,1]",
    ],
    [
      conv({ window: { ...window, dilation: [1, 0.5] } }, [1, 3, 8, 8], [4, 3, 3, 3]),
      "dilation must be whole numbers of at least 1, got [1,0.5]",
    ],
    [
      conv({ window: { ...window, pad: [0, -1, 0, 0] } }, [1, 3, 8, 8], [4, 3, 3, 3]),
      "padding must be whole numbers of at least 0, got [0,-1,0,0]",
    ],
    [conv({}, [1, 3, 8, 8], [4, 3, 0, 3]), "kernel must be whole numbers of at least 1, got [0,3]"],
  ])("refusal %#", (infer, message) => {
    expect(infer).toThrow(ShapeError);
    expect(infer).toThrow(message);
  });

  test("the types of both operands are the same float type", () => {
    const op: Conv2d = { kind: "conv2d", window, groups: 1 };
    const infer = (x: TensorType["dtype"], w: TensorType["dtype"]) => () =>
      opTable.conv2d.infer(op, [
        { dtype: x, shape: [1, 1, 2, 2] },
        { dtype: w, shape: [1, 1, 1, 1] },
      ]);
    expect(infer("f32", "f64")).toThrow("operands f32[1,1,2,2] and f64[1,1,1,1] have different types");
    expect(infer("i32", "i32")).toThrow("got i32[1,1,2,2]");
  });

  test("a gradient must have the size that the window gives", () => {
    const at: Case = { op: { kind: "conv2d", window, groups: 1 }, x: [1, 2, 5, 5], w: [3, 2, 3, 3] };
    expect(() => opTable["conv2d-input-grad"].infer(inputGrad(at), types([1, 3, 4, 3], at.w))).toThrow(
      "gradient f64[1,3,4,3] and weight f64[3,2,3,3] do not fit together: the window gives a result of [3,3], the gradient has [4,3]",
    );
    expect(() => opTable["conv2d-input-grad"].infer(inputGrad(at), types([1, 4, 3, 3], at.w))).toThrow(
      "4 channels of the gradient, 3 of the weight",
    );
    expect(() => opTable["conv2d-weight-grad"].infer(weightGrad(at), types(at.x, [2, 3, 3, 3]))).toThrow(
      "1 samples of the input, 2 of the gradient",
    );
    expect(() => opTable["conv2d-weight-grad"].infer(weightGrad(at), types(at.x, [1, 3, 3, 4]))).toThrow(
      "the window gives a result of [3,3], the gradient has [3,4]",
    );
  });
});
