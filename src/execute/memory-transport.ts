/**
 * A transport whose devices all live in one thread: waits are promises. For tests and for the browser page;
 * the same mailbox as between threads, in ordinary memory.
 */

import { Mailbox } from "./mailbox.ts";
import { layOutMailbox, type MailboxLayout, rankWordAt } from "./mailbox-layout.ts";
import type { Attempt, Bell } from "./traffic.ts";
import type { Transport, TransportPlan } from "./transport.ts";

/** Runs `action` after some milliseconds; the returned function cancels it. `setTimeout` does it everywhere. */
export type Timer = (milliseconds: number, action: () => void) => () => void;

/** The transports of all devices of a plan, in order of rank. */
export function memoryTransports(plan: TransportPlan, timer: Timer): readonly Transport[] {
  const layout = layOutMailbox(plan);
  const control = new Int32Array(layout.controlWords);
  const blocks = layout.blockBytes.map((bytes) => new Uint8Array(bytes));
  const bell = new PromiseBell(layout, control, timer);
  return Array.from({ length: plan.size }, (_, rank) => {
    const open = (block: number): Uint8Array => blocks[block] ?? new Uint8Array(0);
    return new Mailbox({ rank, layout, control, bell, direct: true, open });
  });
}

/** A ring wakes the sleepers of its device by resolving their promises. */
class PromiseBell implements Bell {
  readonly #layout: MailboxLayout;
  readonly #control: Int32Array;
  readonly #timer: Timer;
  readonly #sleepers: readonly Set<() => void>[];

  constructor(layout: MailboxLayout, control: Int32Array, timer: Timer) {
    this.#layout = layout;
    this.#control = control;
    this.#timer = timer;
    this.#sleepers = Array.from({ length: layout.plan.size }, () => new Set());
  }

  async wait(rank: number, attempt: Attempt, seconds: number): Promise<boolean> {
    const end = performance.now() + 1000 * seconds;
    const bell = rankWordAt(this.#layout, rank, "bell");
    for (;;) {
      const seen = this.#control[bell];
      if (attempt.attempt()) return true;
      const left = end - performance.now();
      if (left <= 0) return false;
      if (seen === this.#control[bell]) await this.#sleep(rank, left);
    }
  }

  ring(rank: number): void {
    Atomics.add(this.#control, rankWordAt(this.#layout, rank, "bell"), 1);
    for (const wake of this.#sleepers[rank] ?? []) wake();
  }

  #sleep(rank: number, milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const sleepers = this.#sleepers[rank];
      const wake = (): void => {
        cancel();
        sleepers?.delete(wake);
        resolve();
      };
      const cancel = this.#timer(milliseconds, wake);
      sleepers?.add(wake);
    });
  }
}
