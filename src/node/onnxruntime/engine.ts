/**
 * ONNX Runtime as an engine. A segment becomes an ONNX model in memory and a session; sessions are shared by structure; outputs
 * are written straight into the caller's memory.
 *
 *     prepare ── structureKey ──► session (made once) ── bind ──► tensors over the buffers ── run: no copies, no new tensors
 *
 * The binding of ONNX Runtime 1.30 copies every output once more into a fresh JavaScript tensor that nobody asked for (8 MB: 1 ms
 * and garbage). It refuses to do so for outputs that are not tensors, and stops at the first of these, after the computation. So
 * models with large outputs begin with an empty sequence, and that one refusal is expected (`binding.ts`).
 */

import { InferenceSession, Tensor } from "onnxruntime-node";
import { UserError } from "../../base/errors.ts";
import {
  type BoundKernel,
  checkBuffers,
  describeSegment,
  type Engine,
  type Kernel,
  overlap,
  type TensorBuffer,
} from "../../execute/engine.ts";
import { mayOverwrite } from "../../execute/in-place.ts";
import { allocate, type DType } from "../../graph/dtype.ts";
import type { Graph } from "../../graph/graph.ts";
import { bytesOfType, sizeOf, type TensorType } from "../../graph/shape.ts";
import { structureKey } from "../../graph/structure.ts";
import { type LoweredGraph, lowerGraph, originOf } from "../../onnx/lower.ts";

export interface OnnxRuntimeOptions {
  /** Threads that one operation may use; default 1. */
  readonly threads?: number;
  /** Writes ONNX Runtime's own trace of every session to files that start with this path. */
  readonly profile?: string;
}

export interface OnnxRuntimeEngine extends Engine {
  /** Number of sessions made so far. */
  sessions(): number;
}

interface Prepared extends LoweredGraph {
  readonly session: InferenceSession;
  /** True when every successful run ends in the binding's refusal to convert the sentinel. */
  readonly refuses: boolean;
}

/** An engine on the CPU with its own sessions. */
export function onnxRuntimeEngine(options: OnnxRuntimeOptions = {}): OnnxRuntimeEngine {
  const prepared = new Map<string, Promise<Prepared>>();
  const prepare = async (segment: Graph): Promise<Kernel> => {
    const key = structureKey(segment);
    const known = prepared.get(key) ?? createSession(segment, options);
    prepared.set(key, known);
    try {
      return kernel(segment, await known);
    } catch (error) {
      prepared.delete(key);
      throw error;
    }
  };
  return {
    name: "onnxruntime",
    prepare,
    sessions: () => prepared.size,
    [Symbol.asyncDispose]: async () => {
      const made = await Promise.allSettled(prepared.values());
      prepared.clear();
      for (const result of made) {
        if (result.status === "fulfilled") await release(result.value.session, options);
      }
    },
  };
}

async function createSession(
  segment: Graph,
  { threads = 1, profile }: OnnxRuntimeOptions,
): Promise<Prepared> {
  const refuses = outputBytes(segment) > sentinelFrom;
  const lowered = lowerGraph(segment, refuses ? { sentinel: "done" } : {});
  try {
    const session = await InferenceSession.create(lowered.model, {
      executionMode: "sequential",
      graphOptimizationLevel: "all",
      interOpNumThreads: 1,
      intraOpNumThreads: threads,
      logSeverityLevel: 4,
      ...(profile === undefined ? {} : { enableProfiling: true, profileFilePrefix: profile }),
    });
    return { ...lowered, session, refuses };
  } catch (cause) {
    throw explained(segment, cause, "cannot be prepared by ONNX Runtime");
  }
}

async function release(session: InferenceSession, { profile }: OnnxRuntimeOptions): Promise<void> {
  if (profile !== undefined) session.endProfiling();
  await session.release();
}

/** Below this many bytes of outputs the binding's copy is cheaper than its exception (10 us). */
const sentinelFrom = 65_536;
const refusal = "Non tensor type is temporarily not supported.";

function outputBytes(segment: Graph): number {
  return segment.outputs.reduce((sum, { value }) => sum + bytesOfType(segment.types[value] as TensorType), 0);
}

function kernel(segment: Graph, prepared: Prepared): Kernel {
  return {
    bind: (inputs, outputs) => {
      checkBuffers(segment, inputs, outputs);
      return bound(segment, prepared, inputs, outputs);
    },
  };
}

function bound(
  segment: Graph,
  { session, refuses, ...names }: Prepared,
  inputs: readonly TensorBuffer[],
  outputs: readonly TensorBuffer[],
): BoundKernel {
  const copies: { readonly from: TensorBuffer; readonly to: TensorBuffer }[] = [];
  const targets = outputs.map((buffer, output) => {
    if (isSafe(segment, output, buffer, inputs)) return buffer;
    const own = { type: buffer.type, data: allocate(buffer.type.dtype, sizeOf(buffer.type.shape)) };
    copies.push({ from: own, to: buffer });
    return own;
  });
  const feeds = Object.fromEntries(
    names.inputs.map((name, i) => [name, tensorOf(inputs[i] as TensorBuffer)]),
  );
  const fetches: Record<string, Tensor | null> = Object.fromEntries(
    names.outputs.map((name, i) => [name, tensorOf(targets[i] as TensorBuffer)]),
  );
  if (refuses) fetches["done"] = null;
  const run = async (): Promise<void> => {
    try {
      await session.run(feeds, fetches);
    } catch (error) {
      if (!(refuses && (error as Error).message.includes(refusal))) throw explained(segment, error, "failed");
    }
    for (const { from, to } of copies) (to.data as Float32Array).set(from.data as Float32Array);
  };
  return { run };
}

/** True when the output may be written while the inputs are still being read. */
function isSafe(
  segment: Graph,
  output: number,
  buffer: TensorBuffer,
  inputs: readonly TensorBuffer[],
): boolean {
  return inputs.every(
    (input, value) =>
      !overlap(buffer.data, input.data) ||
      (buffer.data.byteOffset === input.data.byteOffset && mayOverwrite(segment, output, value)),
  );
}

const tensorType: { readonly [K in DType]: Tensor.Type } = {
  f32: "float32",
  f16: "float16",
  f64: "float64",
  i32: "int32",
  i64: "int64",
  bool: "bool",
};

function tensorOf({ type, data }: TensorBuffer): Tensor {
  if (!(data.buffer instanceof ArrayBuffer)) {
    throw new UserError(
      "ONNX Runtime takes no SharedArrayBuffer; give it an alias of that memory as an ArrayBuffer",
    );
  }
  return new Tensor(tensorType[type.dtype], data as Tensor.DataType, type.shape);
}

/** A message of ONNX Runtime with the segment, operation and group that it is about. */
function explained(segment: Graph, cause: unknown, what: string): Error {
  const { message } = cause as Error;
  const node = originOf(segment, message);
  const dtypes = node && [...node.inputs, ...node.outputs].map((value) => segment.types[value]?.dtype);
  const where = node
    ? `: ${node.op.kind} on ${[...new Set(dtypes)].join(", ")} in group "${node.group}"`
    : "";
  const unsupported =
    message.includes("NOT_IMPLEMENTED") || message.includes("Could not find an implementation");
  const text = `${describeSegment(segment)} ${what}${where}: ${message}`;
  return unsupported ? new UserError(text) : new Error(text, { cause });
}
