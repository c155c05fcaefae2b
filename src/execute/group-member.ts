/**
 * One device's view of a group: starts collectives, and moves the oldest one on whenever all members have
 * met. Members meet by counting arrivals: each has a counter that only it writes, and has met the others when
 * all counters have reached its own.
 */
import { Chain, type Link } from "./chain.ts";
import type { Steps, Workspace } from "./collective.ts";
import { type CollectiveCall, type CollectiveKind, collectiveKinds, collectiveSteps } from "./collective.ts";
import { memberStride, memberWord, memberWordAt, pieceOffset, pieceStride } from "./mailbox-layout.ts";
import { combine } from "./reduction.ts";
import { fault, type Lane, Pending, type Traffic } from "./traffic.ts";
import {
  type Group,
  type GroupPlan,
  type Numbers,
  nameMessage,
  type Reduction,
  type Transfer,
} from "./transport.ts";

/** Shared memory of one group as this device sees it. */
export interface GroupMemory {
  /** Position among the plan's groups. */
  readonly index: number;
  readonly plan: GroupPlan;
  /** The shares of all members. */
  readonly bytes: Uint8Array;
  /** True when kernels may work on `bytes` themselves. */
  readonly direct: boolean;
  /** Adds `count` floats at byte `from` of `bytes` to those at byte `into`, if there is a fast way. */
  readonly add: AddFloats | undefined;
}

/** `into` and `from` are byte positions in one block of shared memory. */
export type AddFloats = (into: number, from: number, count: number) => void;

const noBytes = new Uint8Array(0);
const noNumbers = new Float32Array(0);

/** A collective under way. */
class Collective extends Pending implements CollectiveCall, Link<Collective> {
  after: Collective | undefined = undefined;
  kind: CollectiveKind = "barrier";
  data: Uint8Array = noBytes;
  into: Uint8Array = noBytes;
  values: Numbers = noNumbers;
  result: Numbers = noNumbers;
  counts: readonly number[] = [];
  matrix: readonly (readonly number[])[] = [];
  root = 0;
  reduction: Reduction = "sum";
  piece = 0;
  pieces = 0;
  /** Bytes that all members must agree on. */
  bytes = 0;
  /** Offset in the region that all members must agree on. */
  offset = 0;
  next: "load" | "combine" | "store" = "load";
  readonly #member: GroupMember;

  constructor(traffic: Traffic, member: GroupMember) {
    super(traffic);
    this.#member = member;
  }

  protected override describe(): string {
    const { plan } = this.#member;
    const group = `group ${plan.label ?? plan.id} of ${plan.ranks.length}`;
    return `${this.kind} ${nameMessage(this.label, this.bytes)} in ${group} was not joined`;
  }

  protected override awaited(): readonly number[] {
    return this.#member.missing();
  }

  protected override departed(): number {
    return this.#member.missingDeparted();
  }

  protected override retire(): void {
    this.data = noBytes;
    this.into = noBytes;
    this.values = noNumbers;
    this.result = noNumbers;
    this.#member.recycle(this);
  }
}

/** A group as one of its members uses it. */
export class GroupMember implements Group, Lane, Workspace {
  after: Lane | undefined = undefined;
  readonly plan: GroupPlan;
  readonly ranks: readonly number[];
  readonly index: number;
  readonly members: number;
  readonly region: Uint8Array;
  readonly pieceBytes: number;
  readonly #traffic: Traffic;
  readonly #direct: boolean;
  readonly #add: AddFloats | undefined;
  readonly #words: readonly number[];
  readonly #regions: readonly Uint8Array[];
  /** By parity, then member. */
  readonly #staging: readonly (readonly StagingViews[])[];
  readonly #queue: Chain<Collective> = new Chain();
  readonly #spare: Chain<Collective> = new Chain();
  readonly #label: string;
  #arrivals = 0;
  #parity = 0;

  constructor(traffic: Traffic, memory: GroupMemory) {
    const { plan, bytes } = memory;
    this.plan = plan;
    this.#label = plan.label ?? `group ${plan.id}`;
    this.ranks = plan.ranks;
    this.members = plan.ranks.length;
    this.index = plan.ranks.indexOf(traffic.rank);
    this.pieceBytes = pieceStride(plan);
    this.#traffic = traffic;
    this.#direct = memory.direct;
    this.#add = memory.add;
    this.#words = plan.ranks.map((_, member) => memberWordAt(traffic.layout, memory.index, member));
    const stride = memberStride(plan);
    const share = (member: number, offset: number, length: number): Uint8Array =>
      bytes.subarray(member * stride + offset, member * stride + offset + length);
    this.#regions = plan.ranks.map((_, member) => share(member, 0, plan.regionBytes ?? 0));
    this.#staging = [0, 1].map((parity) =>
      plan.ranks.map((_, member) => stagingViews(share(member, pieceOffset(plan, parity), this.pieceBytes))),
    );
    const own = this.#regions[this.index] ?? noBytes;
    this.region = memory.direct ? own : new Uint8Array(own.length);
  }

  barrier(label?: string): Transfer {
    const call = this.#prepare("barrier", label);
    return this.#start(call, 0);
  }

  broadcast(root: number, data: Uint8Array, label?: string): Transfer {
    const call = this.#prepare("broadcast", label);
    call.root = root;
    call.data = data;
    return this.#start(call, data.length);
  }

  allReduce(data: Numbers, reduction: Reduction, label?: string): Transfer {
    const call = this.#prepareOver("all-reduce", data, label);
    call.values = data;
    call.reduction = reduction;
    return this.#start(call, data.byteLength);
  }

  reduceScatter(
    data: Numbers,
    counts: readonly number[],
    into: Numbers,
    reduction: Reduction,
    label?: string,
  ): Transfer {
    const call = this.#prepareOver("reduce-scatter", data, label);
    this.#expect(call, "counts", counts.length, this.members);
    this.#expect(call, "elements", data.length, sum(counts));
    this.#expect(call, "elements of the result", into.length, counts[this.index] ?? 0);
    this.#expect(call, "bytes per element", into.BYTES_PER_ELEMENT, data.BYTES_PER_ELEMENT);
    call.values = data;
    call.counts = counts;
    call.result = into;
    call.reduction = reduction;
    return this.#start(call, data.byteLength);
  }

  allGather(data: Uint8Array, bytes: readonly number[], into: Uint8Array, label?: string): Transfer {
    const call = this.#prepareOver("all-gather", into, label);
    this.#expect(call, "counts", bytes.length, this.members);
    this.#expect(call, "bytes", data.length, bytes[this.index] ?? 0);
    this.#expect(call, "bytes of the result", into.length, sum(bytes));
    call.data = data;
    call.counts = bytes;
    call.into = into;
    return this.#start(call, into.length);
  }

  allToAll(
    data: Uint8Array,
    bytes: readonly (readonly number[])[],
    into: Uint8Array,
    label?: string,
  ): Transfer {
    const call = this.#prepare("all-to-all", label);
    this.#expect(call, "rows", bytes.length, this.members);
    this.#expect(call, "bytes", data.length, sum(bytes[this.index] ?? []));
    this.#expect(call, "bytes of the result", into.length, sum(bytes.map((row) => row[this.index] ?? 0)));
    call.data = data;
    call.matrix = bytes;
    call.into = into;
    return this.#start(call, sum(bytes.map(sum)));
  }

  advance(): boolean {
    for (let call = this.#queue.first; call; call = this.#queue.first) {
      if (!this.#run(call, collectiveSteps[call.kind])) return true;
      call.done = true;
      this.#queue.shift();
    }
    return false;
  }

  recycle(call: Collective): void {
    this.#spare.push(call);
  }

  /** Devices that have not arrived where this one waits. */
  missing(): readonly number[] {
    return this.ranks.filter((_, member) => !this.#hasArrived(member));
  }

  /** A missing device that has left, or -1. */
  missingDeparted(): number {
    for (let member = 0; member < this.members; member++) {
      const rank = this.ranks[member] ?? -1;
      if (this.#traffic.hasLeft(rank) && !this.#hasArrived(member)) return rank;
    }
    return -1;
  }

  staging(member: number): Uint8Array {
    return this.#staging[this.#parity]?.[member]?.bytes ?? noBytes;
  }

  stagingNumbers(member: number, like: Numbers): Numbers {
    const views = this.#staging[this.#parity]?.[member];
    if (!views) return noNumbers;
    if (like instanceof Float32Array) return views.float32;
    return like instanceof Float64Array ? views.float64 : views.int32;
  }

  regionNumbers(member: number, values: Numbers): Numbers {
    const region = this.#regions[member] ?? noBytes;
    const offset = region.byteOffset + values.byteOffset - this.region.byteOffset;
    if (values instanceof Float32Array) return new Float32Array(region.buffer, offset, values.length);
    if (values instanceof Float64Array) return new Float64Array(region.buffer, offset, values.length);
    return new Int32Array(region.buffer, offset, values.length);
  }

  regionBytes(member: number, bytes: Uint8Array): Uint8Array {
    const region = this.#regions[member] ?? noBytes;
    const offset = region.byteOffset + bytes.byteOffset - this.region.byteOffset;
    return new Uint8Array(region.buffer, offset, bytes.length);
  }

  combine(reduction: Reduction, into: Numbers, from: Numbers, at: number, count: number): void {
    if (this.#add && reduction === "sum" && into instanceof Float32Array) {
      this.#add(into.byteOffset + 4 * at, from.byteOffset + 4 * at, count);
    } else {
      combine(reduction, into, from, at, count);
    }
  }

  /** A call over `whole`, which all members hold: in place where that lies in their regions. */
  #prepareOver(
    kind: "all-reduce" | "reduce-scatter" | "all-gather",
    whole: Numbers | Uint8Array,
    label: string | undefined,
  ): Collective {
    const offset = this.#offsetInRegion(whole);
    const call = this.#prepare(offset === undefined ? kind : `${kind} in place`, label);
    call.offset = offset ?? 0;
    return call;
  }

  /** Where in the own region an array lies; undefined where it does not. */
  #offsetInRegion({ buffer, byteOffset, byteLength }: Numbers | Uint8Array): number | undefined {
    const offset = byteOffset - this.region.byteOffset;
    const isInside =
      this.#direct &&
      byteLength > 0 &&
      buffer === this.region.buffer &&
      offset >= 0 &&
      offset + byteLength <= this.region.length;
    return isInside ? offset : undefined;
  }

  #prepare(kind: CollectiveKind, label: string | undefined): Collective {
    this.#traffic.check();
    const call = this.#spare.shift() ?? new Collective(this.#traffic, this);
    call.kind = kind;
    call.label = label ?? this.#label;
    call.done = false;
    call.next = "load";
    call.piece = 0;
    call.offset = 0;
    call.root = 0;
    return call;
  }

  #start(call: Collective, bytes: number): Transfer {
    call.bytes = bytes;
    call.pieces = collectiveSteps[call.kind].pieces(call, this);
    this.#queue.push(call);
    if (this.#queue.length === 1 && this.advance()) this.#traffic.activate(this);
    return call;
  }

  #expect(call: Collective, what: string, got: number, expected: number): void {
    if (got !== expected) fault(`${call.kind} "${call.label}": expected ${expected} ${what}, got ${got}`);
  }

  /** Goes on as far as the other members allow; true at the end. */
  #run(call: Collective, steps: Steps): boolean {
    while (call.piece < call.pieces) {
      if (call.next === "load") {
        steps.load?.(call, this);
        this.#announce(call);
        this.#arrive();
        call.next = steps.combine ? "combine" : "store";
      }
      if (!this.#haveAllArrived()) return false;
      this.#compare(call);
      if (call.next === "combine") {
        steps.combine?.(call, this);
        this.#arrive();
        call.next = "store";
        continue;
      }
      steps.store?.(call, this);
      call.next = "load";
      call.piece += 1;
      this.#parity = 1 - this.#parity;
    }
    return true;
  }

  #word(member: number, word: keyof typeof memberWord): number {
    const parity = word === "arrivals" ? 0 : this.#parity;
    return (this.#words[member] ?? 0) + memberWord[word] + parity;
  }

  #announce(call: Collective): void {
    const { control } = this.#traffic;
    control[this.#word(this.index, "kind")] = collectiveKinds.indexOf(call.kind) + 16 * call.root;
    control[this.#word(this.index, "bytes")] = call.bytes;
    control[this.#word(this.index, "offset")] = call.offset;
  }

  #arrive(): void {
    this.#arrivals = (this.#arrivals + 1) | 0;
    Atomics.store(this.#traffic.control, this.#word(this.index, "arrivals"), this.#arrivals);
    for (let member = 0; member < this.members; member++) {
      if (member !== this.index) this.#traffic.bell.ring(this.ranks[member] ?? 0);
    }
  }

  #hasArrived(member: number): boolean {
    const arrivals = Atomics.load(this.#traffic.control, this.#word(member, "arrivals"));
    return ((arrivals - this.#arrivals) | 0) >= 0;
  }

  #haveAllArrived(): boolean {
    for (let member = 0; member < this.members; member++) {
      if (!this.#hasArrived(member)) return false;
    }
    return true;
  }

  /** Refuses to go on when members have started different collectives. */
  #compare(call: Collective): void {
    const { control } = this.#traffic;
    for (let member = 0; member < this.members; member++) {
      const kind = control[this.#word(member, "kind")] ?? 0;
      const same =
        kind === collectiveKinds.indexOf(call.kind) + 16 * call.root &&
        control[this.#word(member, "bytes")] === (call.bytes | 0) &&
        control[this.#word(member, "offset")] === call.offset;
      if (same) continue;
      fault(
        `device ${this.#traffic.rank} started ${call.kind} ${nameMessage(call.label, call.bytes)}, ` +
          `device ${this.ranks[member]} ${collectiveKinds[kind % 16]} of ${control[this.#word(member, "bytes")]} B`,
      );
    }
  }
}

/** One staging piece as every kind of array. */
interface StagingViews {
  readonly bytes: Uint8Array;
  readonly float32: Float32Array;
  readonly float64: Float64Array;
  readonly int32: Int32Array;
}

function stagingViews(bytes: Uint8Array): StagingViews {
  const { buffer, byteOffset, length } = bytes;
  return {
    bytes,
    float32: new Float32Array(buffer, byteOffset, length / 4),
    float64: new Float64Array(buffer, byteOffset, length / 8),
    int32: new Int32Array(buffer, byteOffset, length / 4),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
