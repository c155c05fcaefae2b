/** Progress of a run on stderr: one moving line on a terminal, a line every few seconds elsewhere. */

import { SingleBar } from "cli-progress";
import type { EvaluationEvent, StartEvent, StepEvent, TrainEvent } from "../train/events.ts";
import { formatCount, formatDuration, formatMetrics, formatValue } from "./format.ts";

/** Where progress goes: a terminal, a pipe, or what a test collects. */
export type ProgressStream = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };

export interface Progress extends Disposable {
  show(event: TrainEvent): void;
  /** A remark in between, on a line of its own. */
  note(text: string): void;
}

/** Progress for this stream; `now` is a clock in seconds. */
export function openProgress(stream: ProgressStream, now: () => number = clock): Progress {
  return stream.isTTY === true ? new Bar(stream, now) : new Lines(stream, now);
}

/** Nothing at all, for `--quiet`. */
export function silentProgress(): Progress {
  return { show: () => undefined, note: () => undefined, [Symbol.dispose]: () => undefined };
}

function clock(): number {
  return performance.now() / 1000;
}

/** Seconds between two lines of the same sort. */
const lineEvery = 5;

/** Smoothed numbers of a run under way. */
class Meter {
  readonly #now: () => number;
  readonly start: StartEvent;
  readonly #began: number;
  #loss: number | undefined;
  #tokens = 0;
  #seconds = 0;
  #evaluated = Number.NEGATIVE_INFINITY;

  constructor(start: StartEvent, now: () => number) {
    this.start = start;
    this.#now = now;
    this.#began = now();
  }

  add({ loss, tokens, seconds }: StepEvent): void {
    this.#loss = this.#loss === undefined ? loss : 0.95 * this.#loss + 0.05 * loss;
    this.#tokens = 0.95 * this.#tokens + tokens;
    this.#seconds = 0.95 * this.#seconds + seconds;
  }

  /** `loss 5.71 | perplexity 301.9 | 2,300 tokens/s | 1:05 left`. */
  describe({ step, perplexity }: StepEvent): string {
    const loss = this.#loss ?? Number.NaN;
    const left = ((this.#now() - this.#began) / step) * (this.start.steps - step);
    return [
      `loss ${formatValue(loss)}`,
      ...(perplexity === undefined ? [] : [`perplexity ${formatValue(Math.exp(loss))}`]),
      `${formatCount(this.#tokens / this.#seconds)} ${this.start.unit}/s`,
      this.isValidating(step) ? "validating" : `${formatDuration(left)} left`,
    ].join(" | ");
  }

  /** One line about an evaluation, or nothing where the last one was told a moment ago. */
  evaluation(event: EvaluationEvent): string | undefined {
    if (this.#now() - this.#evaluated < lineEvery && event.step < this.start.steps) return undefined;
    this.#evaluated = this.#now();
    return describeEvaluation(event, this.start);
  }

  /** Whether validation follows this step. */
  isValidating(step: number): boolean {
    const { validation, steps, stepsPerEpoch } = this.start;
    return validation && (step === steps || step % stepsPerEpoch === 0);
  }
}

function describeEvaluation(event: EvaluationEvent, start: StartEvent): string {
  const { step, epoch, loss, perplexity, metrics } = event;
  const beside =
    perplexity === undefined || start.unigramPerplexity === undefined
      ? ""
      : ` (unigram baseline ${formatValue(start.unigramPerplexity)})`;
  const shown = perplexity === undefined ? "" : `, perplexity ${formatValue(perplexity)}${beside}`;
  return `validation after step ${formatCount(step)}, epoch ${epoch}: loss ${formatValue(loss)}${shown}${formatMetrics(metrics)}`;
}

class Bar implements Progress {
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  readonly #bar: SingleBar;
  #meter: Meter | undefined;

  constructor(stream: ProgressStream, now: () => number) {
    this.#stream = stream;
    this.#now = now;
    this.#bar = new SingleBar({
      stream,
      format: "{bar} {percentage} % | step {value}/{total} | {text}",
      barCompleteChar: "█",
      barIncompleteChar: "░",
      barsize: 20,
      hideCursor: true,
      clearOnComplete: false,
      fps: 8,
    });
  }

  show(event: TrainEvent): void {
    switch (event.kind) {
      case "start":
        this.#meter = new Meter(event, this.#now);
        this.#bar.start(event.steps, 0, { text: "" });
        break;
      case "step":
        this.#meter?.add(event);
        this.#bar.update(event.step, { text: this.#meter?.describe(event) ?? "" });
        break;
      case "evaluation":
        if (this.#meter !== undefined && event.step < this.#meter.start.steps) {
          this.#tell(this.#meter.evaluation(event));
        }
        break;
      case "end":
        this[Symbol.dispose]();
        break;
      default:
        event satisfies never;
    }
  }

  /** Writes over the bar's line; the bar appears again below. */
  note(text: string): void {
    this.#stream.write(`\r\u001b[K${text}\n`);
    this.#bar.render();
  }

  #tell(text: string | undefined): void {
    if (text !== undefined) this.note(text);
  }

  [Symbol.dispose](): void {
    this.#bar.stop();
  }
}

class Lines implements Progress {
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  #meter: Meter | undefined;
  #shown = Number.NEGATIVE_INFINITY;

  constructor(stream: ProgressStream, now: () => number) {
    this.#stream = stream;
    this.#now = now;
  }

  show(event: TrainEvent): void {
    switch (event.kind) {
      case "start":
        this.#meter = new Meter(event, this.#now);
        break;
      case "step":
        this.#meter?.add(event);
        this.#showStep(event);
        break;
      case "evaluation":
        this.#tell(this.#meter?.evaluation(event));
        break;
      case "end":
        break;
      default:
        event satisfies never;
    }
  }

  note(text: string): void {
    this.#stream.write(`${text}\n`);
  }

  #tell(text: string | undefined): void {
    if (text !== undefined) this.note(text);
  }

  [Symbol.dispose](): void {
    this.#meter = undefined;
  }

  #showStep(event: StepEvent): void {
    const meter = this.#meter;
    if (meter === undefined) return;
    const isLast = event.step === meter.start.steps;
    if (this.#now() - this.#shown < lineEvery && !isLast) return;
    this.#shown = this.#now();
    const total = formatCount(meter.start.steps);
    this.note(`step ${formatCount(event.step)}/${total} | ${meter.describe(event)}`);
  }
}
