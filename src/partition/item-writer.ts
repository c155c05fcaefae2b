/** Writes the work on items, phases F, B and W, into the programs. */

import { stateNames, statisticNames } from "../autodiff/training-step.ts";
import { invariant } from "../base/errors.ts";
import type { GraphInput, ValueId } from "../graph/graph.ts";
import { showType, type TensorType } from "../graph/shape.ts";
import { lossOutput } from "../model/forward.ts";
import type { BufferSpec, ItemId } from "../program/program.ts";
import type { Action } from "../schedule/action.ts";
import { partOf, type SplitGraph } from "../shard/split-source.ts";
import type { DeviceWriter } from "./device-writer.ts";
import { ItemBuffers } from "./item-buffers.ts";
import {
  devicesOfGroup,
  devicesOfStage,
  exchangeInstruction,
  type ItemPlan,
  planItem,
  runPlace,
  segmentsOf,
} from "./item-plan.ts";
import type { Mail } from "./mail.ts";
import type { Segment } from "./segments.ts";
import type { OwnGradient, SharedGradients } from "./shared-gradients.ts";
import type { ItemSlice, ReplicaSource } from "./source.ts";
import { type Target, TargetGraphs } from "./target-graph.ts";

export class ItemWriter {
  readonly #source: ReplicaSource;
  readonly #writers: readonly DeviceWriter[];
  readonly #mail: Mail;
  readonly #shared: SharedGradients | undefined;
  readonly #plans: readonly ItemPlan[];
  readonly #buffers: ItemBuffers;
  readonly #kernels = new TargetGraphs();
  /** Outputs that are sums over items: gradients of parameters and the loss. */
  readonly #sums: ReadonlySet<string>;
  readonly #statistics: ReadonlySet<string>;
  /** Gradients of the piece being written, of which replicas are to share the sums. */
  readonly #unshared: {
    readonly writer: DeviceWriter;
    readonly split: SplitGraph;
    readonly own: OwnGradient;
  }[] = [];
  /** Sums that have got their first item, by device and name. */
  readonly #begun = new Set<string>();
  /** Sends that wait for the W of their item (weights "fused"). */
  readonly #held = new Map<string, (() => void)[]>();

  /** Gradients go to `shared` where replicas share them. */
  constructor(
    source: ReplicaSource,
    writers: readonly DeviceWriter[],
    mail: Mail,
    shared: SharedGradients | undefined,
  ) {
    this.#source = source;
    this.#shared = shared;
    this.#writers = writers;
    this.#mail = mail;
    this.#plans = source.steps.map((step) => planItem(step, source));
    this.#buffers = new ItemBuffers(source, this.#plans);
    const gradients = source.steps.flatMap((step) => step.gradients.map(({ output }) => output));
    this.#sums = new Set([lossOutput, ...gradients]);
    const states = source.steps.flatMap((step) => step.states);
    this.#statistics = statisticNames(states);
  }

  /** How the first item's graph is split; parameters lie the same way for all items. */
  get plan(): ItemPlan {
    const [plan] = this.#plans;
    invariant(plan !== undefined, "at least one item shape");
    return plan;
  }

  /** Writes one piece of the schedule of `device`: a single action, or the W of several items of a stage. */
  write(device: number, piece: readonly Action[]): void {
    const [first] = piece as readonly [Action, ...Action[]];
    const segments = segmentsOf(this.#planOf(first), first.stage, first.phase);
    segments.forEach((segment, position) => {
      const joined = piece.length > 1 ? this.#buffers.joinedSegment(segment) : undefined;
      if (joined !== undefined && devicesOfGroup(segment.group, this.#source).includes(device))
        this.#writeJoined(device, joined, piece);
      else if (joined === undefined) for (const action of piece) this.#writeSegment(device, position, action);
    });
    this.#shareNow();
    if (first.phase === "W") for (const action of piece) this.#release(action);
  }

  /** One run for all items of a piece. What nobody has asked for yet arrives first, row by row. */
  #writeJoined(device: number, segment: Segment, piece: readonly Action[]): void {
    const [first] = piece as readonly [Action, ...Action[]];
    const { graph } = this.#planOf(first);
    const varying = segment.inputs.filter((value) => (graph.inputs[value]?.role ?? "data") === "data");
    for (const action of piece)
      for (const value of varying) this.#input(this.#writer(device), value, action, false);
    this.#run(device, segment, first, true);
  }

  #writeSegment(device: number, position: number, action: Action): void {
    const plan = this.#planOf(action);
    const segment = segmentsOf(plan, action.stage, action.phase)[position];
    invariant(segment !== undefined, "items of different shapes have the same segments");
    const devices = devicesOfGroup(segment.group, this.#source);
    if (!devices.includes(device)) return;
    if (segment.exchange === undefined) this.#run(device, segment, action, false);
    else this.#exchange(device, devices, segment.exchange, action);
    const own = segment.outputs.filter((value) => plan.makerOf.get(value) === device);
    for (const value of own) {
      for (const to of plan.usersOf.get(value) ?? []) {
        if (to === device) continue;
        const buffer = this.#buffers.item(this.#writer(device), plan, value, action);
        const send = () => this.#mail.send(device, to, buffer, `%${value}`, itemOf(action));
        if (this.#source.weights === "fused" && action.phase === "B" && !this.#isBeside(action.stage, to))
          this.#hold(action, send);
        else send();
      }
    }
  }

  /** Whether a device is one of the mesh of a stage: it waits within the same action. */
  #isBeside(stage: number, device: number): boolean {
    return devicesOfStage(stage, this.#source).includes(device);
  }

  /** What the devices of a mesh exchange: each takes part with the operand and the result of its rank. */
  #exchange(
    device: number,
    ranks: readonly number[],
    exchange: NonNullable<Segment["exchange"]>,
    action: Action,
  ): void {
    const writer = this.#writer(device);
    const plan = this.#planOf(action);
    const { op, inputs, outputs, phase } = exchange;
    const at = ranks.indexOf(device);
    const [from, to] = [inputs[at] as ValueId, outputs[at] as ValueId];
    const buffer = this.#input(writer, from, action, false);
    const meeting = { group: this.#source.numberOf(ranks), ranks, phase, item: itemOf(action) };
    const into = this.#buffers.item(writer, plan, to, action);
    if (op.kind === "all-reduce" && into !== buffer) this.#copy(writer, from, buffer, into, action);
    writer.add(exchangeInstruction(exchange, plan.graph, { buffer, into }, meeting));
  }

  /** A copy of what is needed again before it is replaced by a sum. */
  #copy(writer: DeviceWriter, value: ValueId, from: number, to: number, action: Action): void {
    const type = this.#planOf(action).graph.types[value] as TensorType;
    const maker = this.#planOf(action).graph.nodes.find(({ outputs }) => outputs.includes(value));
    writer.add({
      kind: "run",
      kernel: writer.kernel(this.#kernels.copy(type)),
      inputs: [from],
      outputs: [to],
      phase: action.phase,
      ...runPlace(maker?.group ?? "", writer.device, this.#source),
      item: itemOf(action),
    });
  }

  #run(device: number, segment: Segment, action: Action, joined: boolean): void {
    const writer = this.#writer(device);
    const inputs = segment.inputs.map((value) => this.#input(writer, value, action, joined));
    const targets = segment.outputs.flatMap((value, position) =>
      this.#targets(writer, value, position, action, joined),
    );
    const totals = targets.flatMap(({ accumulate, buffer }) => (accumulate ? [buffer] : []));
    const place = {
      phase: segment.phase,
      ...runPlace(segment.group, device, this.#source),
      ...(joined ? {} : { item: itemOf(action) }),
    };
    writer.add({
      kind: "run",
      kernel: writer.kernel(this.#kernels.of(segment.graph, targets)),
      inputs: [...inputs, ...totals],
      outputs: targets.map(({ buffer }) => buffer),
      ...place,
    });
    this.#share(writer, segment, action, place);
  }

  /** Where replicas share gradients, each gets its part of the sum of what they have made in this piece. */
  #share(writer: DeviceWriter, segment: Segment, action: Action, run: OwnGradient["run"]): void {
    if (this.#shared === undefined) return;
    const plan = this.#planOf(action);
    for (const value of segment.outputs) {
      for (const own of plan.namesOf.get(value) ?? []) {
        const { of: name } = partOf(plan.split, own);
        if (!this.#isShared(name)) continue;
        const buffer = writer.buffer(this.#ownGradient(plan, name, value, action));
        const at = itemOf(action);
        const accumulate = this.#hasBegun(writer, name);
        this.#unshared.push({ writer, split: plan.split, own: { name, buffer, at, run, accumulate } });
      }
    }
  }

  /**
   * After the whole piece, by name: ranks come to their gradients in different orders, and while one waits for the others in a sum, they may
   * wait for what it sends later in the piece.
   */
  #shareNow(): void {
    const sums = this.#unshared.splice(0).sort((a, b) => a.own.name.localeCompare(b.own.name, "en"));
    for (const { writer, split, own } of sums) this.#shared?.write(writer, split, own);
  }

  #isShared(name: string): boolean {
    return this.#shared !== undefined && name !== lossOutput && this.#sums.has(name);
  }

  /** The gradient of one item, which is not kept. */
  #ownGradient({ graph }: ItemPlan, name: string, value: ValueId, { microBatch, chunk }: Action): BufferSpec {
    const type = graph.types[value] as TensorType;
    return { name: `own ${name}[${microBatch}.${chunk}]`, type, kind: "activation" };
  }

  /** Whether a device has a sum of this name; from now on it has. */
  #hasBegun(writer: DeviceWriter, name: string): boolean {
    const key = `${writer.device} ${name}`;
    const hasBegun = this.#begun.has(key);
    this.#begun.add(key);
    return hasBegun;
  }

  /** Where a result goes: sums, statistics, and a buffer of its own if anybody else uses it. */
  #targets(
    writer: DeviceWriter,
    value: ValueId,
    position: number,
    action: Action,
    joined: boolean,
  ): Target[] {
    const plan = this.#planOf(action);
    const type = plan.graph.types[value] as TensorType;
    const names = plan.namesOf.get(value) ?? [];
    const lasting = names.flatMap((own): Target[] => {
      const { of: name, block } = partOf(plan.split, own);
      const spec = { name, type, ...(block && { block }) };
      if (this.#statistics.has(name))
        return [{ position, buffer: writer.buffer({ ...spec, kind: "statistic" }), accumulate: false }];
      if (!this.#sums.has(name)) return [];
      if (this.#isShared(name)) {
        const buffer = writer.buffer(this.#ownGradient(plan, name, value, action));
        return [{ position, buffer, accumulate: false }];
      }
      const buffer = writer.buffer({ ...spec, kind: name === lossOutput ? "result" : "gradient" });
      return [{ position, buffer, accumulate: this.#hasBegun(writer, name) }];
    });
    const isUsed = (plan.usersOf.get(value)?.size ?? 0) > 0 || lasting.length < names.length;
    if (!isUsed) return lasting;
    const own = joined
      ? this.#buffers.joined(writer, plan, value, action.microBatch)
      : this.#buffers.item(writer, plan, value, action);
    return [{ position, buffer: own, accumulate: false }, ...lasting];
  }

  #input(writer: DeviceWriter, value: ValueId, action: Action, joined: boolean): number {
    const plan = this.#planOf(action);
    const input = plan.graph.inputs[value];
    if (input !== undefined && input.role !== "data") return this.#outerInput(writer, input, value, action);
    if (joined) return this.#buffers.joined(writer, plan, value, action.microBatch);
    const buffer = this.#buffers.item(writer, plan, value, action);
    if (input !== undefined) {
      const { of: name, block } = partOf(plan.split, input.name);
      const start = this.#startOf(name, action).map((first, dim) => first + (block?.start[dim] ?? 0));
      writer.feed({ buffer, input: name, start });
      return buffer;
    }
    const from = plan.makerOf.get(value) as number;
    if (from !== writer.device) this.#mail.receive(from, writer.device, buffer, `%${value}`, itemOf(action));
    return buffer;
  }

  /** Parameters, statistics and scalars have one buffer for all items; carried state comes from the neighbouring item. */
  #outerInput(writer: DeviceWriter, input: GraphInput, value: ValueId, action: Action): number {
    const { role } = input;
    const own = this.#planOf(action);
    const type = own.graph.types[value] as TensorType;
    const { of: name, block } = partOf(own.split, input.name);
    const spec = { name, type, ...(block && { block }) };
    if (role === "parameter") return writer.buffer({ ...spec, kind: "parameter" });
    if (this.#statistics.has(name)) return writer.buffer({ ...spec, kind: "statistic" });
    if (role === "scalar") return this.#scalar(writer, name, type, action);
    const { chunk } = action;
    const state = name.slice(name.indexOf(":") + 1);
    const mark = input.name.slice(name.length);
    const neighbour = role === "state" ? { ...action, chunk: chunk - 1 } : { ...action, chunk: chunk + 1 };
    const names = stateNames(state);
    if (neighbour.chunk < 0 || neighbour.chunk >= this.#chunksOf(action)) {
      return writer.buffer({ name: `zero ${showType(type)}`, type, kind: "constant", value: 0 });
    }
    const plan = this.#planOf(neighbour);
    const from = plan.valueOf.get(`${role === "state" ? names.value : names.leaving}${mark}`);
    invariant(from !== undefined, `state "${state}" is not given to the next item`);
    return this.#buffers.item(writer, plan, from, neighbour);
  }

  #scalar(writer: DeviceWriter, name: string, type: TensorType, action: Action): number {
    const { batch, time } = this.#sliceOf(action);
    const offsets: { readonly [name: string]: number } = { "offset:batch": batch[0], "offset:time": time[0] };
    const offset = offsets[name];
    if (offset === undefined) return writer.buffer({ name, type, kind: "scalar" });
    return writer.buffer({ name: `${name}=${offset}`, type, kind: "constant", value: offset });
  }

  #hold(action: Action, send: () => void): void {
    const key = keyOf(action);
    this.#held.set(key, [...(this.#held.get(key) ?? []), send]);
  }

  #release(action: Action): void {
    for (const send of this.#held.get(keyOf(action)) ?? []) send();
    this.#held.delete(keyOf(action));
  }

  #planOf(action: Action): ItemPlan {
    return this.#plans[this.#sliceOf(action).step] as ItemPlan;
  }

  #sliceOf({ microBatch, chunk }: ItemId): ItemSlice {
    const slice = this.#source.items[microBatch]?.[chunk];
    invariant(slice !== undefined, `there is no item (${microBatch}, ${chunk})`);
    return slice;
  }

  /** Index of the first element of an item in a data input of the whole mini-batch. */
  #startOf(name: string, action: Action): readonly number[] {
    const { batch, time } = this.#sliceOf(action);
    const spec = this.#source.inputs.find((input) => input.name === name);
    invariant(spec !== undefined, `data input "${name}" is not declared`);
    return spec.dims.map((dim) => (dim === "batch" ? batch[0] : dim === "time" ? time[0] : 0));
  }

  #chunksOf({ microBatch }: ItemId): number {
    return this.#source.items[microBatch]?.length ?? 0;
  }

  #writer(device: number): DeviceWriter {
    return this.#writers[device] as DeviceWriter;
  }
}

function itemOf({ microBatch, chunk }: Action): ItemId {
  return { microBatch, chunk };
}

function keyOf({ stage, microBatch, chunk }: Action): string {
  return `${stage} ${microBatch} ${chunk}`;
}
