/** Elementwise operations: one ONNX operator each where there is one. */

import type { BinaryKind, CompareKind, UnaryKind } from "../../graph/op.ts";
import { dataTypeOf } from "../encode.ts";
import { type Lowering, operand, operandType, type Site, thinOperands } from "../site.ts";

type ElementwiseKind = UnaryKind | BinaryKind | CompareKind | "where" | "cast";

function unary(opType: string): Lowering<UnaryKind> {
  return (_op, site) => [site.emitter.emit(opType, [operand(site, 0)])];
}

function binary(opType: string): Lowering<BinaryKind | CompareKind> {
  return (_op, site) => [site.emitter.emit(opType, thinOperands(site))];
}

/** 0.5·x·(1 + erf(x/√2)) in float64, where ONNX Runtime has no operator of its own. */
function gelu(site: Site): readonly string[] {
  const { emitter } = site;
  const x = operand(site, 0);
  const { dtype } = operandType(site, 0);
  if (dtype !== "f64") return [emitter.emit("Gelu", [x])];
  const scaled = emitter.emit("Erf", [emitter.emit("Mul", [x, emitter.scalar(dtype, Math.SQRT1_2)])]);
  const half = emitter.emit("Mul", [x, emitter.scalar(dtype, 0.5)]);
  return [emitter.emit("Mul", [half, emitter.emit("Add", [scaled, emitter.scalar(dtype, 1)])])];
}

function geluTanh(site: Site): readonly string[] {
  const { emitter } = site;
  const x = operand(site, 0);
  const { dtype } = operandType(site, 0);
  if (dtype !== "f64") return [emitter.emit("Gelu", [x], { approximate: "tanh" })];
  const squared = emitter.emit("Mul", [x, x]);
  const bent = emitter.emit("Add", [
    emitter.emit("Mul", [squared, emitter.scalar(dtype, 0.044715)]),
    emitter.scalar(dtype, 1),
  ]);
  const inner = emitter.emit("Mul", [
    emitter.emit("Mul", [x, bent]),
    emitter.scalar(dtype, Math.sqrt(2 / Math.PI)),
  ]);
  const half = emitter.emit("Mul", [x, emitter.scalar(dtype, 0.5)]);
  return [
    emitter.emit("Mul", [
      half,
      emitter.emit("Add", [emitter.emit("Tanh", [inner]), emitter.scalar(dtype, 1)]),
    ]),
  ];
}

/** max(x, 0) + log(1 + exp(-|x|)); the operator `Softplus` takes 12 times as long as any of these. */
function softplus(site: Site): readonly string[] {
  const { emitter } = site;
  const x = operand(site, 0);
  const { dtype } = operandType(site, 0);
  const decay = emitter.emit("Exp", [emitter.emit("Neg", [emitter.emit("Abs", [x])])]);
  const log = emitter.emit("Log", [emitter.emit("Add", [decay, emitter.scalar(dtype, 1)])]);
  return [emitter.emit("Add", [emitter.emit("Relu", [x]), log])];
}

/** ONNX casts a float that is not whole to bool as `!= 0`, and to integers toward zero, as the operation says. */
const cast: Lowering<"cast"> = (op, site) => [
  site.emitter.emit("Cast", [operand(site, 0)], { to: dataTypeOf(op.dtype) }),
];

export const elementwise: { readonly [K in ElementwiseKind]: Lowering<K> } = {
  neg: unary("Neg"),
  abs: unary("Abs"),
  sign: unary("Sign"),
  exp: unary("Exp"),
  log: unary("Log"),
  sqrt: unary("Sqrt"),
  reciprocal: unary("Reciprocal"),
  square: (_op, site) => [site.emitter.emit("Mul", [operand(site, 0), operand(site, 0)])],
  sin: unary("Sin"),
  cos: unary("Cos"),
  erf: unary("Erf"),
  sigmoid: unary("Sigmoid"),
  tanh: unary("Tanh"),
  relu: unary("Relu"),
  gelu: (_op, site) => gelu(site),
  "gelu-tanh": (_op, site) => geluTanh(site),
  silu: (_op, site) => {
    const x = operand(site, 0);
    return [site.emitter.emit("Mul", [x, site.emitter.emit("Sigmoid", [x])])];
  },
  softplus: (_op, site) => softplus(site),
  not: unary("Not"),
  add: binary("Add"),
  sub: binary("Sub"),
  mul: binary("Mul"),
  div: binary("Div"),
  pow: binary("Pow"),
  max: binary("Max"),
  min: binary("Min"),
  and: binary("And"),
  or: binary("Or"),
  equal: binary("Equal"),
  less: binary("Less"),
  "less-equal": binary("LessOrEqual"),
  greater: binary("Greater"),
  "greater-equal": binary("GreaterOrEqual"),
  where: (_op, site) => [site.emitter.emit("Where", thinOperands(site))],
  cast,
};
