/** Finds out where a step went wrong: which tensor was the first that was not finite. */

import { trainingStep } from "../autodiff/training-step.ts";
import { invariant } from "../base/errors.ts";
import type { BatchShape } from "../data/dataset.ts";
import { allocate, isFloat, type TypedArray } from "../graph/dtype.ts";
import type { Graph, Node } from "../graph/graph.ts";
import { showType, sizeOf, type TensorType } from "../graph/shape.ts";
import { buildForward } from "../model/forward.ts";
import type { CompileSource } from "../partition/compile.ts";
import type { Engine, TensorBuffer } from "./engine.ts";
import type { StepInput } from "./feed.ts";

/** The loss or the gradient of a step is NaN or infinite; nothing that lasts was changed by the step. */
export class NonFiniteError extends Error {
  override readonly name: string = "NonFiniteError";
  /** Counted from 1. */
  readonly step: number;

  constructor(step: number, loss: number, gradientNorm: number, origin: string | undefined) {
    const where = origin === undefined ? "" : `; the first tensor that is not finite is ${origin}`;
    super(
      `step ${step}: the loss is ${loss} and the gradient's norm ${gradientNorm}${where}; the parameters are those before this step`,
    );
    this.step = step;
  }
}

/**
 * Repeats the step on the whole batch, keeping every value, and describes the first one that is not finite; `undefined` when all are
 * (the fault then lies in how the step was split).
 */
export async function findNonFinite(
  source: CompileSource,
  shape: BatchShape,
  input: StepInput,
  tensors: ReadonlyMap<string, TensorBuffer>,
  engine: Engine,
): Promise<string | undefined> {
  const { dtype, optimizer } = source;
  const forward = buildForward(source, { shape: { item: shape, total: shape }, training: true, dtype });
  const { item } = trainingStep(forward, { optimizer });
  const graph = withAllOutputs(item);
  const inputs = graph.inputs.map(({ name }, value) =>
    inputBuffer(name, graph.types[value] as TensorType, input, tensors),
  );
  const brokenInput = inputs.findIndex(({ type, data }) => isBroken(type, data));
  if (brokenInput >= 0)
    return `the input "${graph.inputs[brokenInput]?.name}" ${showType(graph.types[brokenInput] as TensorType)}`;
  const outputs = graph.outputs.map(({ value }): TensorBuffer => {
    const type = graph.types[value] as TensorType;
    return { type, data: allocate(type.dtype, sizeOf(type.shape)) };
  });
  await (await engine.prepare(graph)).bind(inputs, outputs).run();
  const broken = outputs.findIndex(({ type, data }) => isBroken(type, data));
  return broken < 0 ? undefined : describeValue(graph, graph.outputs[broken]?.value ?? 0);
}

function withAllOutputs(graph: Graph): Graph {
  const outputs = graph.nodes.flatMap((node) => node.outputs.map((value) => ({ name: `%${value}`, value })));
  return { ...graph, outputs };
}

function inputBuffer(
  name: string,
  type: TensorType,
  input: StepInput,
  tensors: ReadonlyMap<string, TensorBuffer>,
): TensorBuffer {
  const lasting = tensors.get(name);
  if (lasting !== undefined) return lasting;
  const given = input.data[name];
  if (given !== undefined) return { type, data: given.data };
  const scalar = input.scalars[name];
  invariant(scalar !== undefined, `nothing is known of the input "${name}"`);
  const data = allocate(type.dtype, 1);
  (data as Float32Array).fill(scalar);
  return { type, data };
}

function isBroken(type: TensorType, data: TypedArray): boolean {
  return (
    isFloat(type.dtype) &&
    type.dtype !== "f16" &&
    (data as Float32Array).some((value) => !Number.isFinite(value))
  );
}

function describeValue(graph: Graph, value: number): string {
  const node = graph.nodes.find(({ outputs }) => outputs.includes(value)) as Node;
  const phase = node.phase === "F" ? "forward" : "backward";
  return `the result of ${node.op.kind} ${showType(graph.types[value] as TensorType)} in group "${node.group}" (${phase})`;
}
