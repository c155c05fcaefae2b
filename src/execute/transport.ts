/**
 * How devices exchange bytes. One contract, several implementations (memory, threads, MPI); all pass
 * `test/execute/transport-conformance.ts`.
 *
 *     device 0                  channel (0, 1, tag)                    device 1
 *     send ── copy ──►  [ slot 0 ][ slot 1 ] ... FIFO  ── copy ──► receive
 *     acquire, kernel writes the slot, publish      arrive, kernel reads the slot, release
 *
 * Programs are static, so every channel and group is declared before the run and all memory exists before
 * the first message. A transfer is started, then waited for; between the two its buffer belongs to the
 * transport. While one wait blocks, all started transfers of the device make progress.
 * A peer that aborts or leaves wakes every wait. After any error from a wait, call `abort`: the run is over.
 * Reference: the point-to-point and collective chapters of the MPI standard, with sizes fixed in advance.
 */

/** One direction between two devices; messages of one channel arrive in the order they were started. */
export interface ChannelPlan {
  readonly from: number;
  readonly to: number;
  /** Small non-negative integer; (from, to, tag) names the channel. */
  readonly tag: number;
  /** Bytes of the largest message; shorter ones, also empty ones, are legal. */
  readonly bytes: number;
  /** Messages that may be under way before the sender has to wait; default 2. */
  readonly slots?: number;
  /** Name of the value that travels, for error messages. */
  readonly label?: string;
}

/** Devices that take part in collectives together; a device may be in many groups. */
export interface GroupPlan {
  /** Small non-negative integer that names the group. */
  readonly id: number;
  /** Members in the order in which reductions are evaluated; the position in this list is the member's index. */
  readonly ranks: readonly number[];
  /** Bytes of shared memory per member that kernels may use directly (`Group.region`); default 0. */
  readonly regionBytes?: number;
  /** Bytes per piece into which long collectives are cut; default 256 KiB. */
  readonly pieceBytes?: number;
  readonly label?: string;
}

/** Everything that the devices of a run will ever say to each other, apart from how often. */
export interface TransportPlan {
  /** Number of devices. */
  readonly size: number;
  readonly channels: readonly ChannelPlan[];
  readonly groups?: readonly GroupPlan[];
}

/**
 * Something under way. Wait for it exactly once; the object is reused afterwards, so keep no reference to it.
 * Implementations that block their thread return nothing from `wait`, others return a promise.
 */
export interface Transfer {
  /** Makes progress without blocking; true when `wait` would return at once. Throws as `wait` does. */
  poll(): boolean;
  /**
   * Returns when the transfer is complete and its buffer is the caller's again.
   * Throws `TransportTimeout` after `seconds`, `TransportAborted` when a device aborted or left.
   */
  wait(seconds: number): void | Promise<void>;
}

/** A transfer that hands over a slot; `slot` is known from the start, its memory is the caller's after `wait`. */
export interface SlotTransfer extends Transfer {
  readonly slot: number;
}

/** The sending end of a channel, for kernels that write their output where the receiver reads it. */
export interface Outlet {
  /** Number of slots; they are used in turn. */
  readonly slots: number;
  /** True when `buffer` is the shared slot itself, false when a copy is made on the way. */
  readonly direct: boolean;
  /** Memory of a slot, `bytes` of the plan long, on an ordinary ArrayBuffer; always the same object. */
  buffer(slot: number): Uint8Array;
  /** Starts waiting for the next slot to be free. */
  acquire(label?: string): SlotTransfer;
  /** Hands the first `bytes` of an acquired slot to the receiver; never waits. */
  publish(slot: number, bytes: number): void;
}

/** The receiving end of a channel, for kernels that read their input where the sender wrote it. */
export interface Inlet {
  readonly slots: number;
  readonly direct: boolean;
  /** Memory of a slot, `bytes` of the plan long, on an ordinary ArrayBuffer; always the same object. */
  buffer(slot: number): Uint8Array;
  /** Starts waiting for the next message, which must be `bytes` long. */
  arrive(bytes: number, label?: string): SlotTransfer;
  /** Gives an arrived slot back to the sender, in any order; its memory must not be touched afterwards. */
  release(slot: number): void;
}

/** Element-wise combination of the members' values, always evaluated in the order of `Group.ranks`. */
export type Reduction = "sum" | "max";

/** Arrays that reductions accept. */
export type Numbers = Float32Array | Float64Array | Int32Array;

/**
 * One member's view of a group. All members start the same collectives in the same order. Results are
 * bit-identical on all members and on every repeat, whatever the timing. Parts may be uneven or empty.
 */
export interface Group {
  readonly ranks: readonly number[];
  /** This device's position in `ranks`. */
  readonly index: number;
  /**
   * Own part of the shared memory, `regionBytes` long; what is reduced out of a view of it, or gathered into one, is not staged. If one
   * member's array is such a view, every member's must be, at the same offset.
   */
  readonly region: Uint8Array;
  /** Completes when every member has started it. */
  barrier(label?: string): Transfer;
  /** Copies `data` of the member with index `root` into `data` of all others; all of equal length. */
  broadcast(root: number, data: Uint8Array, label?: string): Transfer;
  /** Replaces `data` by the reduction over all members, each with equally many elements. */
  allReduce(data: Numbers, reduction: Reduction, label?: string): Transfer;
  /** `data` is the parts of all members in turn, `counts` elements each; `into` gets the reduction of the own part. */
  reduceScatter(
    data: Numbers,
    counts: readonly number[],
    into: Numbers,
    reduction: Reduction,
    label?: string,
  ): Transfer;
  /** `into` gets the parts of all members in turn, `bytes` each; `data` is the own part. */
  allGather(data: Uint8Array, bytes: readonly number[], into: Uint8Array, label?: string): Transfer;
  /** Member i sends `bytes[i][j]` to member j; `data` is the parts by receiver, `into` by sender. */
  allToAll(
    data: Uint8Array,
    bytes: readonly (readonly number[])[],
    into: Uint8Array,
    label?: string,
  ): Transfer;
}

/** One device's access to all others. */
export interface Transport extends Disposable {
  readonly rank: number;
  readonly size: number;
  /** Starts sending a copy of `data` on the channel (rank, to, tag); `label` names the message in errors. */
  send(to: number, tag: number, data: Uint8Array, label?: string): Transfer;
  /** Starts receiving a message of exactly `into.length` bytes from the channel (from, rank, tag). */
  receive(from: number, tag: number, into: Uint8Array, label?: string): Transfer;
  /** The sending end of the channel (rank, to, tag). */
  outlet(to: number, tag: number): Outlet;
  /** The receiving end of the channel (from, rank, tag). */
  inlet(from: number, tag: number): Inlet;
  /** This device's view of a group that it is a member of. */
  group(id: number): Group;
  /** Ends the run for all devices: every wait, now and later, throws `TransportAborted` with this reason. */
  abort(reason: string): void;
  /** Leaves in good order: what was sent still arrives, but whoever waits for more from this device is told. */
  close(): void;
}

/** A wait reached its deadline; the message says who waited for whom and for what. */
export class TransportTimeout extends Error {
  override readonly name: string = "TransportTimeout";
  /** The device that waited. */
  readonly rank: number;
  /** The devices it waited for. */
  readonly peers: readonly number[];
  /** How long it waited. */
  readonly seconds: number;

  constructor(rank: number, peers: readonly number[], seconds: number, what: string) {
    super(`device ${rank} waited ${seconds.toFixed(1)} s for ${nameDevices(peers)}: ${what}`);
    this.rank = rank;
    this.peers = peers;
    this.seconds = seconds;
  }
}

/** The run was ended by a device (`culprit`), by its own word or because it left or died. */
export class TransportAborted extends Error {
  override readonly name: string = "TransportAborted";
  readonly culprit: number;
  readonly reason: string;

  constructor(culprit: number, reason: string) {
    super(`device ${culprit} ended the run: ${reason}`);
    this.culprit = culprit;
    this.reason = reason;
  }
}

/** "device 1" or "devices 1, 2". */
function nameDevices(ranks: readonly number[]): string {
  return `${ranks.length === 1 ? "device" : "devices"} ${ranks.join(", ")}`;
}

/** A message's name and size as error messages show it: `"act:3 F item (0,2)" (64,000 B)`. */
export function nameMessage(label: string, bytes: number): string {
  return `"${label}" (${bytes.toLocaleString("en-US")} B)`;
}
