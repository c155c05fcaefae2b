/** All devices of a run, as the trainer sees them: in this thread, in worker threads, or elsewhere. */

import type { TypedArray } from "../graph/dtype.ts";
import type { Program } from "../program/program.ts";
import type { StepOutput } from "./device.ts";
import type { StepInput } from "./feed.ts";
import type { HeldTensor } from "./held-tensors.ts";

export interface Cluster extends AsyncDisposable {
  /** Loads the programs of every device, by device and key; once, before anything else. */
  load(programs: readonly ReadonlyMap<string, Program>[]): Promise<void>;
  /** Runs the program of this key on every device. The first failure ends the run on all of them and is thrown. */
  run(program: string, input: StepInput): Promise<readonly StepOutput[]>;
  /** Overwrites the lasting tensors that the devices hold; each device takes those it has. */
  write(tensors: ReadonlyMap<string, TypedArray>): Promise<void>;
  /** Copies of all lasting tensors, by device. */
  read(): Promise<readonly ReadonlyMap<string, HeldTensor>[]>;
}
