import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { batchNorm, layerNorm, logSoftmax, only, softmax, sum } from "../../src/graph/functions.ts";
import type { Op } from "../../src/graph/op.ts";
import { type Dense, ShapeError } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import { type Shape, sizeOf, type TensorType } from "../../src/graph/shape.ts";
import { distinctDense, expectClose, randomDense } from "./dense.ts";
import { checkGradients } from "./gradient-check.ts";
import { pytorchCases } from "./pytorch-cases.ts";
import { checkSpace } from "./space-check.ts";

function infer(op: Op, ...shapes: Shape[]): readonly TensorType[] {
  return rulesOf(op.kind).infer(
    op,
    shapes.map((shape) => ({ dtype: "f64", shape })),
  );
}

function run(op: Op, ...inputs: Dense[]): readonly Dense[] {
  return rulesOf(op.kind).evaluate(op, inputs, infer(op, ...inputs.map(({ shape }) => shape)));
}

const size = fc.integer({ min: 1, max: 4 });
const shapes = fc.array(size, { minLength: 1, maxLength: 3 });
const channelShapes = fc.array(size, { minLength: 2, maxLength: 4 });
const epsilons = fc.double({ min: 0.01, max: 1, noNaN: true });

describe("softmax", () => {
  test("of known numbers is exact: the logarithms of 1, 2, 5 give 1/8, 2/8, 5/8", () => {
    const x = { shape: [1, 3], data: Float64Array.from([0, Math.log(2), Math.log(5)]) };
    const expected = Float64Array.from([1 / 8, 2 / 8, 5 / 8]);
    expectClose(run({ kind: "softmax" }, x)[0] as Dense, { shape: [1, 3], data: expected }, 1e-15);
    expectClose(
      run({ kind: "log-softmax" }, x)[0] as Dense,
      { shape: [1, 3], data: expected.map(Math.log) },
      1e-15,
    );
  });

  test("does not overflow, and does not change when a number is added to a row", () => {
    const x = { shape: [2, 2], data: Float64Array.from([1000, 1001, -1000, -999]) };
    const row = [1 / (1 + Math.E), Math.E / (1 + Math.E)];
    const expected = { shape: [2, 2], data: Float64Array.from([...row, ...row]) };
    expectClose(run({ kind: "softmax" }, x)[0] as Dense, expected, 1e-14);
    expectClose(
      run({ kind: "log-softmax" }, x)[0] as Dense,
      { ...expected, data: expected.data.map(Math.log) },
      1e-14,
    );
  });

  test.each(pytorchCases("cross-entropy"))("log-softmax agrees with PyTorch: $name", ({ input, output }) => {
    expectClose(run({ kind: "log-softmax" }, input("logits"))[0] as Dense, output("logProbabilities"), 1e-12);
  });

  test("softmax, its gradient and log-softmax have the derivatives that finite differences give", () => {
    fc.assert(
      fc.property(shapes, fc.nat(), (shape, seed) => {
        const x = randomDense(shape, seed);
        checkGradients({ inputs: { x }, build: (at) => softmax(at.x) });
        checkGradients({ inputs: { x }, build: (at) => logSoftmax(at.x) });
        checkGradients({
          inputs: { y: x, dy: randomDense(shape, seed + 1) },
          build: ({ y, dy }) => only(y.scope.apply({ kind: "softmax-grad" }, [y, dy])),
        });
      }),
      { numRuns: 50 },
    );
  });

  test("can be cut by every dim but the last", () => {
    const x = randomDense([3, 2, 4], 1);
    expect(checkSpace({ op: { kind: "softmax" }, inputs: [x] })).toEqual(["d0", "d1"]);
    expect(checkSpace({ op: { kind: "log-softmax" }, inputs: [x] })).toEqual(["d0", "d1"]);
    expect(checkSpace({ op: { kind: "softmax-grad" }, inputs: [x, x] })).toEqual(["d0", "d1"]);
  });
});

describe("layer-norm", () => {
  interface Options {
    readonly normalisedDims: number;
    readonly epsilon: number;
  }
  test.each(pytorchCases<Options>("layer-norm"))(
    "agrees with PyTorch: $name",
    ({ options, input, output, gradient }) => {
      const { epsilon, normalisedDims } = options;
      const flat = ({ shape, data }: Dense): Dense => ({
        shape: [...shape.slice(0, -normalisedDims), sizeOf(shape.slice(-normalisedDims))],
        data,
      });
      const [x, weight, bias, r] = ["x", "weight", "bias", "r"].map((name) => flat(input(name))) as [
        Dense,
        Dense,
        Dense,
        Dense,
      ];
      const [y, mean, deviation] = run({ kind: "layer-norm", epsilon }, x, weight, bias) as [
        Dense,
        Dense,
        Dense,
      ];
      expectClose(y, flat(output("y")), 1e-11);
      const [dx] = run({ kind: "layer-norm-grad" }, x, weight, mean, deviation, r);
      expectClose(dx as Dense, flat(gradient("x")), 1e-11);
      const gradients = checkGradients({
        inputs: { x, weight, bias },
        build: (at) => layerNorm(at.x, at.weight, at.bias, epsilon),
      });
      expect(gradients.weight.shape).toEqual(weight.shape);
    },
  );

  test("has the derivatives that finite differences give, for any shape", () => {
    fc.assert(
      fc.property(shapes, epsilons, fc.nat(), (shape, epsilon, seed) => {
        const features = shape.slice(-1);
        checkGradients({
          inputs: {
            x: distinctDense(shape, seed),
            scale: randomDense(features, seed + 1),
            shift: randomDense(features, seed + 2),
          },
          build: ({ x, scale, shift }) => layerNorm(x, scale, shift, epsilon),
        });
      }),
      { numRuns: 50 },
    );
  });

  test("gives the mean and the inverse standard deviation of every row", () => {
    const x = { shape: [2, 2], data: Float64Array.from([1, 5, -3, -3]) };
    const ones = { shape: [2], data: Float64Array.from([1, 1]) };
    const [y, mean, deviation] = run({ kind: "layer-norm", epsilon: 0.25 }, x, ones, ones) as [
      Dense,
      Dense,
      Dense,
    ];
    expect([...mean.data]).toEqual([3, -3]);
    expect(mean.shape).toEqual([2, 1]);
    expectClose(deviation, { shape: [2, 1], data: Float64Array.from([1 / Math.sqrt(4.25), 2]) }, 1e-15);
    expectClose(
      y,
      { shape: [2, 2], data: Float64Array.from([1 - 2 / Math.sqrt(4.25), 1 + 2 / Math.sqrt(4.25), 1, 1]) },
      1e-15,
    );
  });

  test("can be cut by every dim but the last", () => {
    const [x, dy, row] = [randomDense([3, 2, 4], 1), randomDense([3, 2, 4], 2), randomDense([4], 3)];
    const [, mean, deviation] = run({ kind: "layer-norm", epsilon: 0.1 }, x, row, row) as [
      Dense,
      Dense,
      Dense,
    ];
    expect(checkSpace({ op: { kind: "layer-norm", epsilon: 0.1 }, inputs: [x, row, row] })).toEqual([
      "d0",
      "d1",
    ]);
    const inputs = [x, row, mean, deviation, dy];
    expect(checkSpace({ op: { kind: "layer-norm-grad" }, inputs })).toEqual(["d0", "d1"]);
  });
});

describe("batch-norm", () => {
  interface Options {
    readonly training: boolean;
    readonly epsilon: number;
    readonly momentum: number;
  }
  const training = pytorchCases<Options>("batch-norm").filter(({ options }) => options.training);
  test.each(training)("agrees with PyTorch: $name", ({ options, input, output, gradient }) => {
    const { epsilon, momentum } = options;
    const [x, weight, bias, r] = ["x", "weight", "bias", "r"].map(input) as [Dense, Dense, Dense, Dense];
    const [y, mean, variance] = run({ kind: "batch-norm", epsilon }, x, weight, bias) as [
      Dense,
      Dense,
      Dense,
    ];
    expectClose(y, output("y"), 1e-11);
    const count = sizeOf(x.shape) / weight.data.length;
    const running = (before: Dense, batch: Dense, correction: number): Dense => ({
      shape: before.shape,
      data: before.data.map(
        (value, i) => (1 - momentum) * value + momentum * correction * (batch.data[i] as number),
      ),
    });
    expectClose(running(input("runningMean"), mean, 1), output("runningMean"), 1e-12);
    expectClose(
      running(input("runningVariance"), variance, count / (count - 1)),
      output("runningVariance"),
      1e-12,
    );
    const gradients = run({ kind: "batch-norm-grad", epsilon }, x, weight, mean, variance, r);
    for (const [i, name] of ["x", "weight", "bias"].entries()) {
      expectClose(gradients[i] as Dense, gradient(name), 1e-11, `gradient of ${name}`);
    }
  });

  test("has the derivatives that finite differences give, for any shape", () => {
    fc.assert(
      fc.property(channelShapes, epsilons, fc.nat(), (shape, epsilon, seed) => {
        const channels = [shape[1] as number];
        checkGradients({
          inputs: {
            x: distinctDense(shape, seed),
            scale: randomDense(channels, seed + 1),
            shift: randomDense(channels, seed + 2),
          },
          build: ({ x, scale, shift }) => batchNorm(x, scale, shift, epsilon)[0] as typeof x,
        });
      }),
      { numRuns: 50 },
    );
  });

  test("can be cut by channels only", () => {
    const [x, dy, channel] = [randomDense([3, 4, 2], 1), randomDense([3, 4, 2], 2), randomDense([4], 3)];
    const [, mean, variance] = run({ kind: "batch-norm", epsilon: 0.1 }, x, channel, channel) as [
      Dense,
      Dense,
      Dense,
    ];
    expect(checkSpace({ op: { kind: "batch-norm", epsilon: 0.1 }, inputs: [x, channel, channel] })).toEqual([
      "c",
    ]);
    const inputs = [x, channel, mean, variance, dy];
    expect(checkSpace({ op: { kind: "batch-norm-grad", epsilon: 0.1 }, inputs })).toEqual(["c"]);
  });
});

test("the statistics of a normalisation are not differentiable", () => {
  for (const result of [1, 2]) {
    for (const kind of ["layer-norm", "batch-norm"] as const) {
      const builder = new GraphBuilder();
      const [x, row] = [[3, 3], [3]].map((shape, i) =>
        builder.input(`${i}`, "parameter", { dtype: "f64", shape }),
      );
      if (!x || !row) throw new Error("two inputs");
      const statistic = builder.apply({ kind, epsilon: 0.1 }, [x, row, row])[result];
      builder.output("loss", sum(statistic ?? x));
      const graph = builder.build();
      expect(() => differentiate(graph, [{ output: "loss", gradient: "one" }], ["0"])).toThrow(
        `internal: ${kind}: its statistics have no derivative`,
      );
    }
  }
});

describe("operands that do not fit are refused", () => {
  const refusals: [string, Op, Shape[]][] = [
    ["expects floats with at least 1 dim, got f64[]", { kind: "softmax" }, [[]]],
    ["expects floats with at least 1 dim, got f64[]", { kind: "log-softmax" }, [[]]],
    [
      "the gradient must be f64[2,3], got f64[2,4]",
      { kind: "softmax-grad" },
      [
        [2, 3],
        [2, 4],
      ],
    ],
    [
      "input f64[2,3] needs a scale of f64[3], got f64[2]",
      { kind: "layer-norm", epsilon: 0 },
      [[2, 3], [2], [3]],
    ],
    [
      "input f64[2,3] needs a shift of f64[3], got f64[1,3]",
      { kind: "layer-norm", epsilon: 0 },
      [[2, 3], [3], [1, 3]],
    ],
    [
      "cannot normalise rows of no elements, got f64[2,0]",
      { kind: "layer-norm", epsilon: 0 },
      [[2, 0], [0], [0]],
    ],
    ["epsilon must be at least 0, got -1", { kind: "layer-norm", epsilon: -1 }, [[2, 3], [3], [3]]],
    [
      "the mean must be f64[2,1], got f64[2]",
      { kind: "layer-norm-grad" },
      [[2, 3], [3], [2], [2, 1], [2, 3]],
    ],
    [
      "the gradient must be f64[2,3], got f64[3]",
      { kind: "layer-norm-grad" },
      [[2, 3], [3], [2, 1], [2, 1], [3]],
    ],
    [
      "expects floats [N, C, ...] with at least 1 element, got f64[3]",
      { kind: "batch-norm", epsilon: 0 },
      [[3], [3], [3]],
    ],
    [
      "expects floats [N, C, ...] with at least 1 element, got f64[0,3]",
      { kind: "batch-norm", epsilon: 0 },
      [[0, 3], [3], [3]],
    ],
    [
      "input f64[4,3,2] needs a scale of f64[3], got f64[2]",
      { kind: "batch-norm", epsilon: 0 },
      [[4, 3, 2], [2], [3]],
    ],
    [
      "input f64[4,3] needs a variance of f64[3], got f64[4]",
      { kind: "batch-norm-grad", epsilon: 0 },
      [[4, 3], [3], [3], [4], [4, 3]],
    ],
  ];
  test.each(refusals)("%s", (message, op, operands) => {
    expect(() => infer(op, ...operands)).toThrow(ShapeError);
    expect(() => infer(op, ...operands)).toThrow(message);
  });
});
