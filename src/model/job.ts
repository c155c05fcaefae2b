/** A training job: what the user writes. */

import type { DataSet } from "../data/dataset.ts";
import type { Initializer } from "./initializer.ts";
import type { Model } from "./layer.ts";
import type { Loss } from "./loss.ts";
import type { Metric } from "./metric.ts";
import type { Optimizer } from "./optimizer.ts";

export interface Job {
  readonly model: Model;
  readonly loss: Loss;
  /** What validation tells beside the loss, by name, such as `{ accuracy }`; default nothing. */
  readonly metrics?: { readonly [name: string]: Metric };
  readonly optimizer: Optimizer;
  readonly data: DataSet | Promise<DataSet>;
  /** Name of the run's folder; default: the job file's name. */
  readonly name?: string;
  /** Used for all weights (not biases, scales and shifts) instead of each layer's own initialiser. */
  readonly initializer?: Initializer;
  /** Values that are not saved from forward to backward but computed again: none, all, or those of the named groups; default none. */
  readonly recompute?: "none" | "full" | readonly string[];
  /** Devices of groups by hand, as MXNet's `group2ctx`: from group (or pattern with `*`) to device; default: placed automatically. */
  readonly place?: { readonly [pattern: string]: string };
  /** How long to train where the command line does not say; default one epoch. */
  readonly epochs?: number;
  readonly steps?: number;
  /** Seed of parameters, order of data and dropout; default 1. */
  readonly seed?: number;
}

/** Returns the job as it is; gives job files their types. */
export function defineJob(job: Job): Job {
  return job;
}
