/** Measures a phase of a run: the steps that were done under one layout. */

import { availableParallelism } from "node:os";
import { type StepTracer, stepTracer } from "../../execute/step-trace.ts";
import type { StepResult } from "../../execute/trainer.ts";
import type { Layout } from "../../layout/layout.ts";
import type { CompiledStep } from "../../partition/compile.ts";
import { describeStatistics, isTakingTurns } from "../../trace/describe.ts";
import { describePairs } from "../../trace/describe-pairs.ts";
import { classifyPairs } from "../../trace/pairs.ts";
import { traceStatistics } from "../../trace/statistics.ts";
import type { Trace } from "../../trace/trace.ts";
import type { PhaseSummary } from "./events.ts";

/** Steps of which a phase keeps the trace: the last ones, when everything has warmed up. */
const tracedSteps = 20;

export class PhaseRecorder {
  readonly name: string;
  readonly #layout: Layout;
  readonly #compiled: ReadonlyMap<string, CompiledStep>;
  /** By the key of the programs that a step ran. */
  readonly #tracers = new Map<string, StepTracer>();
  readonly #last: { readonly result: StepResult; readonly step: number }[] = [];
  #steps = 0;
  #tokens = 0;
  #seconds = 0;

  constructor(name: string, layout: Layout, compiled: ReadonlyMap<string, CompiledStep>) {
    this.name = name;
    this.#layout = layout;
    this.#compiled = compiled;
  }

  add(result: StepResult, step: number, tokens: number, seconds: number): void {
    this.#steps++;
    this.#tokens += tokens;
    this.#seconds += seconds;
    this.#last.push({ result, step });
    if (this.#last.length > tracedSteps) this.#last.shift();
  }

  /** The trace of the last steps. */
  trace(): Trace {
    const parts = this.#last.map(({ result, step }) => this.#tracerOf(result.program)(result.times, step));
    return {
      origin: "measured",
      devices: this.#layout.devices.map(({ name }) => name),
      events: parts.flatMap(({ events }) => events),
      memory: parts.flatMap(({ memory }) => memory),
    };
  }

  /** What `trace`, the trace of this phase, amounts to. */
  summary(trace: Trace): PhaseSummary {
    const statistics = traceStatistics(trace);
    const { whole } = statistics;
    const pairs = classifyPairs(trace);
    const names = trace.devices;
    return {
      name: this.name,
      steps: this.#steps,
      tokensPerSecond: this.#seconds === 0 ? 0 : this.#tokens / this.#seconds,
      stepSeconds: statistics.stepTime,
      concurrency: whole.concurrency,
      devices: whole.devices.map(({ name, busy, wait, communication, peakBytes }) => ({
        name,
        busy,
        wait,
        communication,
        peakBytes,
      })),
      pairs: pairs.map(({ devices: [first, second], ...pair }) => ({
        devices: [names[first] ?? "", names[second] ?? ""],
        ...pair,
      })),
      sentences:
        this.#steps === 0
          ? []
          : [
              ...describeStatistics(statistics, availableParallelism()),
              ...(isTakingTurns(whole) ? [] : describePairs(names, pairs)),
            ],
    };
  }

  #tracerOf(key: string): StepTracer {
    const tracer = this.#tracers.get(key) ?? stepTracer(this.#compiled.get(key)?.programs ?? []);
    this.#tracers.set(key, tracer);
    return tracer;
  }
}
