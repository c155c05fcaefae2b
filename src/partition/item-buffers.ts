/**
 * The buffers that items use on each device, by value. Values of which a joined W wants the rows of several items under each other are
 * views of one buffer:
 *
 *     %7[*]  rows 0..3 %7[0.0]  rows 4..7 %7[0.1]  ...
 */

import type { ValueId } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import type { BufferKind, ItemId } from "../program/program.ts";
import type { Weights } from "../schedule/action.ts";
import type { DeviceWriter } from "./device-writer.ts";
import { devicesOfGroup, type ItemPlan } from "./item-plan.ts";
import type { Segment } from "./segments.ts";
import type { ReplicaSource } from "./source.ts";
import { moreRows, stackRows } from "./stack-rows.ts";

export class ItemBuffers {
  readonly #source: ReplicaSource;
  readonly #joined = new Map<Segment, Segment>();
  /** Values with stacked rows, by device. */
  readonly #stacked = new Map<number, Set<ValueId>>();

  constructor(source: ReplicaSource, plans: readonly ItemPlan[]) {
    this.#source = source;
    const count = joinedItems(source);
    const [plan] = plans;
    if (count < 2 || plan === undefined || plans.length > 1) return;
    for (const segment of [...plan.segments.values()].flat())
      if (segment.phase === "W" && segment.exchange === undefined) this.#tryStack(plan, segment, count);
  }

  /** The segment that does the W of all items of a piece at once, if there is one. */
  joinedSegment(segment: Segment): Segment | undefined {
    return this.#joined.get(segment);
  }

  /** The buffer of a value (of a data input or a node's result) of one item. */
  item(writer: DeviceWriter, plan: ItemPlan, of: ValueId, { microBatch, chunk }: ItemId): number {
    const value = plan.placeOf.get(of) ?? of;
    const { name, type, kind } = describe(plan, value);
    const own = { name: `${name}[${microBatch}.${chunk}]`, type, kind };
    if (!this.#stacked.get(writer.device)?.has(value)) return writer.buffer(own);
    const rows = type.shape[0] as number;
    const index = this.#source.weights === "deferred" ? microBatch * this.#chunks + chunk : chunk;
    return writer.buffer({
      ...own,
      view: { of: this.joined(writer, plan, value, microBatch), row: index * rows },
    });
  }

  /** The buffer with the rows of all items of the piece that micro-batch `microBatch` belongs to. */
  joined(writer: DeviceWriter, plan: ItemPlan, of: ValueId, microBatch: number): number {
    const value = plan.placeOf.get(of) ?? of;
    const { name, type, kind } = describe(plan, value);
    const piece = this.#source.weights === "deferred" ? "*" : `${microBatch}.*`;
    return writer.buffer({
      name: `${name}[${piece}]`,
      type: { ...type, shape: moreRows(type.shape, joinedItems(this.#source)) },
      kind,
    });
  }

  get #chunks(): number {
    return this.#source.items[0]?.length ?? 1;
  }

  #tryStack(plan: ItemPlan, segment: Segment, count: number): void {
    const roles = segment.inputs.map((value) => plan.graph.inputs[value]?.role ?? "data");
    if (roles.some((role) => role === "state" || role === "gradient")) return;
    const varying = new Set(roles.flatMap((role, i) => (role === "data" ? [i] : [])));
    const joined = varying.size === 0 ? undefined : stackRows(segment.graph, varying, count);
    if (joined === undefined || this.#isForItems(plan, segment, joined.stackedOutputs)) return;
    this.#joined.set(segment, { ...segment, graph: joined.graph });
    const [device = -1] = devicesOfGroup(segment.group, this.#source);
    const values = this.#stacked.get(device) ?? new Set();
    const stacked = [
      ...[...varying].map((i) => segment.inputs[i] as ValueId),
      ...joined.stackedOutputs.map((i) => segment.outputs[i] as ValueId),
    ];
    for (const value of stacked) values.add(plan.placeOf.get(value) ?? value);
    this.#stacked.set(device, values);
  }

  /**
   * Whether the result of each item is needed by itself: another segment computes with a sum over the items, or what has the rows of all items
   * is a gradient, which the items add up.
   */
  #isForItems({ usersOf, namesOf }: ItemPlan, segment: Segment, stackedOutputs: readonly number[]): boolean {
    return segment.outputs.some((value, position) =>
      stackedOutputs.includes(position) ? namesOf.has(value) : usersOf.has(value),
    );
  }
}

/** Items whose W is one piece. */
function joinedItems({
  weights,
  items,
}: {
  readonly weights: Weights;
  readonly items: ReplicaSource["items"];
}): number {
  const chunks = items[0]?.length ?? 1;
  if (weights === "deferred") return items.length * chunks;
  return weights === "per-micro-batch" ? chunks : 1;
}

function describe(
  plan: ItemPlan,
  value: ValueId,
): { readonly name: string; readonly type: TensorType; readonly kind: BufferKind } {
  const input = plan.graph.inputs[value];
  const type = plan.graph.types[value] as TensorType;
  return input === undefined
    ? { name: `%${value}`, type, kind: "activation" }
    : { name: input.name, type, kind: "data" };
}
