/**
 * ONNX Runtime as an engine. A segment becomes an ONNX model in memory and a session; sessions are shared by structure; outputs
 * are written straight into the caller's memory.
 *
 *     prepare ── structureKey ──► session (made once) ── bind ──► tensors over the buffers ── run: no copies, no new tensors
 *
 * Large outputs are kept from being copied once more by the binding: see `refusal.ts`.
 */

import { InferenceSession, Tensor } from "onnxruntime-node";
import { UserError } from "../../base/errors.ts";
import {
  type BoundKernel,
  checkBuffers,
  copy,
  describeSegment,
  type Engine,
  type Kernel,
  overlap,
  type TensorBuffer,
} from "../../execute/engine.ts";
import { mayOverwrite } from "../../execute/in-place.ts";
import { cutTiles, tiledKernel } from "../../execute/tiles.ts";
import { allocate, type DType } from "../../graph/dtype.ts";
import type { Graph } from "../../graph/graph.ts";
import { bytesOfType, sizeOf, type TensorType } from "../../graph/shape.ts";
import { structureKey } from "../../graph/structure.ts";
import { fillHostMask } from "../../onnx/host-mask.ts";
import { type Feed, type LoweredGraph, lowerGraph, originOf } from "../../onnx/lower.ts";
import { probeRefusal, sentinelName } from "./refusal.ts";

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

interface Prepared {
  readonly lowered: LoweredGraph;
  readonly session: InferenceSession;
  /** Dropout masks, filled before each run. */
  readonly masks: readonly TensorBuffer[];
  /** Outputs that are computed into memory of the engine first, by index. */
  readonly own: Map<number, TensorBuffer>;
  /** The message with which every successful run ends, where the model has a sentinel. */
  readonly refusal?: string;
}

/** An engine on the CPU with its own sessions. Its kernels must run one at a time. */
export function onnxRuntimeEngine(options: OnnxRuntimeOptions = {}): OnnxRuntimeEngine {
  const prepared = new Map<string, Promise<Prepared>>();
  const probe = { refusal: undefined as Promise<string | undefined> | undefined };
  const create = async (segment: Graph): Promise<Prepared> => {
    probe.refusal ??= probeRefusal();
    return createSession(segment, options, await probe.refusal);
  };
  const prepareWhole = async (segment: Graph): Promise<Kernel> => {
    const key = structureKey(segment);
    const known = prepared.get(key) ?? create(segment);
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
    prepare: async (segment) => {
      const tiles = cutTiles(segment);
      if (tiles === undefined) return prepareWhole(segment);
      const kernels = await Promise.all(tiles.map(({ graph }) => prepareWhole(graph)));
      return tiledKernel(segment, tiles, kernels);
    },
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

function kernel(segment: Graph, prepared: Prepared): Kernel {
  return {
    bind: (inputs, outputs) => {
      checkBuffers(segment, inputs, outputs);
      return bound(segment, prepared, inputs, outputs);
    },
  };
}

async function createSession(
  segment: Graph,
  { threads = 1, profile }: OnnxRuntimeOptions,
  refusal: string | undefined,
): Promise<Prepared> {
  const sentinel = refusal !== undefined && outputBytes(segment) > sentinelFrom;
  const lowered = lowerGraph(segment, { threads, ...(sentinel ? { sentinel: sentinelName } : {}) });
  try {
    const session = await InferenceSession.create(lowered.model, {
      executionMode: "sequential",
      graphOptimizationLevel: "all",
      interOpNumThreads: 1,
      intraOpNumThreads: threads,
      extra: threads > 1 ? quietThreads : {},
      logSeverityLevel: 4,
      ...(profile === undefined ? {} : { enableProfiling: true, profileFilePrefix: profile }),
    });
    const masks = lowered.masks.map(({ type }) => bufferOf(type));
    return { lowered, session, masks, own: new Map(), ...(sentinel ? { refusal } : {}) };
  } catch (cause) {
    throw explained(segment, cause, "cannot be prepared by ONNX Runtime");
  }
}

async function release(session: InferenceSession, { profile }: OnnxRuntimeOptions): Promise<void> {
  if (profile !== undefined) session.endProfiling();
  await session.release();
}

/**
 * Every session has threads of its own, which by default spin for a while after each run. With the dozens of sessions of a model they
 * take the processors from each other and from other devices; so they sleep when they have nothing to do.
 */
const quietThreads = { session: { force_spinning_stop: "1" } };

/** Below this many bytes of outputs the binding's copy is cheaper than its exception (10 us). */
const sentinelFrom = 65_536;

function outputBytes(segment: Graph): number {
  return segment.outputs.reduce((sum, { value }) => sum + bytesOfType(segment.types[value] as TensorType), 0);
}

function bound(
  segment: Graph,
  prepared: Prepared,
  inputs: readonly TensorBuffer[],
  outputs: readonly TensorBuffer[],
): BoundKernel {
  const { lowered, session, masks, refusal } = prepared;
  const copies: { readonly from: TensorBuffer; readonly to: TensorBuffer }[] = [];
  const targets = outputs.map((buffer, output) => {
    if (isSafe(segment, output, buffer, inputs)) return buffer;
    const from = ownMemory(prepared, output, buffer.type);
    copies.push({ from, to: buffer });
    return from;
  });
  const feeds = Object.fromEntries([
    ...lowered.feeds.map((feed) => [feed.name, tensorOf(rowsOf(inputs[feed.input] as TensorBuffer, feed))]),
    ...lowered.masks.map(({ name }, i) => [name, tensorOf(masks[i] as TensorBuffer)]),
  ]);
  const fetches: Record<string, Tensor | null> = Object.fromEntries(
    lowered.outputs.map((name, i) => [name, tensorOf(targets[i] as TensorBuffer)]),
  );
  if (refusal !== undefined) fetches[sentinelName] = null;
  const scalar = (input: number) => Number(inputs[input]?.data[0]);
  const run = async (): Promise<void> => {
    lowered.masks.forEach((mask, i) => {
      fillHostMask(segment, mask, scalar, (masks[i] as TensorBuffer).data);
    });
    try {
      await session.run(feeds, fetches);
    } catch (error) {
      if (refusal === undefined || (error as Error).message !== refusal)
        throw explained(segment, error, "failed");
    }
    for (const { from, to } of copies) copy(from.data, to.data);
  };
  return { run };
}

/** Memory for an output that must not be written in place; all bound kernels of a session share it, as they run in turn. */
function ownMemory({ own }: Prepared, output: number, type: TensorType): TensorBuffer {
  const buffer = own.get(output) ?? bufferOf(type);
  own.set(output, buffer);
  return buffer;
}

function bufferOf(type: TensorType): TensorBuffer {
  return { type, data: allocate(type.dtype, sizeOf(type.shape)) };
}

/** The part of a buffer that a feed names. */
function rowsOf(buffer: TensorBuffer, { rows }: Feed): TensorBuffer {
  if (rows === undefined) return buffer;
  const { dtype, shape } = buffer.type;
  const width = sizeOf(shape.slice(1));
  return {
    type: { dtype, shape: shape.with(0, rows[1] - rows[0]) },
    data: buffer.data.subarray(rows[0] * width, rows[1] * width),
  };
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
