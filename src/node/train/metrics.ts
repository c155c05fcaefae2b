/**
 * The metrics of a job over its validation data. Each has a program of its own for every shape of batch, with the metric where the
 * loss would be; they lie beside the trainer's programs on the same devices and read the same parameters.
 */

import { type Batch, type BatchShape, type DataSet, shapeKey } from "../../data/dataset.ts";
import type { Cluster } from "../../execute/cluster.ts";
import type { Layout } from "../../layout/layout.ts";
import { lossOutput, lossScale } from "../../model/forward.ts";
import type { Metric } from "../../model/metric.ts";
import { type CompiledStep, type CompileSource, compileEvaluation } from "../../partition/compile.ts";
import type { Program } from "../../program/program.ts";

export interface MetricsOptions {
  /** The model, its inputs and its types; the loss is not looked at. */
  readonly source: CompileSource;
  readonly data: Pick<DataSet, "shapes">;
  readonly metrics: { readonly [name: string]: Metric };
}

export class Metrics {
  readonly #compiled: ReadonlyMap<string, ReadonlyMap<string, CompiledStep>>;
  readonly #cluster: Cluster;

  /** Compiles for the devices of `cluster`, on which `beside` has yet to load the programs. */
  constructor({ source, data, metrics }: MetricsOptions, layout: Layout, cluster: Cluster) {
    const compile = (loss: Metric, shape: BatchShape) =>
      compileEvaluation({ ...source, loss }, layout, shape);
    this.#cluster = cluster;
    this.#compiled = new Map(
      Object.entries(metrics).map(([name, metric]) => [
        name,
        new Map(data.shapes.map((shape) => [shapeKey(shape), compile(metric, shape)])),
      ]),
    );
  }

  /** The cluster, which loads the metrics' programs together with those that it is given. */
  get beside(): Cluster {
    const cluster = this.#cluster;
    return {
      load: (programs) =>
        cluster.load(programs.map((own, device) => new Map([...own, ...this.#programsOf(device)]))),
      run: (program, input) => cluster.run(program, input),
      write: (tensors) => cluster.write(tensors),
      read: () => cluster.read(),
      [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
    };
  }

  /** The mean of each metric over all targets of the batches; NaN where there are none. */
  async evaluate(batches: AsyncIterable<Batch>): Promise<{ readonly [name: string]: number }> {
    const totals = new Map([...this.#compiled.keys()].map((name) => [name, { sum: 0, count: 0 }]));
    for await (const batch of batches) {
      for (const [name, shapes] of this.#compiled) {
        const { targets: all = 0 } = shapes.get(batch.shapeKey) ?? {};
        const targets = batch.validTargets ?? all;
        const outputs = await this.#cluster.run(metricKey(name, batch.shapeKey), {
          data: batch.inputs,
          scalars: { [lossScale]: 1 / Math.max(1, targets) },
        });
        const mean = outputs.find(({ results }) => lossOutput in results)?.results[lossOutput] ?? Number.NaN;
        const { sum, count } = totals.get(name) ?? { sum: 0, count: 0 };
        totals.set(name, { sum: sum + mean * targets, count: count + targets });
      }
    }
    return Object.fromEntries([...totals].map(([name, { sum, count }]) => [name, sum / count]));
  }

  #programsOf(device: number): readonly (readonly [string, Program])[] {
    return [...this.#compiled].flatMap(([name, shapes]) =>
      [...shapes].map(
        ([shape, { programs }]) => [metricKey(name, shape), programs[device] as Program] as const,
      ),
    );
  }
}

function metricKey(name: string, shape: string): string {
  return `metric ${name} ${shape}`;
}
