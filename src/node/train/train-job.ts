/**
 * A training run from a job to trained parameters: what `paraxis train` does, as a function.
 *
 *     job ── check, plan ──► layout, devices ── steps, validation ──► metrics ── save ──► model.safetensors
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { Batch } from "../../data/dataset.ts";
import { NonFiniteError } from "../../execute/non-finite.ts";
import type { Trainer } from "../../execute/trainer.ts";
import type { Job } from "../../model/job.ts";
import type { Trace } from "../../trace/trace.ts";
import { awaitData, checkJob } from "./check-job.ts";
import type {
  EvaluationEvent,
  LossSummary,
  PhaseSummary,
  StartEvent,
  StepEvent,
  TrainListener,
  TrainSummary,
} from "./events.ts";
import { PhaseRecorder } from "./phase-recorder.ts";
import { planRun, type RunPhase, type RunPlan, type TrainOptions } from "./plan-run.ts";
import { RunDevices } from "./run-devices.ts";
import { RunRecord } from "./run-record.ts";

/** A run that ended early, with what it left behind. */
export class TrainError extends Error {
  override readonly name: string = "TrainError";
  /** Steps that were done. */
  readonly steps: number;
  readonly runFolder: string | undefined;
  /** Path of the last good parameters, where they were saved. */
  readonly parameters: string | undefined;

  constructor(
    cause: Error,
    at: {
      readonly steps: number;
      readonly runFolder: string | undefined;
      readonly parameters: string | undefined;
    },
  ) {
    super(cause.message, { cause });
    this.steps = at.steps;
    this.runFolder = at.runFolder;
    this.parameters = at.parameters;
  }
}

/**
 * Trains and returns how it went. Throws a UserError before anything is written where the job or the options are not valid, and a
 * TrainError for everything that goes wrong later: metrics are then on disk, and the parameters too if the loss was not finite.
 */
export async function trainJob(
  given: Job,
  options: TrainOptions = {},
  listener: TrainListener = () => undefined,
): Promise<TrainSummary> {
  const job = checkJob(given);
  const plan = planRun(job, await awaitData(job.data), options);
  await using record = options.runs === false ? undefined : await openRecord(plan, options);
  await using devices = await RunDevices.open(plan, plan.phases[0] as RunPhase);
  const start = startEvent(job, plan, devices.trainer, record);
  await record?.start(start);
  listener(start);
  return await new Session({ plan, devices, record, start, listener, signal: options.signal }).run();
}

function openRecord(plan: RunPlan, { runs, jobFile, command }: TrainOptions): Promise<RunRecord> {
  const { name, seed, layout } = plan;
  return RunRecord.create(
    {
      root: runs === undefined || runs === false ? "runs" : runs,
      name,
      seed,
      ...(jobFile !== undefined && { jobFile }),
      ...(command && { command }),
    },
    layout,
  );
}

function startEvent(job: Job, plan: RunPlan, trainer: Trainer, record: RunRecord | undefined): StartEvent {
  const { data } = plan;
  return {
    kind: "start",
    job: plan.name,
    ...(record && { runFolder: record.path }),
    seed: plan.seed,
    engine: plan.engine,
    devices: plan.layout.devices,
    stages: plan.layout.stages,
    reasons: plan.reasons,
    groups: plan.groups,
    parameters: trainer.parameterCount,
    loss: typeof job.loss === "string" ? job.loss : "a function of the job",
    optimizer: job.optimizer.kind,
    data: data.description,
    unit: data.vocabulary === undefined ? "samples" : "tokens",
    steps: plan.steps,
    stepsPerEpoch: data.batchesPerEpoch,
    validation: plan.validates,
    ...(data.unigramPerplexity !== undefined && { unigramPerplexity: data.unigramPerplexity }),
  };
}

/** Steps over which the training loss of the summary is averaged. */
const lastSteps = 50;

interface SessionParts {
  readonly plan: RunPlan;
  readonly devices: RunDevices;
  readonly record: RunRecord | undefined;
  readonly start: StartEvent;
  readonly listener: TrainListener;
  readonly signal: AbortSignal | undefined;
}

class Session {
  readonly #parts: SessionParts;
  readonly #last: StepEvent[] = [];
  readonly #phases: PhaseRecorder[] = [];
  #tokens = 0;
  #seconds = 0;
  #validation: EvaluationEvent | undefined;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#phases.push(this.#recorder(parts.plan.phases[0] as RunPhase));
  }

  async run(): Promise<TrainSummary> {
    try {
      await this.#train();
      const parameters = await this.#parts.record?.saveModel(this.#trainer);
      const traces = this.#phases.map((phase) => phase.trace());
      const trace = await this.#parts.record?.saveTrace(
        this.#phases.map(({ name }, i) => ({ name, trace: traces[i] as Trace })),
      );
      const phases = this.#phases.map((phase, i) => phase.summary(traces[i] as Trace));
      const summary = this.#summary(parameters, trace, phases);
      await this.#parts.record?.end(this.#parts.start, summary);
      this.#parts.listener({ kind: "end", ...summary });
      return summary;
    } catch (cause) {
      throw await this.#failure(cause instanceof Error ? cause : new Error(String(cause)));
    }
  }

  /** All epochs; a new one only begins where steps are left. */
  async #train(): Promise<void> {
    const { data, seed, steps } = this.#parts.plan;
    for (let epoch = 1; this.#trainer.steps < steps && !this.#isStopped; epoch++) {
      for await (const batch of data.training(seed, epoch - 1)) {
        // Signals and timers are only served between turns of the event loop.
        await nextTurn();
        if (this.#isStopped || this.#trainer.steps >= steps) break;
        await this.#enterPhase();
        await this.#step(batch, epoch);
      }
      if (this.#parts.plan.validates && !this.#isStopped) await this.#evaluate(epoch);
    }
  }

  /** Goes on under the next layout where the phase is over. */
  async #enterPhase(): Promise<void> {
    const { plan, devices } = this.#parts;
    const phase = plan.phases.find(({ until }) => this.#trainer.steps < until);
    if (phase === undefined || phase === plan.phases[this.#phases.length - 1]) return;
    await devices.change(phase);
    this.#phases.push(this.#recorder(phase));
  }

  #recorder({ name, layout }: RunPhase): PhaseRecorder {
    return new PhaseRecorder(name, layout, this.#trainer.compiled);
  }

  get #trainer(): Trainer {
    return this.#parts.devices.trainer;
  }

  async #step(batch: Batch, epoch: number): Promise<void> {
    const before = performance.now();
    const result = await this.#trainer.step(batch);
    const { loss, gradientNorm, rate, targets } = result;
    const seconds = (performance.now() - before) / 1000;
    const tokens = batch.tokens ?? batch.samples;
    this.#phases.at(-1)?.add(result, this.#trainer.steps, tokens, seconds);
    const event: StepEvent = {
      kind: "step",
      step: this.#trainer.steps,
      epoch,
      ...this.#lossSummary(loss),
      gradientNorm,
      rate,
      targets,
      tokens,
      seconds,
      tokensPerSecond: tokens / seconds,
    };
    this.#tokens += tokens;
    this.#seconds += seconds;
    this.#last.push(event);
    if (this.#last.length > lastSteps) this.#last.shift();
    this.#parts.record?.metrics(event);
    this.#parts.listener(event);
  }

  async #evaluate(epoch: number): Promise<void> {
    const before = performance.now();
    const { loss, targets } = await this.#trainer.evaluate(
      this.#untilStopped(this.#parts.plan.data.validation()),
    );
    const metrics = await this.#metrics();
    if (this.#isStopped || targets === 0) return;
    const event: EvaluationEvent = {
      kind: "evaluation",
      step: this.#trainer.steps,
      epoch,
      ...this.#lossSummary(loss),
      ...(metrics && { metrics }),
      targets,
      seconds: (performance.now() - before) / 1000,
    };
    this.#validation = event;
    this.#parts.record?.metrics(event);
    this.#parts.listener(event);
  }

  async #metrics(): Promise<EvaluationEvent["metrics"]> {
    const { plan, devices } = this.#parts;
    if (Object.keys(plan.metrics).length === 0) return undefined;
    return await devices.metrics.evaluate(this.#untilStopped(plan.data.validation()));
  }

  async *#untilStopped(batches: AsyncIterable<Batch>): AsyncGenerator<Batch> {
    for await (const batch of batches) {
      await nextTurn();
      if (this.#isStopped) return;
      yield batch;
    }
  }

  get #isStopped(): boolean {
    return this.#parts.signal?.aborted === true;
  }

  #lossSummary(loss: number): LossSummary {
    return this.#parts.plan.source.loss === "cross-entropy" ? { loss, perplexity: Math.exp(loss) } : { loss };
  }

  #summary(
    parameters: string | undefined,
    trace: string | undefined,
    phases: readonly PhaseSummary[],
  ): TrainSummary {
    const [tokens, seconds, validation] = [this.#tokens, this.#seconds, this.#validation];
    const { unigramPerplexity } = this.#parts.plan.data;
    return {
      reason: this.#isStopped ? "stopped" : "finished",
      steps: this.#trainer.steps,
      epochs: this.#trainer.steps / this.#parts.plan.data.batchesPerEpoch,
      ...this.#trainingSummary(),
      ...(validation && {
        validation: {
          ...this.#lossSummary(validation.loss),
          ...(validation.metrics && { metrics: validation.metrics }),
        },
      }),
      ...(unigramPerplexity !== undefined && { unigramPerplexity }),
      tokens,
      seconds,
      tokensPerSecond: seconds === 0 ? 0 : tokens / seconds,
      ...(this.#parts.record && { runFolder: this.#parts.record.path }),
      ...(parameters !== undefined && { parameters }),
      phases,
      ...(trace !== undefined && { trace }),
    };
  }

  #trainingSummary(): Pick<TrainSummary, "training"> {
    const targets = this.#last.reduce((sum, step) => sum + step.targets, 0);
    if (targets === 0) return {};
    const loss = this.#last.reduce((sum, step) => sum + step.loss * step.targets, 0) / targets;
    return { training: { ...this.#lossSummary(loss), lastSteps: this.#last.length } };
  }

  /** The error to throw; the parameters are saved where they are known to be good. */
  async #failure(cause: Error): Promise<TrainError> {
    const { record, start } = this.#parts;
    const trainer = this.#trainer;
    let parameters: string | undefined;
    try {
      if (cause instanceof NonFiniteError) parameters = await record?.saveModel(trainer);
      await record?.fail(start, cause.message);
    } catch {
      // What went wrong first is what has to be told.
    }
    return new TrainError(cause, { steps: trainer.steps, runFolder: record?.path, parameters });
  }
}
