/**
 * Writes phase U, once after all items: gradients that arose elsewhere (tied parameters) go to the owner, the loss and the devices'
 * shares of the norm to one device and the clipping factor back, and new values of parameters to the devices that use a copy.
 *
 *     device 0 | norm part ─────► norm, scale ─┬─► guard, update ─► copy ─┐
 *     device 1 | norm part ─────┘              └─► guard, update           └─► (after its guard)
 */

import { normOutput, scaleOutput, type TrainingStep } from "../autodiff/training-step.ts";
import type { Graph, GraphInput, Node, ValueId } from "../graph/graph.ts";
import type { TensorType } from "../graph/shape.ts";
import { lossOutput } from "../model/forward.ts";
import type { BufferKind, BufferSpec } from "../program/program.ts";
import { lossMaker } from "./add-up.ts";
import type { DeviceWriter } from "./device-writer.ts";
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

type Placement = Pick<ReplicaSource, "stageOf" | "deviceOf" | "schedule">;

export class UpdateWriter {
  readonly #update: Graph;
  readonly #placement: Placement;
  readonly #writers: readonly DeviceWriter[];
  readonly #mail: Mail;
  /** What the norm needs, then the rest: nothing lasting changes before the guard. */
  readonly #segments: readonly Segment[];
  readonly #kernels = new TargetGraphs();
  /** The value that is not finite when the step is broken. */
  readonly #scale: ValueId | undefined;
  /** Devices that check it already. */
  readonly #guarded = new Set<number>();
  /** The device that makes each value, and the one where each gradient arises. */
  readonly #makers = new Map<ValueId, number>();
  readonly #users = new Map<ValueId, Set<number>>();

  constructor(
    { item, update, gradients }: Pick<TrainingStep, "item" | "update" | "gradients">,
    placement: Placement,
    writers: readonly DeviceWriter[],
    mail: Mail,
  ) {
    this.#update = update;
    this.#placement = placement;
    this.#writers = writers;
    this.#mail = mail;
    this.#scale = update.outputs.find(({ name }) => name === scaleOutput)?.value;
    const before = ancestorsOf(update, this.#scale);
    const segments = cutSegments(
      update,
      (node) => `${placement.stageOf(node.group)} ${node.group} ${before.has(node) ? isBefore : ""}`,
    );
    this.#segments = [
      ...segments.filter(({ place }) => place.endsWith(isBefore)),
      ...segments.filter(({ place }) => !place.endsWith(isBefore)),
    ];
    for (const { output, group } of [...gradients, ...lossMaker(item)]) {
      this.#makers.set(
        update.inputs.findIndex(({ name }) => name === output),
        placement.deviceOf(placement.stageOf(group)),
      );
    }
    for (const segment of this.#segments) {
      const device = this.#deviceOf(segment);
      for (const value of segment.outputs) this.#makers.set(value, device);
      for (const value of segment.inputs) this.#addUser(value, device);
    }
    if (this.#scale !== undefined)
      for (const device of this.#guardedDevices()) this.#addUser(this.#scale, device);
  }

  write(): void {
    for (const value of this.#update.inputs.keys()) this.#send(value);
    for (const segment of this.#segments) {
      this.#run(segment);
      for (const value of segment.outputs) this.#send(value);
    }
    this.#sendCopies();
    for (const device of this.#guardedDevices()) this.#guard(this.#writers[device] as DeviceWriter);
  }

  /** Devices that change anything that lasts: they update parameters, hold copies of them, or have kept statistics. */
  #guardedDevices(): ReadonlySet<number> {
    const updating = this.#segments.flatMap((segment) =>
      segment.place.endsWith(isBefore) ? [] : [this.#deviceOf(segment)],
    );
    const copying = this.#copies().map(({ holder }) => holder.device);
    const counting = this.#own.filter((writer) => writer.holds("statistic")).map(({ device }) => device);
    return new Set([...updating, ...copying, ...counting]);
  }

  /** The writers of this replica. */
  get #own(): readonly DeviceWriter[] {
    return this.#writers.filter(({ device }) => this.#placement.schedule[device]?.length !== 0);
  }

  #addUser(value: ValueId, device: number): void {
    this.#users.set(value, (this.#users.get(value) ?? new Set<number>()).add(device));
  }

  #run(segment: Segment): void {
    const device = this.#deviceOf(segment);
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
      stage: this.#placement.stageOf(segment.group),
      group: segment.group,
    });
  }

  /** The buffer of a value, received if it is made elsewhere. */
  #input(writer: DeviceWriter, value: ValueId): number {
    const from = this.#makers.get(value);
    const spec = this.#specOf(value, writer.device);
    const buffer = writer.buffer(spec);
    if (from !== undefined && from !== writer.device)
      this.#mail.receive(from, writer.device, buffer, spec.name);
    return buffer;
  }

  /** Nothing after this changes what lasts unless the gradient is finite. */
  #guard(writer: DeviceWriter): void {
    if (this.#scale === undefined || this.#guarded.has(writer.device)) return;
    this.#guarded.add(writer.device);
    writer.add({ kind: "guard", buffer: this.#input(writer, this.#scale) });
  }

  /** Where a result goes: the lasting tensors it renews, and a buffer of its own if another segment uses it. */
  #targets(writer: DeviceWriter, value: ValueId, position: number): Target[] {
    const type = this.#update.types[value] as TensorType;
    const lasting = this.#update.outputs.flatMap((output): BufferSpec[] => {
      if (output.value !== value) return [];
      const input = this.#update.inputs.find(({ name }) => name === output.name);
      if (input !== undefined) return [{ name: output.name, type, kind: kindOf(input) }];
      return output.name === normOutput ? [{ name: output.name, type, kind: "result" }] : [];
    });
    const own = this.#users.has(value) ? [this.#specOf(value, writer.device)] : [];
    return [...own, ...lasting].map((spec) => ({ position, buffer: writer.buffer(spec), accumulate: false }));
  }

  /** Sends a value from where it is made to every other device that uses it. */
  #send(value: ValueId): void {
    const from = this.#makers.get(value);
    if (from === undefined) return;
    const spec = this.#specOf(value, from);
    for (const to of this.#users.get(value) ?? []) {
      if (to !== from)
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
    return this.#update.outputs.flatMap(({ name, value }): Copy[] => {
      const owner = this.#writers[this.#makers.get(value) ?? -1];
      const isParameter = this.#update.inputs.some(
        (input) => input.name === name && input.role === "parameter",
      );
      if (owner === undefined || !isParameter) return [];
      const spec: BufferSpec = { name, type: this.#update.types[value] as TensorType, kind: "parameter" };
      const holders = this.#own.filter((writer) => writer !== owner && writer.has(name));
      return holders.map((holder) => ({ spec, owner, holder }));
    });
  }

  /** The loss is a result of the device that computes it, and passes through others. */
  #specOf(value: ValueId, device: number): BufferSpec {
    const type = this.#update.types[value] as TensorType;
    const input = this.#update.inputs[value];
    if (input === undefined) return { name: `U%${value}`, type, kind: "activation" };
    const { name } = input;
    if (name !== lossOutput) return { name, type, kind: kindOf(input) };
    return { name, type, kind: this.#makers.get(value) === device ? "result" : "activation" };
  }

  #deviceOf(segment: Segment): number {
    return this.#placement.deviceOf(this.#placement.stageOf(segment.group));
  }
}

/** The nodes that `value` depends on. */
function ancestorsOf(graph: Graph, value: ValueId | undefined): ReadonlySet<Node> {
  const needed = new Set(value === undefined ? [] : [value]);
  const nodes = graph.nodes.toReversed().filter((node) => {
    const isNeeded = node.outputs.some((output) => needed.has(output));
    if (isNeeded) for (const operand of node.inputs) needed.add(operand);
    return isNeeded;
  });
  return new Set(nodes);
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
