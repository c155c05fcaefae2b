/**
 * Random one-operation graphs, one generator for each kind of operation: shapes with dims of size 1, broadcasting, transposed
 * operands, strides, dilations and groups; numbers from the domain on which the operation is well conditioned.
 */

import fc from "fast-check";
import { GraphBuilder } from "../../src/graph/builder.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { maxPool, neg, not } from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { BinaryKind, CompareKind, Op, OpKind, UnaryKind, Window } from "../../src/graph/op.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { rulesOf } from "../../src/graph/op-table.ts";
import { type Shape, sizeOf, type TensorType } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { distinctDense, randomDense } from "../graph/dense.ts";

/** A graph with values for its inputs. */
export interface Case {
  readonly graph: Graph;
  readonly inputs: readonly Dense[];
}

/** Where the numbers of an operand come from. */
type Domain =
  | "signed"
  | "small"
  | "positive"
  | "away-from-zero"
  | "distinct"
  | "bits"
  | { readonly below: number; readonly from?: number };

interface Operand {
  readonly type: TensorType;
  readonly domain: Domain;
}

interface Plan {
  readonly op: Op;
  readonly operands: readonly Operand[];
}

/** `float` is the element type of the float operands. */
type Generator = (float: DType) => fc.Arbitrary<Plan>;

function valuesOf({ type, domain }: Operand, seed: number): Dense {
  const random = domain === "distinct" ? distinctDense(type.shape, seed) : randomDense(type.shape, seed);
  const map = (value: number): number => {
    if (domain === "small") return value * 0.5;
    if (domain === "positive") return 1.25 + value;
    if (domain === "away-from-zero") return value + 0.5 * Math.sign(value);
    if (domain === "bits") return value > 0 ? 1 : 0;
    if (typeof domain === "object") {
      const from = domain.from ?? 0;
      return from + Math.floor(((value + 1) / 2) * (domain.below - from));
    }
    return value * 2;
  };
  return { shape: random.shape, data: random.data.map(map) };
}

/**
 * The graph of one operation. Its results are the outputs, or, where it is `inside`, further operations read them, as memory for
 * values inside a model is managed in another way.
 */
function caseOf({ op, operands }: Plan, seed: number, inside: boolean): Case {
  const builder = new GraphBuilder();
  const inputs = operands.map(({ type }, i) => builder.input(`x${i}`, "data", type));
  if (op.kind === "max-pool-grad") inputs[1] = maxPool(inputs[0] as Tensor, op.kernel, op.window);
  const results = builder.apply(op, inputs);
  results.forEach((result, i) => {
    builder.output(`y${i}`, inside ? (result.dtype === "bool" ? not(result) : neg(result)) : result);
  });
  return { graph: builder.build(), inputs: operands.map((operand, i) => valuesOf(operand, seed + 31 * i)) };
}

const size: fc.Arbitrary<number> = fc.oneof(
  { weight: 1, arbitrary: fc.constant(1) },
  { weight: 3, arbitrary: fc.integer({ min: 2, max: 5 }) },
);

function shapes(minLength: number, maxLength: number): fc.Arbitrary<number[]> {
  return fc.array(size, { minLength, maxLength });
}

/** A shape together with `count` shapes that broadcast to it. */
function broadcasting(count: number): fc.Arbitrary<readonly Shape[]> {
  return shapes(0, 4).chain((shape) => {
    const one = fc
      .tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }))
      .map(([drop, ones]) => shape.slice(drop).map((dim, i) => (ones[i] ? 1 : dim)));
    return fc.array(one, { minLength: count, maxLength: count });
  });
}

function operand(dtype: DType, shape: Shape, domain: Domain = "signed"): Operand {
  return { type: { dtype, shape }, domain };
}

function unary(kind: UnaryKind, domain: Domain = "signed"): Generator {
  const dtype = (float: DType) => (kind === "not" ? "bool" : float);
  return (float) =>
    shapes(0, 4).map((shape) => ({ op: { kind }, operands: [operand(dtype(float), shape, domain)] }));
}

function binary(
  kind: BinaryKind | CompareKind,
  domains: readonly [Domain, Domain] = ["signed", "signed"],
): Generator {
  const logical = kind === "and" || kind === "or";
  return (float) =>
    broadcasting(2).map((both) => ({
      op: { kind },
      operands: both.map((shape, i) => operand(logical ? "bool" : float, shape, domains[i] as Domain)),
    }));
}

/** Small whole numbers, so that equal pairs occur. */
const few: Domain = { from: -2, below: 3 };

function reduction(kind: "sum" | "mean" | "reduce-max"): Generator {
  return (float) =>
    shapes(1, 4).chain((shape) =>
      fc
        .record({ dims: fc.subarray([...shape.keys()], { minLength: 1 }), keep: fc.boolean() })
        .map(({ dims, keep }) => ({ op: { kind, dims, keep }, operands: [operand(float, shape)] })),
    );
}

const matmul: Generator = (float) =>
  fc
    .record({
      batch: broadcasting(2),
      m: size,
      n: size,
      k: size,
      transposeA: fc.boolean(),
      transposeB: fc.boolean(),
    })
    .map(({ batch: [left, right], m, n, k, transposeA, transposeB }) => ({
      op: { kind: "matmul", transposeA, transposeB },
      operands: [
        operand(float, [...(left as Shape), ...(transposeA ? [k, m] : [m, k])]),
        operand(float, [...(right as Shape), ...(transposeB ? [n, k] : [k, n])]),
      ],
    }));

const movement: {
  readonly [K in
    | "constant"
    | "iota"
    | "broadcast"
    | "reshape"
    | "transpose"
    | "slice"
    | "concat"
    | "split"
    | "pad"]: Generator;
} = {
  constant: (float) =>
    fc.tuple(shapes(0, 3), fc.constantFrom(0, -0.5, 3)).map(([shape, value]) => ({
      op: { kind: "constant", dtype: float, shape, value },
      operands: [],
    })),
  iota: (float) =>
    shapes(1, 3).chain((shape) =>
      fc
        .tuple(fc.nat(shape.length - 1), fc.constantFrom<DType>(float, "i32", "i64"))
        .map(([dim, dtype]) => ({ op: { kind: "iota", dtype, shape, dim }, operands: [] })),
    ),
  broadcast: (float) =>
    broadcasting(1).chain(([shape]) =>
      shapes(0, 2).chain((lead) =>
        fc.array(size, { minLength: 4, maxLength: 4 }).map((sizes) => ({
          op: {
            kind: "broadcast",
            shape: [...lead, ...(shape as Shape).map((dim, i) => (dim === 1 ? (sizes[i] as number) : dim))],
          },
          operands: [operand(float, shape as Shape)],
        })),
      ),
    ),
  reshape: (float) =>
    shapes(0, 4).chain((shape) =>
      fc.constantFrom([sizeOf(shape)], [1, ...shape], shape.toReversed(), [...shape, 1]).map((to) => ({
        op: { kind: "reshape", shape: to },
        operands: [operand(float, shape)],
      })),
    ),
  transpose: (float) =>
    shapes(1, 4).chain((shape) =>
      fc
        .shuffledSubarray([...shape.keys()], { minLength: shape.length, maxLength: shape.length })
        .map((permutation) => ({
          op: { kind: "transpose", permutation },
          operands: [operand(float, shape)],
        })),
    ),
  slice: (float) =>
    fc
      .array(
        fc
          .record({ size, a: fc.nat(100), b: fc.nat(100), step: fc.integer({ min: 1, max: 3 }) })
          .map(({ size: total, a, b, step }) => {
            const start = a % total;
            return { total, start, stop: start + 1 + (b % (total - start)), step };
          }),
        { minLength: 1, maxLength: 4 },
      )
      .map((dims) => ({
        op: {
          kind: "slice",
          start: dims.map(({ start }) => start),
          stop: dims.map(({ stop }) => stop),
          step: dims.map(({ step }) => step),
        },
        operands: [
          operand(
            float,
            dims.map(({ total }) => total),
          ),
        ],
      })),
  concat: (float) =>
    shapes(1, 3).chain((shape) =>
      fc
        .tuple(fc.nat(shape.length - 1), fc.array(size, { minLength: 1, maxLength: 4 }))
        .map(([dim, sizes]) => ({
          op: { kind: "concat", dim },
          operands: sizes.map((part) => operand(float, shape.with(dim, part))),
        })),
    ),
  split: (float) =>
    shapes(1, 3).chain((shape) =>
      fc
        .tuple(fc.nat(shape.length - 1), fc.array(size, { minLength: 1, maxLength: 4 }))
        .map(([dim, sizes]) => ({
          op: { kind: "split", dim, sizes },
          operands: [
            operand(
              float,
              shape.with(
                dim,
                sizes.reduce((a, b) => a + b),
              ),
            ),
          ],
        })),
    ),
  pad: (float) =>
    shapes(1, 4).chain((shape) => {
      const counts = fc.array(fc.nat(2), { minLength: shape.length, maxLength: shape.length });
      return fc.tuple(counts, counts, fc.constantFrom(0, 1.5)).map(([before, after, value]) => ({
        op: { kind: "pad", before, after, value },
        operands: [operand(float, shape)],
      }));
    }),
};

/** Rows with a last dim: [..., n]. */
const rows: fc.Arbitrary<number[]> = shapes(1, 3);

const lookup: { readonly [K in "gather" | "scatter-add" | "take" | "take-grad"]: Generator } = {
  gather: (float) =>
    fc.tuple(shapes(0, 2), shapes(0, 2), size).map(([lead, rest, table]) => ({
      op: { kind: "gather" },
      operands: [operand(float, [table, ...rest]), operand("i32", lead, { below: table })],
    })),
  "scatter-add": (float) =>
    fc.tuple(shapes(0, 2), shapes(0, 2), size).map(([lead, rest, table]) => ({
      op: { kind: "scatter-add", size: table },
      operands: [operand("i32", lead, { below: table }), operand(float, [...lead, ...rest])],
    })),
  take: (float) =>
    rows.map((shape) => ({
      op: { kind: "take" },
      operands: [
        operand(float, shape),
        operand("i32", shape.slice(0, -1), { from: -2, below: (shape.at(-1) as number) + 2 }),
      ],
    })),
  "take-grad": (float) =>
    rows.map((shape) => ({
      op: { kind: "take-grad", size: shape.at(-1) as number },
      operands: [
        operand("i32", shape.slice(0, -1), { from: -2, below: (shape.at(-1) as number) + 2 }),
        operand(float, shape.slice(0, -1)),
      ],
    })),
};

const targets = (shape: Shape): Operand =>
  operand("i32", shape.slice(0, -1), { from: -1, below: shape.at(-1) as number });

const loss: { readonly [K in "cross-entropy" | "cross-entropy-grad" | "dropout-mask"]: Generator } = {
  "cross-entropy": (float) =>
    rows.map((shape) => ({
      op: { kind: "cross-entropy", ignore: -1 },
      operands: [operand(float, shape), targets(shape)],
    })),
  "cross-entropy-grad": (float) =>
    fc.tuple(rows, fc.option(fc.nat(4), { nil: undefined })).map(([shape, first]) => ({
      op: { kind: "cross-entropy-grad", ignore: -1, ...(first !== undefined && { first }) },
      operands: [
        operand(float, shape, "positive"),
        first === undefined
          ? targets(shape)
          : operand("i32", shape.slice(0, -1), { from: -1, below: first + (shape.at(-1) as number) + 3 }),
        operand(float, shape.slice(0, -1)),
        operand(float, shape.slice(0, -1)),
      ],
    })),
  "dropout-mask": (float) =>
    fc
      .record({
        shape: shapes(0, 3),
        strides: fc.array(fc.nat(1000), { minLength: 3, maxLength: 3 }),
        keep: fc.oneof(fc.constant(1), fc.double({ min: 0.01, max: 1, noNaN: true })),
      })
      .map(({ shape, strides, keep }) => ({
        op: { kind: "dropout-mask", dtype: float, shape, strides: strides.slice(0, shape.length), keep },
        operands: [
          operand("i32", [], { from: -(2 ** 31), below: 2 ** 31 }),
          operand("i32", [], { from: 0, below: 2 ** 31 }),
        ],
      })),
};

const channels = fc.tuple(size, size, shapes(0, 2)).map(([n, c, rest]) => [n, c, ...rest]);

const normalization: {
  readonly [K in
    | "softmax"
    | "softmax-grad"
    | "log-softmax"
    | "layer-norm"
    | "layer-norm-grad"
    | "batch-norm"
    | "batch-norm-grad"]: Generator;
} = {
  softmax: (float) => rows.map((shape) => ({ op: { kind: "softmax" }, operands: [operand(float, shape)] })),
  "softmax-grad": (float) =>
    rows.map((shape) => ({
      op: { kind: "softmax-grad" },
      operands: [operand(float, shape), operand(float, shape)],
    })),
  "log-softmax": (float) =>
    rows.map((shape) => ({ op: { kind: "log-softmax" }, operands: [operand(float, shape)] })),
  "layer-norm": (float) =>
    rows.map((shape) => {
      const features = [shape.at(-1) as number];
      return {
        op: { kind: "layer-norm", epsilon: 1e-3 },
        operands: [operand(float, shape), operand(float, features), operand(float, features)],
      };
    }),
  "layer-norm-grad": (float) =>
    rows.map((shape) => {
      const statistic = [...shape.slice(0, -1), 1];
      return {
        op: { kind: "layer-norm-grad" },
        operands: [
          operand(float, shape),
          operand(float, [shape.at(-1) as number]),
          operand(float, statistic),
          operand(float, statistic, "positive"),
          operand(float, shape),
        ],
      };
    }),
  "batch-norm": (float) =>
    channels.map((shape) => {
      const vector = [shape[1] as number];
      return {
        op: { kind: "batch-norm", epsilon: 1e-3 },
        operands: [operand(float, shape), operand(float, vector), operand(float, vector)],
      };
    }),
  "batch-norm-grad": (float) =>
    channels.map((shape) => {
      const vector = [shape[1] as number];
      return {
        op: { kind: "batch-norm-grad", epsilon: 1e-3 },
        operands: [
          operand(float, shape),
          operand(float, vector),
          operand(float, vector),
          operand(float, vector, "positive"),
          operand(float, shape),
        ],
      };
    }),
};

interface Sliding {
  readonly window: Window;
  readonly kernel: readonly [number, number];
  readonly image: readonly [number, number];
  readonly out: readonly [number, number];
}

/** A window that fits its image; `pooled` keeps padding smaller than the kernel, so that no window sees only padding. */
function sliding(pooled: boolean): fc.Arbitrary<Sliding> {
  const along = fc
    .record({
      kernel: fc.integer({ min: 1, max: 3 }),
      stride: fc.integer({ min: 1, max: 3 }),
      dilation: fc.integer({ min: 1, max: 2 }),
      extra: fc.nat(5),
      before: fc.nat(2),
      after: fc.nat(2),
    })
    .map(({ kernel, stride, dilation, extra, before, after }) => {
      const reach = (kernel - 1) * dilation + 1;
      const [top, bottom] = pooled
        ? [Math.min(before, kernel - 1), Math.min(after, kernel - 1)]
        : [before, after];
      const image = Math.max(1, reach - top - bottom) + extra;
      const out = Math.floor((image + top + bottom - reach) / stride) + 1;
      return { kernel, stride, dilation, top, bottom, image, out };
    });
  return fc.tuple(along, along).map(([h, w]) => ({
    window: {
      stride: [h.stride, w.stride],
      pad: [h.top, w.top, h.bottom, w.bottom],
      dilation: [h.dilation, w.dilation],
    },
    kernel: [h.kernel, w.kernel],
    image: [h.image, w.image],
    out: [h.out, w.out],
  }));
}

const convolved = fc.record({
  at: sliding(false),
  n: size,
  c: size,
  o: size,
  groups: fc.integer({ min: 1, max: 3 }),
});

const convolution: { readonly [K in "conv2d" | "conv2d-input-grad" | "conv2d-weight-grad"]: Generator } = {
  conv2d: (float) =>
    convolved.map(({ at, n, c, o, groups }) => ({
      op: { kind: "conv2d", window: at.window, groups },
      operands: [operand(float, [n, c * groups, ...at.image]), operand(float, [o * groups, c, ...at.kernel])],
    })),
  "conv2d-input-grad": (float) =>
    convolved.map(({ at, n, c, o, groups }) => ({
      op: { kind: "conv2d-input-grad", window: at.window, groups, height: at.image[0], width: at.image[1] },
      operands: [operand(float, [n, o * groups, ...at.out]), operand(float, [o * groups, c, ...at.kernel])],
    })),
  "conv2d-weight-grad": (float) =>
    convolved.map(({ at, n, c, o, groups }) => ({
      op: { kind: "conv2d-weight-grad", window: at.window, groups, kernel: at.kernel },
      operands: [operand(float, [n, c * groups, ...at.image]), operand(float, [n, o * groups, ...at.out])],
    })),
};

const pooled = fc.record({ at: sliding(true), n: size, c: size });

/** True when every window sees at least one element of the image. */
function usable(plan: Plan): boolean {
  try {
    rulesOf(plan.op.kind).infer(
      plan.op,
      plan.operands.map(({ type }) => type),
    );
    return true;
  } catch {
    return false;
  }
}

const pooling: { readonly [K in "max-pool" | "max-pool-grad" | "avg-pool" | "avg-pool-grad"]: Generator } = {
  "max-pool": (float) =>
    pooled.map(({ at, n, c }) => ({
      op: { kind: "max-pool", window: at.window, kernel: at.kernel },
      operands: [operand(float, [n, c, ...at.image])],
    })),
  "max-pool-grad": (float) =>
    pooled.map(({ at, n, c }) => ({
      op: { kind: "max-pool-grad", window: at.window, kernel: at.kernel },
      operands: [
        operand(float, [n, c, ...at.image], few),
        operand(float, [n, c, ...at.out]),
        operand(float, [n, c, ...at.out]),
      ],
    })),
  "avg-pool": (float) =>
    pooled.map(({ at, n, c }) => ({
      op: { kind: "avg-pool", window: at.window, kernel: at.kernel },
      operands: [operand(float, [n, c, ...at.image])],
    })),
  "avg-pool-grad": (float) =>
    pooled.map(({ at, n, c }) => ({
      op: {
        kind: "avg-pool-grad",
        window: at.window,
        kernel: at.kernel,
        height: at.image[0],
        width: at.image[1],
      },
      operands: [operand(float, [n, c, ...at.out])],
    })),
};

const walk = fc.record({ t: size, b: size, h: size, i: size });

function repeat<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

/** Small numbers keep the gates off saturation, where their derivatives are differences of nearly equal numbers. */
const recurrent: { readonly [K in "lstm" | "lstm-grad" | "gru" | "gru-grad"]: Generator } = {
  lstm: (float) =>
    walk.map(({ t, b, h, i }) => ({
      op: { kind: "lstm" },
      operands: [[t, b, i], [4 * h, i], [4 * h, h], [4 * h], [b, h], [b, h]].map((shape) =>
        operand(float, shape, "small"),
      ),
    })),
  "lstm-grad": (float) =>
    walk.map(({ t, b, h }) => ({
      op: { kind: "lstm-grad" },
      operands: [[4 * h, h], ...repeat(7, [t, b, h]), [b, h], [b, h]].map((shape) =>
        operand(float, shape, "small"),
      ),
    })),
  gru: (float) =>
    walk.map(({ t, b, h, i }) => ({
      op: { kind: "gru" },
      operands: [[t, b, i], [3 * h, i], [3 * h, h], [3 * h], [3 * h], [b, h]].map((shape) =>
        operand(float, shape, "small"),
      ),
    })),
  "gru-grad": (float) =>
    walk.map(({ t, b, h }) => ({
      op: { kind: "gru-grad" },
      operands: [[3 * h, h], ...repeat(6, [t, b, h]), [b, h]].map((shape) => operand(float, shape, "small")),
    })),
};

/** A share of h of `all` units. */
const share = fc
  .record({ b: size, h: size, others: fc.nat(3) })
  .map(({ b, h, others }) => ({ b, h, all: h + others }));

function step(op: Op, shapesOf: (sizes: { b: number; h: number; all: number }) => Shape[]): Generator {
  return (float) =>
    share.map((sizes) => ({
      op,
      operands: shapesOf(sizes).map((shape) => operand(float, shape, "small")),
    }));
}

const recurrentStep = {
  "lstm-step": step({ kind: "lstm-step" }, ({ b, h, all }) => [
    [b, 4 * h],
    [4 * h, all],
    [b, all],
    [b, h],
  ]),
  "lstm-step-grad": step({ kind: "lstm-step-grad" }, ({ b, h }) => repeat(8, [b, h])),
  "gru-step": step({ kind: "gru-step" }, ({ b, h, all }) => [
    [b, 3 * h],
    [3 * h, all],
    [3 * h],
    [b, all],
    [b, h],
  ]),
  "gru-step-grad": step({ kind: "gru-step-grad" }, ({ b, h }) => repeat(6, [b, h])),
};

/** Rows of 2 or 3 ranks. */
const shares = fc.array(size, { minLength: 2, maxLength: 3 });

const collective: { readonly [K in "all-reduce" | "all-gather" | "reduce-scatter"]: Generator } = {
  "all-reduce": (float) =>
    fc
      .tuple(fc.constantFrom("sum" as const, "max" as const), fc.integer({ min: 2, max: 3 }), shapes(0, 3))
      .map(([reduce, count, shape]) => ({
        op: { kind: "all-reduce", reduce },
        operands: repeat(count, operand(float, shape)),
      })),
  "all-gather": (float) =>
    fc.tuple(shares, shapes(0, 2)).map(([sizes, rest]) => ({
      op: { kind: "all-gather" },
      operands: sizes.map((part) => operand(float, [part, ...rest])),
    })),
  "reduce-scatter": (float) =>
    fc.tuple(shares, shapes(0, 2)).map(([sizes, rest]) => ({
      op: { kind: "reduce-scatter", sizes },
      operands: sizes.map(() => operand(float, [sizes.reduce((a, b) => a + b), ...rest])),
    })),
};

const cast: Generator = (float) =>
  fc
    .tuple(shapes(0, 3), fc.constantFrom<DType>("f32", "f64", "i32", "i64", "bool"), fc.boolean())
    .map(([shape, dtype, back]) => ({
      op: { kind: "cast", dtype: back ? float : dtype },
      operands: [
        operand(
          back ? dtype : float,
          shape,
          dtype === "bool" ? (back ? "bits" : few) : { from: -9, below: 9 },
        ),
      ],
    }));

const where: Generator = (float) =>
  broadcasting(3).map(([condition, a, b]) => ({
    op: { kind: "where" },
    operands: [
      operand("bool", condition as Shape, "bits"),
      operand(float, a as Shape),
      operand(float, b as Shape),
    ],
  }));

/** One generator for each kind; a missing one does not compile. */
const generators: { readonly [K in OpKind]: Generator } = {
  neg: unary("neg"),
  abs: unary("abs"),
  sign: unary("sign", few),
  exp: unary("exp"),
  log: unary("log", "positive"),
  sqrt: unary("sqrt", "positive"),
  reciprocal: unary("reciprocal", "away-from-zero"),
  square: unary("square"),
  sin: unary("sin"),
  cos: unary("cos"),
  erf: unary("erf"),
  sigmoid: unary("sigmoid"),
  tanh: unary("tanh"),
  relu: unary("relu"),
  gelu: unary("gelu"),
  "gelu-tanh": unary("gelu-tanh"),
  silu: unary("silu"),
  softplus: unary("softplus"),
  not: unary("not", "bits"),
  add: binary("add"),
  sub: binary("sub"),
  mul: binary("mul"),
  div: binary("div", ["signed", "away-from-zero"]),
  pow: binary("pow", ["positive", "signed"]),
  max: binary("max", [few, few]),
  min: binary("min", [few, few]),
  and: binary("and", ["bits", "bits"]),
  or: binary("or", ["bits", "bits"]),
  equal: binary("equal", [few, few]),
  less: binary("less", [few, few]),
  "less-equal": binary("less-equal", [few, few]),
  greater: binary("greater", [few, few]),
  "greater-equal": binary("greater-equal", [few, few]),
  where,
  cast,
  sum: reduction("sum"),
  mean: reduction("mean"),
  "reduce-max": reduction("reduce-max"),
  matmul,
  ...movement,
  ...lookup,
  ...loss,
  ...normalization,
  ...convolution,
  ...pooling,
  ...recurrent,
  ...recurrentStep,
  ...collective,
};

/** Random cases of one kind. */
export function casesOf(kind: OpKind, float: DType): fc.Arbitrary<Case> {
  return fc
    .tuple(generators[kind](float), fc.nat(1_000_000), fc.boolean())
    .filter(([plan]) => !kind.includes("pool") || usable(plan))
    .map(([plan, seed, inside]) => caseOf(plan, seed, inside));
}
