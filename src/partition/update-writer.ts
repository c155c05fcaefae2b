/**
 * Writes phase U, once after all items: gradients that arose elsewhere (tied parameters) go to the owner, the loss and the devices'
 * shares of the norm to one device and the clipping factor back, and new values of parameters to the devices that use a copy.
 *
 *     device 0 | norm part ─────► norm, scale ─┬─► guard, update ─► copy ─┐
 *     device 1 | norm part ─────┘              └─► guard, update           └─► (after its guard)
 */

import { normOutput, scaleOutput, type TrainingStep } from "../autodiff/training-step.ts";
import { invariant } from "../base/errors.ts";
import type { Graph, GraphInput, ValueId } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { nodesFor } from "../graph/subgraph.ts";
import { lossOutput } from "../model/forward.ts";
import type { BufferKind, BufferSpec } from "../program/program.ts";
import { partOf, type SplitGraph, splitOptions } from "../shard/split-source.ts";
import { splitUpdate } from "../shard/step.ts";
import { lossMaker } from "./add-up.ts";
import type { DeviceWriter } from "./device-writer.ts";
import {
  devicesOfGroup,
  devicesOfStage,
  exchangeInstruction,
  placeOfNode,
  runPlace,
  sumsInPlace,
} from "./item-plan.ts";
import type { Mail } from "./mail.ts";
import { cutSegments, type Segment } from "./segments.ts";
import type { ReplicaSource } from "./source.ts";
import { type Target, TargetGraphs } from "./target-graph.ts";

/** Marks the places of what the norm depends on. */
const isBefore = "before";

/** A parameter that `holder` computes with and `owner` updates. */
interface Copy {
  readonly spec: BufferSpec;
  readonly owner: DeviceWriter;
  readonly holder: DeviceWriter;
}

export class UpdateWriter {
  readonly #split: SplitGraph;
  readonly #update: Graph;
  readonly #source: ReplicaSource;
  readonly #writers: readonly DeviceWriter[];
  readonly #mail: Mail;
  /** What the norm needs, then the rest: nothing lasting changes before the guard. */
  readonly #segments: readonly Segment[];
  readonly #kernels = new TargetGraphs();
  /** What is not finite when the step is broken, on each device that computes it. */
  readonly #scales: readonly ValueId[];
  /** The value in whose buffer a sum over ranks lies. */
  readonly #places: ReadonlyMap<ValueId, ValueId>;
  /** Devices that check it already. */
  readonly #guarded = new Set<number>();
  /** The device that makes each value, and the one where each gradient arises. */
  readonly #makers = new Map<ValueId, number>();
  /** The devices that have the loss: it has been added up on all of them. */
  readonly #lossDevices = new Set<number>();
  readonly #users = new Map<ValueId, Set<number>>();

  /** `split` says how the item graph has laid out what is updated; replicas may have `dealt` out the gradients. */
  constructor(
    step: Pick<TrainingStep, "item" | "update" | "gradients">,
    split: SplitGraph,
    source: ReplicaSource,
    writers: readonly DeviceWriter[],
    mail: Mail,
    dealt: boolean,
  ) {
    this.#split = splitUpdate(step, split, splitOptions(source), dealt);
    const update = this.#split.graph;
    this.#update = update;
    this.#source = source;
    this.#writers = writers;
    this.#mail = mail;
    this.#places = sumsInPlace(update, ({ role }) => role === "gradient");
    this.#scales = update.outputs.flatMap(({ name, value }) =>
      partOf(this.#split, name).of === scaleOutput ? [value] : [],
    );
    const before = new Set(nodesFor(update, this.#scales));
    const segments = cutSegments(
      update,
      (node) => `${placeOfNode(node, source)} ${before.has(node) ? isBefore : ""}`,
    );
    this.#segments = [
      ...segments.filter(({ place }) => place.endsWith(isBefore)),
      ...segments.filter(({ place }) => !place.endsWith(isBefore)),
    ];
    const summed = new Set([...step.gradients, ...lossMaker(step.item)].map(({ output }) => output));
    update.inputs.forEach(({ name }, value) => {
      const { of, rank } = partOf(this.#split, name);
      const spread = summed.has(of) ? split.outputs.get(of) : undefined;
      if (spread === undefined) return;
      this.#makers.set(value, source.deviceOf(spread.stage, rank));
      if (of === lossOutput)
        for (const device of devicesOfStage(spread.stage, source)) this.#lossDevices.add(device);
    });
    for (const segment of this.#segments) this.#register(segment);
    for (const device of this.#guardedDevices()) {
      const scale = this.#scaleOf(device);
      if (scale !== undefined) this.#addUser(scale, device);
    }
  }

  #register({ group, exchange, inputs, outputs }: Segment): void {
    const devices = devicesOfGroup(group, this.#source);
    const deviceAt = (i: number) => (exchange === undefined ? devices[0] : devices[i]) as number;
    (exchange?.outputs ?? outputs).forEach((value, i) => {
      this.#makers.set(value, deviceAt(i));
    });
    (exchange?.inputs ?? inputs).forEach((value, i) => {
      this.#addUser(value, deviceAt(i));
    });
  }

  /** The scale that a device makes, or gets for another use. */
  #ownScale(device: number): ValueId | undefined {
    return this.#scales.find(
      (value) => this.#makers.get(value) === device || this.#users.get(value)?.has(device) === true,
    );
  }

  /** The scale that a device checks. */
  #scaleOf(device: number): ValueId | undefined {
    return this.#ownScale(device) ?? this.#scales[0];
  }

  write(): void {
    for (const value of this.#update.inputs.keys()) this.#send(value);
    for (const segment of this.#segments) {
      if (segment.exchange === undefined) this.#run(segment);
      else this.#exchange(segment, segment.exchange);
      for (const value of segment.outputs) this.#send(value);
    }
    this.#sendCopies();
    for (const device of this.#guardedDevices()) this.#guard(this.#writers[device] as DeviceWriter);
  }

  /** Devices that change anything that lasts: they update parameters, hold copies of them, or have kept statistics. */
  #guardedDevices(): ReadonlySet<number> {
    const updating = this.#segments.flatMap(({ place, group }) =>
      place.endsWith(isBefore) ? [] : devicesOfGroup(group, this.#source),
    );
    const copying = this.#copies().map(({ holder }) => holder.device);
    const counting = this.#own.filter((writer) => writer.holds("statistic")).map(({ device }) => device);
    return new Set([...updating, ...copying, ...counting]);
  }

  /** The writers of this replica. */
  get #own(): readonly DeviceWriter[] {
    return this.#writers.filter(({ device }) => this.#source.schedule[device]?.length !== 0);
  }

  #addUser(used: ValueId, device: number): void {
    const value = this.#valueOf(used, device);
    this.#users.set(value, (this.#users.get(value) ?? new Set<number>()).add(device));
  }

  #run(segment: Segment): void {
    const [device = -1] = devicesOfGroup(segment.group, this.#source);
    const writer = this.#writers[device] as DeviceWriter;
    const inputs = segment.inputs.map((value) => this.#input(writer, value));
    if (!segment.place.endsWith(isBefore)) this.#guard(writer);
    const targets = segment.outputs.flatMap((value, position) => this.#targets(writer, value, position));
    writer.add({
      kind: "run",
      kernel: writer.kernel(this.#kernels.of(segment.graph, targets)),
      inputs,
      outputs: targets.map(({ buffer }) => buffer),
      phase: "U",
      ...runPlace(segment.group, device, this.#source),
    });
  }

  /** What the devices of a mesh exchange. */
  #exchange({ group, place }: Segment, exchange: NonNullable<Segment["exchange"]>): void {
    const { op, inputs, outputs } = exchange;
    const isLate = !place.endsWith(isBefore);
    const ranks = devicesOfGroup(group, this.#source);
    const meeting = { group: this.#source.numberOf(ranks), ranks, phase: "U" as const };
    ranks.forEach((device, i) => {
      const writer = this.#writers[device] as DeviceWriter;
      const buffer = this.#input(writer, inputs[i] as ValueId);
      if (isLate) this.#guard(writer);
      const [lasting] = this.#lasting(outputs[i] as ValueId);
      const into = writer.buffer(lasting ?? this.#specOf(outputs[i] as ValueId, device));
      invariant(
        op.kind !== "all-reduce" || into === buffer,
        "what is summed in the update is summed in place",
      );
      writer.add(exchangeInstruction(exchange, this.#update, { buffer, into }, meeting));
    });
  }

  /** What a device reads where the graph says `value`: all scales are equal, and it needs one of them. */
  #valueOf(value: ValueId, device: number): ValueId {
    const own = this.#scales.includes(value) ? this.#ownScale(device) : undefined;
    return own ?? value;
  }

  /** The buffer of a value, received if it is made elsewhere. */
  #input(writer: DeviceWriter, used: ValueId): number {
    const value = this.#valueOf(used, writer.device);
    const from = this.#makers.get(value);
    const spec = this.#specOf(value, writer.device);
    const buffer = writer.buffer(spec);
    if (from !== undefined && !this.#has(value, writer.device))
      this.#mail.receive(from, writer.device, buffer, spec.name);
    return buffer;
  }

  /** Nothing after this changes what lasts unless the gradient is finite. */
  #guard(writer: DeviceWriter): void {
    const scale = this.#scaleOf(writer.device);
    if (scale === undefined || this.#guarded.has(writer.device)) return;
    this.#guarded.add(writer.device);
    writer.add({ kind: "guard", buffer: this.#input(writer, scale) });
  }

  /** Where a result goes: the lasting tensors it renews, and a buffer of its own if another segment uses it. */
  #targets(writer: DeviceWriter, value: ValueId, position: number): Target[] {
    const own = this.#users.has(value) ? [this.#specOf(value, writer.device)] : [];
    return [...own, ...this.#lasting(value)].map((spec) => ({
      position,
      buffer: writer.buffer(spec),
      accumulate: false,
    }));
  }

  /** The lasting tensors and results that a value is. */
  #lasting(value: ValueId): readonly BufferSpec[] {
    const type = this.#update.types[value] as TensorType;
    return this.#update.outputs.flatMap((output): BufferSpec[] => {
      if (output.value !== value) return [];
      const input = this.#update.inputs.find(({ name }) => name === output.name);
      const { of: name, block } = partOf(this.#split, output.name);
      if (input !== undefined) return [{ name, type, kind: kindOf(input), ...(block && { block }) }];
      return name === normOutput ? [{ name, type, kind: "result" }] : [];
    });
  }

  /** Sends a value from where it is made to every other device that uses it. */
  #send(value: ValueId): void {
    const from = this.#makers.get(value);
    if (from === undefined) return;
    const spec = this.#specOf(value, from);
    for (const to of this.#users.get(value) ?? []) {
      if (!this.#has(value, to))
        this.#mail.send(from, to, (this.#writers[from] as DeviceWriter).buffer(spec), spec.name);
    }
  }

  /** New values of parameters go to every device that computes with a copy. */
  #sendCopies(): void {
    for (const { spec, owner, holder } of this.#copies()) {
      this.#guard(holder);
      this.#mail.send(owner.device, holder.device, owner.buffer(spec), spec.name);
      this.#mail.receive(owner.device, holder.device, holder.buffer(spec), spec.name);
    }
  }

  #copies(): readonly Copy[] {
    const updated = this.#update.outputs.flatMap(({ name, value }) => {
      const owner = this.#writers[this.#makers.get(value) ?? -1];
      const isParameter = this.#update.inputs.some(
        (input) => input.name === name && input.role === "parameter",
      );
      if (owner === undefined || !isParameter) return [];
      const { of, block } = partOf(this.#split, name);
      const type = this.#update.types[value] as TensorType;
      const spec: BufferSpec = { name: of, type, kind: "parameter", ...(block && { block }) };
      return [{ spec, owner }];
    });
    return this.#own.flatMap((holder) => {
      const names = new Set(updated.map(({ spec }) => spec.name));
      return [...names].flatMap((name): Copy[] => {
        const sources = updated.filter(({ spec }) => spec.name === name);
        const held = holder.specOf(name);
        if (held === undefined || sources.some(({ owner }) => owner === holder)) return [];
        const source = sources.find(({ spec }) => sameBlock(spec, held));
        invariant(
          source !== undefined,
          `no device updates the part of "${name}" that device ${holder.device} has`,
        );
        return [{ ...source, holder }];
      });
    });
  }

  /** All devices call the scale by one name; a sum over ranks has that of its operand. */
  #nameOf(value: ValueId): ValueId | undefined {
    return this.#scales.includes(value) ? this.#scales[0] : (this.#places.get(value) ?? value);
  }

  /** The loss is a result of the device that computes it, and passes through others. */
  #specOf(value: ValueId, device: number): BufferSpec {
    const place = this.#places.get(value);
    if (place !== undefined && place < this.#update.inputs.length) return this.#specOf(place, device);
    const type = this.#update.types[value] as TensorType;
    const input = this.#update.inputs[value];
    if (input === undefined) return { name: `U%${this.#nameOf(value)}`, type, kind: "activation" };
    const { of: name, block } = partOf(this.#split, input.name);
    if (name !== lossOutput) return { name, type, kind: kindOf(input), ...(block && { block }) };
    return { name, type, kind: this.#has(value, device) ? "result" : "activation" };
  }

  /** Whether a device has a value without being sent it. The loss and the scale are made by all devices of a mesh. */
  #has(value: ValueId, device: number): boolean {
    if (this.#scales.includes(value)) return this.#scales.some((scale) => this.#makers.get(scale) === device);
    const { of } = partOf(this.#split, this.#update.inputs[value]?.name ?? "");
    return of === lossOutput ? this.#lossDevices.has(device) : this.#makers.get(value) === device;
  }
}

function sameBlock(a: BufferSpec, b: BufferSpec): boolean {
  return JSON.stringify(a.block) === JSON.stringify(b.block);
}

const kinds: { readonly [R in GraphInput["role"]]: BufferKind } = {
  parameter: "parameter",
  state: "optimizer",
  gradient: "gradient",
  scalar: "scalar",
  data: "data",
};

function kindOf({ role }: GraphInput): BufferKind {
  return kinds[role];
}
