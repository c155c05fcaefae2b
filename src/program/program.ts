/**
 * The program of one device for one step: the narrow waist of Paraxis. The partitioner writes it; simulator, reference executor and
 * ONNX Runtime executor read it, and nothing at run time looks back at the layout.
 *
 *     feed            data and scalars of the step arrive in `data` and `scalar` buffers before the first instruction
 *     run             one kernel over buffers
 *     send            a copy of a buffer leaves for another device; the buffer may be reused after the instruction that frees it
 *     receive         the next message of the channel (from, tag) arrives in a buffer
 *     all-reduce      x₀ | x₁           ->  x₀+x₁ | x₀+x₁              the devices of a group meet: each brings a buffer, and none
 *     all-gather      x₀ | x₁           ->  [x₀ x₁] | [x₀ x₁]          goes on before all have come
 *     reduce-scatter  [a₀ b₀] | [a₁ b₁] ->  a₀+a₁ | b₀+b₁
 *     free            the buffer's contents are not needed any more
 *     guard           the program ends here if a scalar is not finite
 *     results         `result` buffers are read after the last instruction
 */

import type { Graph, Phase } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import type { Block } from "../shard/block.ts";

/**
 * What a buffer holds. `parameter`, `optimizer` and `statistic` last from step to step and are shared by name among the programs of a
 * device; `gradient` and `result` are written by every step; `data` and `scalar` are fed; `constant` never changes; `activation` lives
 * from its first write to its `free`.
 */
export type BufferKind =
  | "parameter"
  | "optimizer"
  | "statistic"
  | "gradient"
  | "result"
  | "data"
  | "scalar"
  | "constant"
  | "activation";

export interface BufferSpec {
  /** Unique in the program; the same name in two programs of a device is the same tensor where it lasts. */
  readonly name: string;
  readonly type: TensorType;
  readonly kind: BufferKind;
  /** Every element of a `constant`. */
  readonly value?: number;
  /** The buffer is rows of another one, starting at row `row` of dim 0: items whose weight gradients are computed as one product. */
  readonly view?: { readonly of: number; readonly row: number };
  /** The part of the whole tensor that this device has, where layers are split over devices. */
  readonly block?: Block;
}

/** The part of the mini-batch an instruction works on; absent for U and for work over several items. */
export interface ItemId {
  readonly microBatch: number;
  readonly chunk: number;
}

export interface Run {
  readonly kind: "run";
  readonly kernel: number;
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  readonly phase: Phase;
  readonly stage: number;
  /** Position in the mesh of devices that hold the stage together in one replica; default 0. */
  readonly rank?: number;
  readonly group: string;
  readonly item?: ItemId;
}

export interface Send {
  readonly kind: "send";
  readonly buffer: number;
  readonly to: number;
  readonly tag: number;
  readonly item?: ItemId;
}

export interface Receive {
  readonly kind: "receive";
  readonly buffer: number;
  readonly from: number;
  readonly tag: number;
  readonly item?: ItemId;
}

/** What every meeting of a group says. All members come to the same meetings in the same order. */
interface Meeting {
  /** Names the group; the same devices in the same order have the same number in all programs of a run. */
  readonly group: number;
  /** The devices of the group, this one among them. */
  readonly ranks: readonly number[];
  /** Absent where it belongs to no phase: sums over all items before U. */
  readonly phase?: Phase;
  readonly item?: ItemId;
}

/** Replaces the buffer, on all devices of a group, by the sum or maximum of what they hold, taken in the order of `ranks`. */
export interface AllReduce extends Meeting {
  readonly kind: "all-reduce";
  readonly buffer: number;
  readonly reduce: "sum" | "max";
}

/** `into` becomes the parts of all devices of a group one after another, in the order of `ranks`, as flat elements. */
export interface AllGather extends Meeting {
  readonly kind: "all-gather";
  /** This device's part. */
  readonly buffer: number;
  readonly into: number;
  /** Elements of each device's part, in the order of `ranks`; may be 0. */
  readonly sizes: readonly number[];
}

/** `into` becomes this device's part of the elementwise sum of all `buffer`s, cut as flat elements in the order of `ranks`. */
export interface ReduceScatter extends Meeting {
  readonly kind: "reduce-scatter";
  readonly buffer: number;
  /** This device's part. */
  readonly into: number;
  /** Elements of each device's part, in the order of `ranks`; may be 0. */
  readonly sizes: readonly number[];
}

/** A meeting of the devices of a group. */
export type Collective = AllReduce | AllGather | ReduceScatter;

export interface Free {
  readonly kind: "free";
  readonly buffer: number;
}

/** Ends the program here, without an error, when the scalar in `buffer` is not finite: a broken step must not change parameters. */
export interface Guard {
  readonly kind: "guard";
  readonly buffer: number;
}

export type Instruction = Run | Send | Receive | Collective | Free | Guard;

/** A block of a data input of the whole mini-batch, beginning at `start` (one index for each dim) and as large as `buffer`. */
export interface Feed {
  readonly buffer: number;
  readonly input: string;
  readonly start: readonly number[];
}

export interface Program {
  /** Index of the device. */
  readonly device: number;
  /** Which copy of the pipeline it belongs to, where there are several for different samples; default 0. */
  readonly replica?: number;
  readonly kernels: readonly Graph[];
  readonly buffers: readonly BufferSpec[];
  readonly instructions: readonly Instruction[];
  readonly feeds: readonly Feed[];
}

/** Whether a buffer's contents outlast the step. */
export function isPersistent(kind: BufferKind): boolean {
  return kind === "parameter" || kind === "optimizer" || kind === "statistic";
}

export function isCollective(instruction: Instruction): instruction is Collective {
  const { kind } = instruction;
  return kind === "all-reduce" || kind === "all-gather" || kind === "reduce-scatter";
}

/** Buffers that an instruction reads. */
export function readsOf(instruction: Instruction): readonly number[] {
  switch (instruction.kind) {
    case "run":
      return instruction.inputs;
    case "send":
    case "all-reduce":
    case "all-gather":
    case "reduce-scatter":
    case "guard":
      return [instruction.buffer];
    case "receive":
    case "free":
      return [];
    default:
      return instruction satisfies never;
  }
}

/** Buffers that an instruction writes. */
export function writesOf(instruction: Instruction): readonly number[] {
  switch (instruction.kind) {
    case "run":
      return instruction.outputs;
    case "receive":
    case "all-reduce":
      return [instruction.buffer];
    case "all-gather":
    case "reduce-scatter":
      return [instruction.into];
    case "send":
    case "free":
    case "guard":
      return [];
    default:
      return instruction satisfies never;
  }
}
