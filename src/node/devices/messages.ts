/** What the coordinator and the worker thread of a device say to each other. */

import type { StepOutput } from "../../execute/device.ts";
import type { StepInput } from "../../execute/feed.ts";
import type { HeldTensor } from "../../execute/held-tensors.ts";
import type { TypedArray } from "../../graph/dtype.ts";
import type { Program } from "../../program/program.ts";
import type { ThreadWorld } from "../transport/threads.ts";

/** The computing engine of a device, by name. */
export type EngineName = "onnxruntime" | "reference";

/** A failure made on purpose, before an instruction of a program: for tests of what happens then. */
export interface Fault {
  readonly device: number;
  readonly program: string;
  readonly instruction: number;
  /** An error is thrown, the thread leaves, the thread is killed by an uncaught error, or it never answers again. */
  readonly kind: "throw" | "exit" | "die" | "hang";
}

/** `workerData` of a device's thread. */
export interface DeviceSetup {
  readonly device: number;
  readonly engine: EngineName;
  readonly threads: number;
  /** Nanoseconds of the clock that all devices count from. */
  readonly epoch: bigint;
  /**
   * Two words for each device: index of the program it runs (-1: none so far), index of its instruction; one beyond the last when
   * it has ended.
   */
  readonly progress: Int32Array;
  readonly fault?: Fault;
}

export type Request =
  | { readonly kind: "load"; readonly programs: ReadonlyMap<string, Program>; readonly world: ThreadWorld }
  | { readonly kind: "run"; readonly program: string; readonly input: StepInput }
  | { readonly kind: "write"; readonly tensors: ReadonlyMap<string, TypedArray> }
  | { readonly kind: "read" };

export type Answer =
  | { readonly kind: "done" }
  | { readonly kind: "ran"; readonly output: StepOutput }
  | { readonly kind: "tensors"; readonly tensors: ReadonlyMap<string, HeldTensor> }
  | {
      readonly kind: "failed";
      readonly message: string;
      /** It only passes on that another device ended the run. */
      readonly isEcho: boolean;
      readonly isUserError: boolean;
    };
