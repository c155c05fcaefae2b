/**
 * Drives the devices through training: compiles a program set for every batch shape, sets the parameters, feeds batches, collects loss
 * and norm. The same for one device and for many; the devices do all computing.
 */

import { stateNames } from "../autodiff/training-step.ts";
import { invariant, UserError } from "../base/errors.ts";
import { deriveKey } from "../base/random.ts";
import { type Batch, type BatchShape, type DataSet, shapeKey, type TensorData } from "../data/dataset.ts";
import { allocate, type TypedArray } from "../graph/dtype.ts";
import { sizeOf } from "../graph/shape.ts";
import type { Layout } from "../layout/layout.ts";
import { lossOutput, lossScale } from "../model/forward.ts";
import { initialize } from "../model/initializer.ts";
import {
  type CompiledStep,
  type CompileSource,
  compileEvaluation,
  compileTraining,
} from "../partition/compile.ts";
import type { Program } from "../program/program.ts";
import type { Cluster } from "./cluster.ts";
import type { Engine, TensorBuffer } from "./engine.ts";
import type { StepInput } from "./feed.ts";
import { joinParts } from "./held-tensors.ts";
import { findNonFinite, NonFiniteError } from "./non-finite.ts";

export interface TrainerOptions {
  readonly source: CompileSource;
  readonly data: DataSet;
  readonly layout: Layout;
  readonly seed: number;
  /** Has a device for each of the layout, in order. Not disposed by the trainer. */
  readonly cluster: Cluster;
  /** Where an earlier trainer left off: steps done and the tensors that last; default: the beginning. */
  readonly start?: { readonly steps: number; readonly tensors: ReadonlyMap<string, TensorBuffer> };
  /** Repeats a step that went wrong in order to find out where. */
  readonly engine: Engine;
}

export interface StepResult {
  /** Mean loss over the targets of the mini-batch. */
  readonly loss: number;
  /** Global norm of the gradient before clipping. */
  readonly gradientNorm: number;
  readonly rate: number;
  readonly targets: number;
  /** Start and end of every instruction of each device's program, in seconds. */
  readonly times: readonly Float64Array[];
  readonly program: string;
}

export class Trainer {
  readonly #options: TrainerOptions;
  readonly #training: ReadonlyMap<string, CompiledStep>;
  readonly #evaluation: ReadonlyMap<string, CompiledStep>;
  #step = 0;

  private constructor(
    options: TrainerOptions,
    training: ReadonlyMap<string, CompiledStep>,
    evaluation: ReadonlyMap<string, CompiledStep>,
  ) {
    this.#options = options;
    this.#training = training;
    this.#evaluation = evaluation;
  }

  /** Compiles, loads the programs into the devices and gives every parameter its initial value. */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { source, data, layout } = options;
    const compileAll = (compile: (shape: BatchShape) => CompiledStep) =>
      new Map(data.shapes.map((shape) => [shapeKey(shape), compile(shape)]));
    const training = compileAll((shape) => compileTraining(source, layout, shape));
    const evaluation = compileAll((shape) => compileEvaluation(source, layout, shape));
    const trainer = new Trainer(options, training, evaluation);
    await options.cluster.load(layout.devices.map((_, device) => trainer.#programsOf(device)));
    await options.cluster.write(trainer.#initialTensors());
    if (options.start !== undefined) {
      await options.cluster.write(
        new Map([...options.start.tensors].map(([name, { data: values }]) => [name, values])),
      );
      trainer.#step = options.start.steps;
    }
    return trainer;
  }

  /** Steps done so far. */
  get steps(): number {
    return this.#step;
  }

  /** Number of trained values. */
  get parameterCount(): number {
    return this.#any.parameters.reduce((sum, { type }) => sum + sizeOf(type.shape), 0);
  }

  /** The programs that train, by the key of `StepResult.program`. */
  get compiled(): ReadonlyMap<string, CompiledStep> {
    return new Map([...this.#training].map(([key, step]) => [trainingKey(key), step]));
  }

  /** One update from one mini-batch. Throws `NonFiniteError`, with the parameters as they were, when the loss or the gradient is not finite. */
  async step(batch: Batch): Promise<StepResult> {
    const compiled = this.#compiledFor(this.#training, batch);
    const targets = batch.validTargets ?? compiled.targets;
    const rates = this.#options.source.optimizer.scalars(this.#step);
    const input = this.#input(compiled, batch, targets, rates);
    const program = trainingKey(batch.shapeKey);
    const outputs = await this.#options.cluster.run(program, input);
    const results = Object.assign({}, ...outputs.map((output) => output.results)) as {
      readonly [name: string]: number;
    };
    const [loss = 0, gradientNorm = 0] = [results[lossOutput], results["norm"]];
    if (!(Number.isFinite(loss) && Number.isFinite(gradientNorm))) {
      throw new NonFiniteError(this.#step + 1, loss, gradientNorm, await this.#diagnose(batch, input));
    }
    this.#step++;
    return {
      loss,
      gradientNorm,
      rate: rates["rate"] ?? 0,
      targets,
      times: outputs.map(({ times }) => times),
      program,
    };
  }

  /** Mean loss over all targets of the batches, without dropout. */
  async evaluate(
    batches: AsyncIterable<Batch>,
  ): Promise<{ readonly loss: number; readonly targets: number }> {
    let [sum, count] = [0, 0];
    for await (const batch of batches) {
      const compiled = this.#compiledFor(this.#evaluation, batch);
      const targets = batch.validTargets ?? compiled.targets;
      const outputs = await this.#options.cluster.run(
        evaluationKey(batch.shapeKey),
        this.#input(compiled, batch, targets, {}),
      );
      const loss = outputs.find(({ results }) => lossOutput in results)?.results[lossOutput] ?? Number.NaN;
      sum += loss * targets;
      count += targets;
    }
    return { loss: count === 0 ? Number.NaN : sum / count, targets: count };
  }

  /** Copies of all tensors that last: parameters, optimizer state, running statistics; each once. */
  async tensors(): Promise<ReadonlyMap<string, TensorBuffer>> {
    const held = await this.#options.cluster.read();
    const { parameters, statistics, optimizerStates } = this.#any;
    const shapes = new Map(
      [...parameters, ...optimizerStates].map(({ name, type }) => [name, type.shape] as const),
    );
    for (const { name, type } of statistics) shapes.set(stateNames(name).value, type.shape);
    const names = [...new Set(held.flatMap((tensors) => [...tensors.keys()]))].sort();
    return new Map(
      names.map((name) => {
        const parts = held.flatMap((tensors) => tensors.get(name) ?? []);
        return [name, joinParts(parts, shapes.get(name) ?? [])];
      }),
    );
  }

  /** Names of the tensors that make up the trained model, without the optimizer's own. */
  get modelTensors(): readonly string[] {
    const { parameters, statistics } = this.#any;
    return [...parameters.map(({ name }) => name), ...statistics.map(({ name }) => `state:${name}`)];
  }

  get #any(): CompiledStep {
    const [compiled] = this.#training.values();
    invariant(compiled !== undefined, "a data set has at least one shape");
    return compiled;
  }

  #programsOf(device: number): ReadonlyMap<string, Program> {
    const of = (compiled: ReadonlyMap<string, CompiledStep>, key: (shape: string) => string) =>
      [...compiled].map(([shape, { programs }]) => [key(shape), programs[device] as Program] as const);
    return new Map([...of(this.#training, trainingKey), ...of(this.#evaluation, evaluationKey)]);
  }

  #initialTensors(): ReadonlyMap<string, TypedArray> {
    const { parameters, statistics } = this.#any;
    const named = [...parameters, ...statistics.map((state) => ({ ...state, name: `state:${state.name}` }))];
    return new Map(
      named.map(({ name, type, initializer }) => {
        const data = allocate(type.dtype, sizeOf(type.shape));
        (data as Float32Array).set(initialize(initializer, name, type.shape, this.#options.seed));
        return [name, data];
      }),
    );
  }

  /** Scalars are looked up by name: the loss scale, dropout keys, and what the optimizer gives. */
  #input(
    compiled: CompiledStep,
    batch: Batch,
    targets: number,
    rates: { readonly [name: string]: number },
  ): StepInput {
    const names = new Set(
      compiled.programs.flatMap(({ buffers }) =>
        buffers.filter(({ kind }) => kind === "scalar").map(({ name }) => name),
      ),
    );
    const scalars: { [name: string]: number } = { ...rates, [lossScale]: 1 / Math.max(1, targets) };
    for (const name of names) {
      if (name.startsWith("key:")) scalars[name] = deriveKey(this.#options.seed, this.#step, name) | 0;
    }
    return { data: batch.inputs as { readonly [name: string]: TensorData }, scalars };
  }

  #compiledFor(compiled: ReadonlyMap<string, CompiledStep>, batch: Batch): CompiledStep {
    const found = compiled.get(batch.shapeKey);
    if (found !== undefined) return found;
    throw new UserError(
      `the data gave a batch of shape ${batch.shapeKey}, but declared only ${[...compiled.keys()].join("; ")}`,
    );
  }

  async #diagnose(batch: Batch, input: StepInput): Promise<string | undefined> {
    const shape = this.#options.data.shapes.find((candidate) => shapeKey(candidate) === batch.shapeKey);
    return (
      shape && findNonFinite(this.#options.source, shape, input, await this.tensors(), this.#options.engine)
    );
  }
}

function trainingKey(shape: string): string {
  return `training ${shape}`;
}

function evaluationKey(shape: string): string {
  return `evaluation ${shape}`;
}
