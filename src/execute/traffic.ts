/**
 * What all transfers of one device have in common: a started transfer is queued in its lane (a channel end or
 * a group), every wait advances all lanes, and a wait ends by completion, deadline, abort or a peer that left.
 *
 *     wait ──► attempt: aborted? ── advance all lanes ── mine done? ──► return
 *                 ▲                                        │ no
 *                 └──────────── bell rung ◄── sleep ◄──────┘
 */
import { Chain, type Link } from "./chain.ts";
import { type MailboxLayout, rankWordAt, readAbort } from "./mailbox-layout.ts";
import { type SlotTransfer, TransportAborted, TransportTimeout } from "./transport.ts";

/** Ends a check that failed. Messages take the `if` form so that its text is made only when it is needed. */
export function fault(text: string): never {
  throw new Error(`internal: ${text}`);
}

/** Something to try again whenever the device's bell rings. */
export interface Attempt {
  /** True when there is nothing left to wait for; throws when it never will be. */
  attempt(): boolean;
}

/** How a device sleeps until another one has news for it; each device has one bell in control memory. */
export interface Bell {
  /** Repeats `attempt` at every ring until it is true; false when `seconds` passed first. */
  wait(rank: number, attempt: Attempt, seconds: number): boolean | Promise<boolean>;
  /** Tells a device that something changed. */
  ring(rank: number): void;
}

/** A queue of started transfers that complete in order. */
export interface Lane extends Link<Lane> {
  /** Completes what can be completed now; true while transfers remain. */
  advance(): boolean;
}

/** The shared state of one device's transfers. */
export class Traffic {
  readonly rank: number;
  readonly layout: MailboxLayout;
  readonly control: Int32Array;
  readonly bell: Bell;
  /** Lanes with unfinished transfers. */
  readonly #active: Chain<Lane> = new Chain();
  #closed = false;

  constructor(rank: number, layout: MailboxLayout, control: Int32Array, bell: Bell) {
    this.rank = rank;
    this.layout = layout;
    this.control = control;
    this.bell = bell;
  }

  /** Throws when the run has been ended or this device has left. */
  check(): void {
    if (Atomics.load(this.control, 0) > 0) {
      const abort = readAbort(this.control);
      if (abort) throw new TransportAborted(abort.culprit, abort.reason);
    }
    if (this.#closed) fault(`device ${this.rank} uses its transport after close`);
  }

  /** Has `lane` advanced by every wait of this device until it is empty. */
  activate(lane: Lane): void {
    this.#active.push(lane);
  }

  /** Advances every lane that has unfinished transfers, each once. */
  progress(): void {
    for (let left = this.#active.length; left > 0; left--) {
      const lane = this.#active.shift();
      if (lane?.advance()) this.#active.push(lane);
    }
  }

  hasLeft(rank: number): boolean {
    return Atomics.load(this.control, rankWordAt(this.layout, rank, "left")) !== 0;
  }

  leave(): void {
    if (this.#closed) return;
    this.#closed = true;
    Atomics.store(this.control, rankWordAt(this.layout, this.rank, "left"), 1);
    this.ringAll();
  }

  ringAll(): void {
    for (let rank = 0; rank < this.layout.plan.size; rank++) this.bell.ring(rank);
  }
}

/** A started transfer; `done` is set by its lane. Objects are pooled: `retire` gives them back. */
export abstract class Pending implements SlotTransfer, Attempt {
  slot = 0;
  done = false;
  label = "";
  protected readonly traffic: Traffic;

  constructor(traffic: Traffic) {
    this.traffic = traffic;
  }

  /** What is waited for, as the end of a sentence. */
  protected abstract describe(): string;
  /** Devices whose move it is. */
  protected abstract awaited(): readonly number[];
  /** One of the awaited devices that has left, or -1. */
  protected abstract departed(): number;
  /** Makes the object available for the next transfer. */
  protected abstract retire(): void;

  attempt(): boolean {
    this.traffic.check();
    if (this.done) return true;
    const departed = this.departed();
    this.traffic.progress();
    if (this.done || departed < 0) return this.done;
    throw new TransportAborted(
      departed,
      `it left while device ${this.traffic.rank} waited: ${this.describe()}`,
    );
  }

  poll(): boolean {
    return this.attempt();
  }

  wait(seconds: number): void | Promise<void> {
    if (this.attempt()) return this.retire();
    const complete = this.traffic.bell.wait(this.traffic.rank, this, seconds);
    if (typeof complete === "boolean") return this.#finish(complete, seconds);
    return complete.then((value) => this.#finish(value, seconds));
  }

  #finish(complete: boolean, seconds: number): void {
    if (!complete) throw new TransportTimeout(this.traffic.rank, this.awaited(), seconds, this.describe());
    this.retire();
  }
}
