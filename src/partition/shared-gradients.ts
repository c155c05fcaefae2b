/**
 * Gradients that replicas share (ZeRO stage 2: Rajbhandari et al. 2020, section 5.2): as soon as a run has made the gradient of an item,
 * every replica gets its part of the sum and adds it to what it has. The whole gradient is then needed no longer.
 *
 *     replica 0 | W grad ┐                 ┌ part 0 += ...
 *     replica 1 | W grad ┴ reduce-scatter ─┴ part 1 += ...
 */

import { invariant } from "../base/errors.ts";
import type { Graph, ValueId } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import type { ItemId, Run } from "../program/program.ts";
import { partOf, type SplitGraph, splitOptions } from "../shard/split-source.ts";
import { splitSum } from "../shard/step.ts";
import type { DeviceWriter } from "./device-writer.ts";
import { devicesOfGroup, exchangeInstruction, placeOfNode, sumsInPlace } from "./item-plan.ts";
import { cutSegments, type Segment } from "./segments.ts";
import type { ReplicaSource } from "./source.ts";
import { type Target, TargetGraphs } from "./target-graph.ts";

/** The gradient of an item, which a run has left in a buffer. */
export interface OwnGradient {
  readonly name: string;
  readonly buffer: number;
  /** The item of the run, or the first of several. */
  readonly at: ItemId;
  readonly run: Pick<Run, "phase" | "stage" | "rank" | "group" | "item">;
  /** Whether there is a sum already. */
  readonly accumulate: boolean;
}

interface SumPlan {
  readonly split: SplitGraph;
  readonly segments: readonly Segment[];
  /** The value in whose buffer a sum over ranks lies. */
  readonly placeOf: ReadonlyMap<ValueId, ValueId>;
}

export class SharedGradients {
  readonly #source: ReplicaSource;
  readonly #plans = new Map<string, SumPlan>();
  readonly #kernels = new TargetGraphs();

  /** `source` has all replicas as one, with the axis `data` on every mesh. */
  constructor(source: ReplicaSource) {
    this.#source = source;
  }

  /** Writes a device's share of a sum; `split` says how the item graph has laid out the gradient. */
  write(writer: DeviceWriter, split: SplitGraph, gradient: OwnGradient): void {
    const plan = this.#planOf(split, gradient);
    for (const segment of plan.segments) {
      const devices = devicesOfGroup(segment.group, this.#source);
      const rank = devices.indexOf(writer.device);
      if (rank < 0) continue;
      if (segment.exchange === undefined) this.#run(writer, plan, segment, gradient);
      else this.#exchange(writer, plan, segment.exchange, devices, gradient);
    }
  }

  #run(writer: DeviceWriter, plan: SumPlan, segment: Segment, gradient: OwnGradient): void {
    const inputs = segment.inputs.map((value) => bufferOf(writer, plan, value, gradient));
    const targets = segment.outputs.map((value, position) =>
      targetOf(writer, plan, value, position, gradient),
    );
    const totals = targets.flatMap(({ accumulate, buffer }) => (accumulate ? [buffer] : []));
    writer.add({
      kind: "run",
      kernel: writer.kernel(this.#kernels.of(segment.graph, targets)),
      inputs: [...inputs, ...totals],
      outputs: targets.map(({ buffer }) => buffer),
      ...gradient.run,
    });
  }

  #exchange(
    writer: DeviceWriter,
    plan: SumPlan,
    exchange: NonNullable<Segment["exchange"]>,
    ranks: readonly number[],
    gradient: OwnGradient,
  ): void {
    const rank = ranks.indexOf(writer.device);
    const { phase, item } = gradient.run;
    const meeting = { group: this.#source.numberOf(ranks), ranks, phase, ...(item && { item }) };
    const buffer = bufferOf(writer, plan, exchange.inputs[rank] as ValueId, gradient);
    const into = bufferOf(writer, plan, exchange.outputs[rank] as ValueId, gradient);
    writer.add(exchangeInstruction(exchange, plan.split.graph, { buffer, into }, meeting));
  }

  #planOf(split: SplitGraph, { name, run: { group } }: OwnGradient): SumPlan {
    const known = this.#plans.get(name);
    if (known !== undefined) return known;
    const spread = split.outputs.get(name);
    invariant(spread !== undefined, `the item graph has no output "${name}"`);
    const type = typeOfOutput(this.#source.steps[0]?.item, name);
    const { sharding } = spread;
    const sum = splitSum({ name, type, group, sharding }, splitOptions(this.#source));
    const segments = cutSegments(sum.graph, (node) => placeOfNode(node, this.#source));
    const plan = { split: sum, segments, placeOf: sumsInPlace(sum.graph, () => true) };
    this.#plans.set(name, plan);
    return plan;
  }
}

/** Where a value of the sum lies on a device: what has come out of the run, or a buffer of this item. */
function bufferOf(
  writer: DeviceWriter,
  { split: { graph }, placeOf }: SumPlan,
  of: ValueId,
  { name, buffer, at }: OwnGradient,
): number {
  const value = placeOf.get(of) ?? of;
  if (value < graph.inputs.length) return buffer;
  const type = graph.types[value] as TensorType;
  return writer.buffer({
    name: `sum of ${name} %${value}[${at.microBatch}.${at.chunk}]`,
    type,
    kind: "activation",
  });
}

/** The part of the sum that lasts, or what is made on the way to it. */
function targetOf(
  writer: DeviceWriter,
  plan: SumPlan,
  value: ValueId,
  position: number,
  gradient: OwnGradient,
): Target {
  const { graph } = plan.split;
  const output = graph.outputs.find((own) => own.value === value);
  if (output === undefined)
    return { position, buffer: bufferOf(writer, plan, value, gradient), accumulate: false };
  const { of: name, block } = partOf(plan.split, output.name);
  const type = graph.types[value] as TensorType;
  const buffer = writer.buffer({ name, type, kind: "gradient", ...(block && { block }) });
  return { position, buffer, accumulate: gradient.accumulate };
}

function typeOfOutput(graph: Graph | undefined, name: string): TensorType {
  const value = graph?.outputs.find((output) => output.name === name)?.value;
  const type = graph?.types[value ?? -1];
  invariant(type !== undefined, `the item graph has no output "${name}"`);
  return type;
}
