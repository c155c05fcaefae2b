/**
 * Bytes of an ONNX model. The field numbers are those of `onnx.proto`
 * (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only what our models contain is written.
 */

import protobuf from "protobufjs/minimal.js";
import type { OnnxAttribute, OnnxConstant, OnnxDType, OnnxGraph, OnnxNode, OnnxValue } from "./model.ts";

type Writer = protobuf.Writer;

const irVersion = 10;
const opset = 21;
const contribOpset = 1;

/** `TensorProto.DataType`. */
const dataType: { readonly [K in OnnxDType]: number } = {
  f32: 1,
  i32: 6,
  i64: 7,
  bool: 9,
  f16: 10,
  f64: 11,
  u32: 12,
};

/** `TensorProto.DataType` of an element type, as `Cast` wants it. */
export function dataTypeOf(dtype: OnnxDType): number {
  return dataType[dtype];
}

const attributeType = { float: 1, int: 2, string: 3, graph: 5, ints: 7 };

const field = {
  model: { irVersion: 1, graph: 7, opsetImport: 8 },
  opset: { domain: 1, version: 2 },
  graph: { node: 1, name: 2, initializer: 5, input: 11, output: 12 },
  node: { input: 1, output: 2, name: 3, opType: 4, attribute: 5, domain: 7 },
  attribute: { name: 1, f: 2, i: 3, s: 4, g: 6, ints: 8, type: 20 },
  tensor: { dims: 1, dataType: 2, name: 8, rawData: 9 },
  value: { name: 1, type: 2 },
  type: { tensor: 1, sequence: 4 },
  sequence: { element: 1 },
  tensorType: { element: 1, shape: 2 },
  shape: { dim: 1 },
  dim: { value: 1 },
};

/** A complete model for the standard opset and ONNX Runtime's contributed operators. */
export function encodeModel(graph: OnnxGraph): Uint8Array {
  const writer = protobuf.Writer.create();
  int(writer, field.model.irVersion, irVersion);
  message(writer, field.model.graph, () => writeGraph(writer, graph));
  for (const [domain, version] of [
    ["", opset],
    ["com.microsoft", contribOpset],
  ] as const) {
    message(writer, field.model.opsetImport, () => {
      text(writer, field.opset.domain, domain);
      int(writer, field.opset.version, version);
    });
  }
  return writer.finish();
}

function writeGraph(writer: Writer, graph: OnnxGraph): void {
  for (const node of graph.nodes) message(writer, field.graph.node, () => writeNode(writer, node));
  text(writer, field.graph.name, "graph");
  for (const constant of graph.constants) {
    message(writer, field.graph.initializer, () => writeConstant(writer, constant));
  }
  for (const value of graph.inputs) message(writer, field.graph.input, () => writeValue(writer, value));
  const { sentinel } = graph;
  if (sentinel !== undefined) message(writer, field.graph.output, () => writeSequence(writer, sentinel));
  for (const value of graph.outputs) message(writer, field.graph.output, () => writeValue(writer, value));
}

function writeNode(writer: Writer, node: OnnxNode): void {
  for (const input of node.inputs) text(writer, field.node.input, input);
  for (const output of node.outputs) text(writer, field.node.output, output);
  text(writer, field.node.name, node.name);
  text(writer, field.node.opType, node.opType);
  for (const [name, value] of Object.entries(node.attributes)) {
    message(writer, field.node.attribute, () => writeAttribute(writer, name, value));
  }
  if (node.domain !== "") text(writer, field.node.domain, node.domain);
}

function writeAttribute(writer: Writer, name: string, value: OnnxAttribute): void {
  text(writer, field.attribute.name, name);
  const type = writeAttributeValue(writer, value);
  int(writer, field.attribute.type, attributeType[type]);
}

function writeAttributeValue(writer: Writer, value: OnnxAttribute): keyof typeof attributeType {
  if (typeof value === "number") {
    int(writer, field.attribute.i, value);
    return "int";
  }
  if (typeof value === "string") {
    text(writer, field.attribute.s, value);
    return "string";
  }
  if ("float" in value) {
    writer.uint32(tag(field.attribute.f, 5)).float(value.float);
    return "float";
  }
  if ("nodes" in value) {
    message(writer, field.attribute.g, () => writeGraph(writer, value));
    return "graph";
  }
  for (const entry of value) int(writer, field.attribute.ints, entry);
  return "ints";
}

function writeConstant(writer: Writer, { name, dtype, shape, bytes }: OnnxConstant): void {
  for (const dim of shape) int(writer, field.tensor.dims, dim);
  int(writer, field.tensor.dataType, dataType[dtype]);
  text(writer, field.tensor.name, name);
  writer.uint32(tag(field.tensor.rawData, 2)).bytes(bytes);
}

function writeValue(writer: Writer, { name, dtype, shape }: OnnxValue): void {
  text(writer, field.value.name, name);
  message(writer, field.value.type, () => {
    message(writer, field.type.tensor, () => {
      int(writer, field.tensorType.element, dataType[dtype]);
      message(writer, field.tensorType.shape, () => {
        for (const dim of shape) {
          message(writer, field.shape.dim, () => int(writer, field.dim.value, dim));
        }
      });
    });
  });
}

function writeSequence(writer: Writer, name: string): void {
  text(writer, field.value.name, name);
  message(writer, field.value.type, () => {
    message(writer, field.type.sequence, () => {
      message(writer, field.sequence.element, () => {
        message(writer, field.type.tensor, () => int(writer, field.tensorType.element, dataType.f32));
      });
    });
  });
}

/** Field number and wire type (0 varint, 2 length-delimited, 5 four bytes). */
function tag(number: number, wire: number): number {
  return (number << 3) | wire;
}

function int(writer: Writer, number: number, value: number): void {
  writer.uint32(tag(number, 0)).int64(value);
}

function text(writer: Writer, number: number, value: string): void {
  writer.uint32(tag(number, 2)).string(value);
}

function message(writer: Writer, number: number, write: () => void): void {
  writer.uint32(tag(number, 2)).fork();
  write();
  writer.ldelim();
}
