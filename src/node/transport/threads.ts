/**
 * The transport between worker threads of one process: a mailbox in shared memory. A waiting device spins
 * for some microseconds, as waking a sleeping thread costs 5 to 30 us, and then sleeps in `Atomics.wait`.
 * Where spinning does not help (long waits, or the peer needs this processor) it is soon left out.
 *
 *     coordinator                        worker of device r
 *     createThreadWorld(plan) ─ workerData ─► joinThreadWorld(world, r) ─► Transport
 *     worker died: abortThreadWorld(world, r, why) ─► every wait throws
 */
import { availableParallelism } from "node:os";
import type { AddFloats } from "../../execute/group-member.ts";
import { Mailbox } from "../../execute/mailbox.ts";
import {
  layOutMailbox,
  type MailboxLayout,
  rankWordAt,
  readAbort,
  writeAbort,
} from "../../execute/mailbox-layout.ts";
import type { Attempt, Bell } from "../../execute/traffic.ts";
import type { Transport, TransportPlan } from "../../execute/transport.ts";
import { loadAlias } from "./alias.ts";
import { allocateSharedMemory, type SharedMemory, sharedAdd } from "./shared-add.ts";

/** How the devices of a world wait and share. */
export interface ThreadWorldOptions {
  /**
   * Microseconds that a wait spins before it sleeps; default 100, or 0 when there are more devices than
   * processors, because a spinning thread then keeps the one it waits for from running.
   */
  readonly spinMicroseconds?: number;
  /** Whether kernels may work on shared slots; default: where the platform can do it. */
  readonly direct?: boolean;
}

/** What all threads of a run share; plain data that travels by `workerData` or `postMessage`. */
export interface ThreadWorld {
  readonly plan: TransportPlan;
  readonly control: SharedArrayBuffer;
  /** One per channel, then one per group; those of groups can be calculated on. */
  readonly blocks: readonly (SharedArrayBuffer | SharedMemory)[];
  readonly spinMicroseconds: number;
  readonly direct: boolean;
}

/** Allocates the shared memory of a run, all zero; a faulty plan is refused with all its problems. */
export function createThreadWorld(plan: TransportPlan, options: ThreadWorldOptions = {}): ThreadWorld {
  const layout = layOutMailbox(plan);
  const enoughProcessors = plan.size <= availableParallelism();
  return {
    plan,
    control: new SharedArrayBuffer(4 * layout.controlWords),
    blocks: layout.blockBytes.map((bytes, block) =>
      block < plan.channels.length
        ? new SharedArrayBuffer(bytes)
        : (allocateSharedMemory(bytes) ?? new SharedArrayBuffer(bytes)),
    ),
    spinMicroseconds: options.spinMicroseconds ?? (enoughProcessors ? 100 : 0),
    direct: (options.direct ?? true) && loadAlias() !== undefined,
  };
}

/** The transport of device `rank`, to be used in one thread only; its waits block that thread. */
export function joinThreadWorld(world: ThreadWorld, rank: number): Transport {
  const layout = layOutMailbox(world.plan);
  const control = new Int32Array(world.control);
  const bell = new ThreadBell(layout, control, world.spinMicroseconds);
  const alias = world.direct ? loadAlias() : undefined;
  const open = (block: number): Uint8Array => {
    const memory = bufferOf(world.blocks[block]);
    return new Uint8Array(alias ? alias(memory) : memory);
  };
  const add = (block: number): AddFloats | undefined => {
    const memory = world.blocks[block];
    return memory && "buffer" in memory ? sharedAdd(memory) : undefined;
  };
  return new Mailbox({ rank, layout, control, bell, direct: alias !== undefined, open, add });
}

function bufferOf(block: SharedArrayBuffer | SharedMemory | undefined): SharedArrayBuffer {
  if (!block) return new SharedArrayBuffer(0);
  return "buffer" in block ? block.buffer : block;
}

/** Ends the run in the name of a device that cannot do so itself; from any thread, never blocks. */
export function abortThreadWorld(world: ThreadWorld, culprit: number, reason: string): void {
  const layout = layOutMailbox(world.plan);
  const control = new Int32Array(world.control);
  writeAbort(control, culprit, reason);
  const bell = new ThreadBell(layout, control, 0);
  for (let rank = 0; rank < world.plan.size; rank++) bell.ring(rank);
}

/** Which device ended the run first, and why; undefined when none did. */
export function threadWorldAbort(
  world: ThreadWorld,
): { readonly culprit: number; readonly reason: string } | undefined {
  return readAbort(new Int32Array(world.control));
}

/**
 * A bell is a counter; a sleeper waits for it to change. Ringing somebody awake costs one addition: the
 * `asleep` flag is set before the counter is compared, so either the ringer sees it or the sleep ends at once.
 */
class ThreadBell implements Bell {
  readonly #layout: MailboxLayout;
  readonly #control: Int32Array;
  readonly #spinMilliseconds: number;
  /** Waits that will not spin, and how many it will be after the next spin in vain. */
  #pause = 0;
  #nextPause = 1;

  constructor(layout: MailboxLayout, control: Int32Array, spinMicroseconds: number) {
    this.#layout = layout;
    this.#control = control;
    this.#spinMilliseconds = spinMicroseconds / 1000;
  }

  wait(rank: number, attempt: Attempt, seconds: number): boolean {
    const end = performance.now() + 1000 * seconds;
    if (this.#spinOrPause(rank, attempt)) return true;
    const control = this.#control;
    const bell = rankWordAt(this.#layout, rank, "bell");
    const asleep = rankWordAt(this.#layout, rank, "asleep");
    for (;;) {
      const seen = Atomics.load(control, bell);
      if (attempt.attempt()) return true;
      const left = end - performance.now();
      if (left <= 0) return false;
      Atomics.store(control, asleep, 1);
      Atomics.wait(control, bell, seen, left);
      Atomics.store(control, asleep, 0);
    }
  }

  ring(rank: number): void {
    const bell = rankWordAt(this.#layout, rank, "bell");
    Atomics.add(this.#control, bell, 1);
    if (Atomics.load(this.#control, rankWordAt(this.#layout, rank, "asleep")) !== 0) {
      Atomics.notify(this.#control, bell);
    }
  }

  /** Spins, but after a spin in vain not for 1, 2, 4 ... 32 waits; one that helps starts this anew. */
  #spinOrPause(rank: number, attempt: Attempt): boolean {
    if (this.#spinMilliseconds === 0) return false;
    if (this.#pause > 0) {
      this.#pause -= 1;
      return false;
    }
    const helped = this.#spin(rank, attempt);
    this.#pause = helped ? 0 : this.#nextPause;
    this.#nextPause = helped ? 1 : Math.min(32, 2 * this.#nextPause);
    return helped;
  }

  /** Watches the bell for the time that a spin may take; the clock is read once per 32 looks. */
  #spin(rank: number, attempt: Attempt): boolean {
    const bell = rankWordAt(this.#layout, rank, "bell");
    const end = performance.now() + this.#spinMilliseconds;
    let seen = Atomics.load(this.#control, bell);
    if (attempt.attempt()) return true;
    do {
      for (let look = 0; look < 32; look++) {
        const now = Atomics.load(this.#control, bell);
        if (now === seen) continue;
        seen = now;
        if (attempt.attempt()) return true;
      }
    } while (performance.now() < end);
    return false;
  }
}
