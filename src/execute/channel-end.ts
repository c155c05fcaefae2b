/**
 * The two ends of a channel: a ring of slots, each with one control word, `length + 1` when a message lies in
 * it and 0 when it is free. The sender turns 0 into a length, the receiver a length into 0, nobody else
 * writes it, so no lock is needed and messages cannot overtake each other.
 *
 *     sender    slot 0 | 1 | 0 | 1 ...    waits until the word of its next slot is 0
 *     receiver  slot 0 | 1 | 0 | 1 ...    waits until the word of its next slot is not 0
 */
import { Chain, type Link } from "./chain.ts";
import { slotCount, slotStride, slotWordAt } from "./mailbox-layout.ts";
import { fault, type Lane, Pending, type Traffic } from "./traffic.ts";
import { type ChannelPlan, type Inlet, nameMessage, type Outlet, type SlotTransfer } from "./transport.ts";

/** Shared memory of one channel as this device sees it. */
export interface ChannelMemory {
  /** Position in the plan. */
  readonly index: number;
  readonly plan: ChannelPlan;
  /** All slots. */
  readonly bytes: Uint8Array;
  /** True when kernels may work on `bytes` themselves. */
  readonly direct: boolean;
}

/** A message being sent or received, or a slot being acquired (`data` undefined). */
class Message extends Pending implements Link<Message> {
  after: Message | undefined = undefined;
  bytes = 0;
  data: Uint8Array | undefined;
  readonly #end: ChannelEnd;

  constructor(traffic: Traffic, end: ChannelEnd) {
    super(traffic);
    this.#end = end;
  }

  protected override describe(): string {
    return this.#end.describe(this);
  }

  protected override awaited(): readonly number[] {
    return [this.#end.peer];
  }

  protected override departed(): number {
    return this.traffic.hasLeft(this.#end.peer) ? this.#end.peer : -1;
  }

  protected override retire(): void {
    this.data = undefined;
    this.#end.recycle(this);
  }
}

abstract class ChannelEnd implements Lane {
  after: Lane | undefined = undefined;
  readonly slots: number;
  readonly direct: boolean;
  readonly peer: number;
  protected readonly plan: ChannelPlan;
  protected readonly traffic: Traffic;
  /** Shared memory by slot. */
  protected readonly shared: readonly Uint8Array[];
  /** Slots that the caller holds between acquire and publish, or arrive and release. */
  protected readonly held: boolean[];
  readonly #private: Uint8Array[] = [];
  readonly #cut: Uint8Array[];
  readonly #words: readonly number[];
  readonly #queue: Chain<Message> = new Chain();
  readonly #spare: Chain<Message> = new Chain();
  readonly #label: string;
  #next = 0;

  constructor(traffic: Traffic, memory: ChannelMemory, peer: number) {
    this.traffic = traffic;
    this.plan = memory.plan;
    this.direct = memory.direct;
    this.#label = memory.plan.label ?? `tag ${memory.plan.tag}`;
    this.peer = peer;
    this.slots = slotCount(memory.plan);
    const slots = Array.from({ length: this.slots }, (_, slot) => slot);
    const stride = slotStride(memory.plan);
    this.shared = slots.map((slot) =>
      memory.bytes.subarray(slot * stride, slot * stride + memory.plan.bytes),
    );
    this.#cut = [...this.shared];
    this.#words = slots.map((slot) => slotWordAt(traffic.layout, memory.index, slot));
    this.held = slots.map(() => false);
  }

  abstract describe(message: Message): string;

  /** Completes the oldest message if its slot allows it. */
  protected abstract complete(message: Message, word: number): boolean;

  buffer(slot: number): Uint8Array {
    const shared = this.shared[slot];
    if (!shared) fault(`${this.name()} has no slot ${slot}`);
    if (this.direct) return shared;
    const own = this.#private[slot] ?? new Uint8Array(this.plan.bytes);
    this.#private[slot] = own;
    return own;
  }

  advance(): boolean {
    for (let message = this.#queue.first; message; message = this.#queue.first) {
      const word = Atomics.load(this.traffic.control, this.#words[message.slot] ?? 0);
      if (this.held[message.slot] || !this.complete(message, word)) return true;
      message.done = true;
      this.#queue.shift();
    }
    return false;
  }

  recycle(message: Message): void {
    this.#spare.push(message);
  }

  protected start(data: Uint8Array | undefined, bytes: number, label: string | undefined): SlotTransfer {
    this.traffic.check();
    if (bytes > this.plan.bytes) {
      fault(`${this.name()} was declared for at most ${this.plan.bytes} B, got ${bytes} B`);
    }
    const message = this.#spare.shift() ?? new Message(this.traffic, this);
    message.slot = this.#next;
    message.done = false;
    message.data = data;
    message.bytes = bytes;
    message.label = label ?? this.#label;
    this.#next = (this.#next + 1) % this.slots;
    this.#queue.push(message);
    if (this.#queue.length === 1 && this.advance()) this.traffic.activate(this);
    return message;
  }

  /** Ends the hold on a slot and tells the peer its new state. */
  protected handOver(slot: number, word: number): void {
    Atomics.store(this.traffic.control, this.#words[slot] ?? 0, word);
    this.traffic.bell.ring(this.peer);
  }

  /** The first `bytes` of a shared slot; the view is kept, as lengths rarely change. */
  protected cut(slot: number, bytes: number): Uint8Array {
    const kept = this.#cut[slot];
    if (kept?.length === bytes) return kept;
    const fresh = (this.shared[slot] ?? new Uint8Array(0)).subarray(0, bytes);
    this.#cut[slot] = fresh;
    return fresh;
  }

  protected name(): string {
    const { from, to, tag } = this.plan;
    return `channel ${from} -> ${to} tag ${tag}`;
  }
}

/** The sending end. */
export class SendingEnd extends ChannelEnd implements Outlet {
  constructor(traffic: Traffic, memory: ChannelMemory) {
    super(traffic, memory, memory.plan.to);
  }

  send(data: Uint8Array, label?: string): SlotTransfer {
    return this.start(data, data.length, label);
  }

  acquire(label?: string): SlotTransfer {
    return this.start(undefined, this.plan.bytes, label);
  }

  publish(slot: number, bytes: number): void {
    if (!this.held[slot]) fault(`${this.name()}: slot ${slot} is published but not acquired`);
    if (bytes > this.plan.bytes) fault(`${this.name()}: ${bytes} B do not fit ${this.plan.bytes} B`);
    if (!this.direct) this.cut(slot, bytes).set(this.buffer(slot).subarray(0, bytes));
    this.held[slot] = false;
    this.handOver(slot, bytes + 1);
  }

  protected override complete(message: Message, word: number): boolean {
    if (word !== 0) return false;
    if (message.data === undefined) {
      this.held[message.slot] = true;
      return true;
    }
    this.shared[message.slot]?.set(message.data);
    this.handOver(message.slot, message.data.length + 1);
    return true;
  }

  override describe(message: Message): string {
    const which = this.slots === 1 ? "its only slot is" : `all ${this.slots} slots are`;
    return `message ${nameMessage(message.label, message.bytes)} could not be sent, ${which} unread`;
  }
}

/** The receiving end. */
export class ReceivingEnd extends ChannelEnd implements Inlet {
  constructor(traffic: Traffic, memory: ChannelMemory) {
    super(traffic, memory, memory.plan.from);
  }

  receive(into: Uint8Array, label?: string): SlotTransfer {
    return this.start(into, into.length, label);
  }

  arrive(bytes: number, label?: string): SlotTransfer {
    return this.start(undefined, bytes, label);
  }

  release(slot: number): void {
    if (!this.held[slot]) fault(`${this.name()}: slot ${slot} is released but did not arrive`);
    this.held[slot] = false;
    this.handOver(slot, 0);
  }

  protected override complete(message: Message, word: number): boolean {
    if (word === 0) return false;
    const bytes = word - 1;
    if (bytes !== message.bytes) {
      fault(`${this.name()}: message ${nameMessage(message.label, message.bytes)} came with ${bytes} B`);
    }
    const shared = this.cut(message.slot, bytes);
    if (message.data) {
      message.data.set(shared);
      this.handOver(message.slot, 0);
    } else {
      this.held[message.slot] = true;
      if (!this.direct) this.buffer(message.slot).set(shared);
    }
    return true;
  }

  override describe(message: Message): string {
    return `message ${nameMessage(message.label, message.bytes)} never came`;
  }
}
