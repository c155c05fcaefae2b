/** What a training run tells while it goes on; the lines of metrics.jsonl and of `--json` are these objects. */

import type { LayoutStage } from "../../layout/layout.ts";
import type { DevicePair } from "../../trace/pairs.ts";

export interface StartEvent {
  readonly kind: "start";
  readonly job: string;
  /** Absent where the run leaves no files. */
  readonly runFolder?: string;
  readonly seed: number;
  readonly engine: string;
  readonly devices: readonly { readonly name: string; readonly threads: number }[];
  /** Groups by stage, with its devices, replica by replica, and the mesh that they form. */
  readonly stages: readonly LayoutStage[];
  /** Why this layout, where it was chosen; one sentence each. */
  readonly reasons: readonly string[];
  /** In the order in which they compute. */
  readonly groups: readonly string[];
  /** Number of trained values. */
  readonly parameters: number;
  readonly loss: string;
  readonly optimizer: string;
  readonly data: { readonly [label: string]: string | number };
  /** What `tokens` counts in the events of this run. */
  readonly unit: "tokens" | "samples";
  /** Steps that the run will do if nothing stops it. */
  readonly steps: number;
  readonly stepsPerEpoch: number;
  /** Whether validation follows each epoch and the end. */
  readonly validation: boolean;
  readonly unigramPerplexity?: number;
}

export interface StepEvent {
  readonly kind: "step";
  /** Counted from 1. */
  readonly step: number;
  /** Counted from 1. */
  readonly epoch: number;
  readonly loss: number;
  /** exp(loss), for cross-entropy. */
  readonly perplexity?: number;
  /** Global norm of the gradient before clipping. */
  readonly gradientNorm: number;
  readonly rate: number;
  readonly targets: number;
  /** Tokens of the batch, or its samples where the data are no text; without padding. */
  readonly tokens: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

export interface EvaluationEvent {
  readonly kind: "evaluation";
  readonly step: number;
  readonly epoch: number;
  /** Mean over all targets of the validation data, without dropout. */
  readonly loss: number;
  readonly perplexity?: number;
  /** Means of the job's metrics over the same targets, by name; absent where the job has none. */
  readonly metrics?: { readonly [name: string]: number };
  readonly targets: number;
  readonly seconds: number;
}

/** What was measured under one layout; shares and times are those of the last steps. */
export interface PhaseSummary {
  readonly name: string;
  readonly steps: number;
  readonly tokensPerSecond: number;
  /** Median. */
  readonly stepSeconds: number;
  /** Average number of devices that compute at once. */
  readonly concurrency: number;
  readonly devices: readonly {
    readonly name: string;
    readonly busy: number;
    readonly wait: number;
    readonly communication: number;
    readonly peakBytes: number;
  }[];
  /** What every two devices did at the same time, by their names. */
  readonly pairs: readonly (Omit<DevicePair, "devices"> & { readonly devices: readonly [string, string] })[];
  /** The same in plain words. */
  readonly sentences: readonly string[];
}

/** How a run ended and what it left. */
export interface TrainSummary {
  readonly reason: "finished" | "stopped";
  readonly steps: number;
  readonly epochs: number;
  /** Mean over the targets of the last steps; absent where there was none. */
  readonly training?: LossSummary & { readonly lastSteps: number };
  readonly validation?: LossSummary & Pick<EvaluationEvent, "metrics">;
  /** Perplexity on the same validation data of always predicting by frequency. */
  readonly unigramPerplexity?: number;
  readonly tokens: number;
  /** Time of the steps alone. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly runFolder?: string;
  /** Path of the trained parameters. */
  readonly parameters?: string;
  /** One entry for each layout that was used, in turn. */
  readonly phases: readonly PhaseSummary[];
  /** Path of the trace of the last steps, for Perfetto. */
  readonly trace?: string;
}

export interface LossSummary {
  readonly loss: number;
  readonly perplexity?: number;
}

export interface EndEvent extends TrainSummary {
  readonly kind: "end";
}

export type TrainEvent = StartEvent | StepEvent | EvaluationEvent | EndEvent;

/** Called in the course of the run; the run waits for nothing that it starts. */
export type TrainListener = (event: TrainEvent) => void;
