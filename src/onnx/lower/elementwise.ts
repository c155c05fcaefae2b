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

/** 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))); the operator is f32 only. */
function geluTanh(site: Site): readonly string[] {
  const { emitter } = site;
  const x = operand(site, 0);
  const { dtype } = operandType(site, 0);
  if (dtype === "f32") return [emitter.emit("Gelu", [x], { approximate: "tanh" })];
  const times = (a: string, factor: number) => emitter.emit("Mul", [a, emitter.scalar(dtype, factor)]);
  const oneMore = (a: string) => emitter.emit("Add", [a, emitter.scalar(dtype, 1)]);
  const bend = oneMore(times(emitter.emit("Mul", [x, x]), 0.044715));
  const inner = times(emitter.emit("Mul", [x, bend]), Math.sqrt(2 / Math.PI));
  return [emitter.emit("Mul", [times(x, 0.5), oneMore(emitter.emit("Tanh", [inner]))])];
}

/** x·σ(x). In f64 as x/(1 + exp(-x)): ONNX Runtime fuses the product into an operator that is f32 only. */
function silu(site: Site): readonly string[] {
  const { emitter } = site;
  const x = operand(site, 0);
  const { dtype } = operandType(site, 0);
  if (dtype === "f32") return [emitter.emit("Mul", [x, emitter.emit("Sigmoid", [x])])];
  const decay = emitter.emit("Exp", [emitter.emit("Neg", [x])]);
  return [emitter.emit("Div", [x, emitter.emit("Add", [decay, emitter.scalar(dtype, 1)])])];
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
  gelu: unary("Gelu"),
  "gelu-tanh": (_op, site) => geluTanh(site),
  silu: (_op, site) => silu(site),
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
