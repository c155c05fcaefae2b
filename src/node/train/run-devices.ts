/** The devices of a run and the trainer that drives them, which change when the layout does. */

import type { Cluster } from "../../execute/cluster.ts";
import type { Engine } from "../../execute/engine.ts";
import { Trainer } from "../../execute/trainer.ts";
import { Metrics } from "./metrics.ts";
import { openCluster, openEngine } from "./open-cluster.ts";
import type { RunPhase, RunPlan } from "./plan-run.ts";

export class RunDevices implements AsyncDisposable {
  readonly #plan: RunPlan;
  readonly #engine: Engine;
  #cluster: Cluster;
  #metrics: Metrics;
  #trainer: Trainer;

  private constructor(
    plan: RunPlan,
    engine: Engine,
    parts: { readonly cluster: Cluster; readonly metrics: Metrics; readonly trainer: Trainer },
  ) {
    this.#plan = plan;
    this.#engine = engine;
    this.#cluster = parts.cluster;
    this.#metrics = parts.metrics;
    this.#trainer = parts.trainer;
  }

  /** Starts the devices of a layout with the initial parameters. */
  static async open(plan: RunPlan, { layout }: RunPhase): Promise<RunDevices> {
    const engine = openEngine(plan.engine, layout.devices[0]?.threads ?? 1);
    const cluster = openCluster(layout, plan.engine, engine);
    try {
      const { source, data, seed } = plan;
      const metrics = new Metrics(plan, layout, cluster);
      const parts = { source, data, layout, seed, cluster: metrics.beside, engine };
      return new RunDevices(plan, engine, { cluster, metrics, trainer: await Trainer.create(parts) });
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      await engine[Symbol.asyncDispose]();
      throw error;
    }
  }

  get trainer(): Trainer {
    return this.#trainer;
  }

  /** The metrics of the parameters as the trainer last left them. */
  get metrics(): Metrics {
    return this.#metrics;
  }

  /** Ends the devices and goes on, from where they were, with those of another layout. */
  async change({ layout }: RunPhase): Promise<void> {
    const { source, data, seed } = this.#plan;
    const start = { steps: this.#trainer.steps, tensors: await this.#trainer.tensors() };
    await this.#cluster[Symbol.asyncDispose]();
    this.#cluster = openCluster(layout, this.#plan.engine, this.#engine);
    this.#metrics = new Metrics(this.#plan, layout, this.#cluster);
    const parts = { source, data, seed, layout, start, cluster: this.#metrics.beside, engine: this.#engine };
    this.#trainer = await Trainer.create(parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cluster[Symbol.asyncDispose]();
    await this.#engine[Symbol.asyncDispose]();
  }
}
