/** An ONNX model as plain data: the part of `onnx.proto` that lowering uses. `encodeModel` turns it into bytes. */

import type { DType } from "../graph/dtype.ts";
import type { Shape } from "../graph/shape.ts";

/** Element types inside a model; `u32` exists only between operations (counter-based random bits). */
export type OnnxDType = DType | "u32";

/** An attribute: a whole number, `{ float }`, text, a list of whole numbers, or the body of a `Scan`. */
export type OnnxAttribute = number | { readonly float: number } | string | readonly number[] | OnnxGraph;

export type OnnxAttributes = Readonly<Record<string, OnnxAttribute>>;

/** One operation; an empty name among inputs or outputs means "not given". */
export interface OnnxNode {
  readonly name: string;
  readonly opType: string;
  /** Empty for the standard operators, `com.microsoft` for ONNX Runtime's own. */
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: OnnxAttributes;
}

/** A constant; `bytes` are its elements, little-endian, in C order. */
export interface OnnxConstant {
  readonly name: string;
  readonly dtype: OnnxDType;
  readonly shape: Shape;
  readonly bytes: Uint8Array;
}

export interface OnnxValue {
  readonly name: string;
  readonly dtype: OnnxDType;
  readonly shape: Shape;
}

export interface OnnxGraph {
  readonly nodes: readonly OnnxNode[];
  readonly constants: readonly OnnxConstant[];
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
  /** Name of an output that is an empty sequence of tensors, listed before all others; see the ONNX Runtime engine. */
  readonly sentinel?: string;
}
