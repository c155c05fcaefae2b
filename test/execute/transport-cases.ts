/**
 * What each device does in the conformance cases. Kept free of the test runner, so that worker threads can
 * load it; every function returns plain data that the suite compares with its own expectation.
 */
import type { Group, Numbers, Reduction, Transfer, Transport } from "../../src/execute/transport.ts";

/** One device's part of a case. */
type DeviceCase = (transport: Transport, input: never) => Promise<unknown>;

/** Deadline of waits that are meant to succeed, in seconds. */
const patience = 10;

/** Content of byte `index` of message `message`: differs between messages and between neighbours. */
export function contentAt(message: number, index: number): number {
  return (Math.imul(message + 1, 2654435761) ^ Math.imul(index + 1, 40503)) & 255;
}

function fill(bytes: Uint8Array, message: number): Uint8Array {
  for (let index = 0; index < bytes.length; index++) bytes[index] = contentAt(message, index);
  return bytes;
}

function matches(bytes: Uint8Array, message: number): boolean {
  return bytes.every((value, index) => value === contentAt(message, index));
}

/** A planned message of the traffic case. */
export interface PlannedMessage {
  readonly from: number;
  readonly to: number;
  readonly tag: number;
  readonly bytes: number;
  /** How many started transfers the devices leave unfinished after this message. */
  readonly window: number;
}

/** A planned collective; parts by member. */
export interface PlannedCollective {
  readonly kind:
    | "barrier"
    | "broadcast"
    | "allReduce"
    | "allReduceRegion"
    | "reduceScatter"
    | "reduceScatterRegion"
    | "allGather"
    | "allGatherRegion"
    | "allToAll";
  readonly group: number;
  readonly seed: number;
  readonly counts: readonly number[];
  readonly root: number;
  readonly reduction: Reduction;
  readonly type: "f32" | "f64" | "i32";
}

/** Contribution of a member to a reduction: integers for i32, else of widely different size so that order shows. */
export function contribution(call: PlannedCollective, member: number, index: number): number {
  const hash = Math.imul(call.seed + 31 * member + 7, Math.imul(index + 3, 2246822519) | 1) >>> 8;
  if (call.type === "i32") return hash - 2 ** 23;
  return (hash / 2 ** 24 - 0.5) * 10 ** ((hash % 7) - 3);
}

export function numbers(type: PlannedCollective["type"], length: number): Numbers {
  if (type === "f32") return new Float32Array(length);
  return type === "f64" ? new Float64Array(length) : new Int32Array(length);
}

/** Bytes that member `from` sends to member `to` in an all-to-all. */
export function pairBytes(call: PlannedCollective, from: number, to: number): number {
  return ((call.counts[from] ?? 0) * (to + 1) + from) % 200;
}

async function runCollective(group: Group, call: PlannedCollective): Promise<readonly number[]> {
  const { index, ranks } = group;
  const total = call.counts.reduce((sum, count) => sum + count, 0);
  const own = call.counts[index] ?? 0;
  const values = (count: number, array = numbers(call.type, count)): Numbers => {
    for (let i = 0; i < count; i++) array[i] = contribution(call, index, i);
    return array;
  };
  switch (call.kind) {
    case "barrier":
      await group.barrier().wait(patience);
      return [];
    case "broadcast": {
      const data = new Uint8Array(total);
      if (index === call.root) fill(data, call.seed);
      await group.broadcast(call.root, data).wait(patience);
      return [...data];
    }
    case "allReduce": {
      const data = values(total);
      await group.allReduce(data, call.reduction).wait(patience);
      return [...data];
    }
    case "allReduceRegion": {
      const { buffer, byteOffset } = group.region;
      const data = values(total, new Float32Array(buffer, byteOffset + 16, total));
      await group.allReduce(data, call.reduction).wait(patience);
      return [...data];
    }
    case "reduceScatter": {
      const into = numbers(call.type, own);
      await group.reduceScatter(values(total), call.counts, into, call.reduction).wait(patience);
      return [...into];
    }
    case "reduceScatterRegion": {
      const { buffer, byteOffset } = group.region;
      const data = values(total, new Float32Array(buffer, byteOffset + 32, total));
      const into = new Float32Array(own);
      await group.reduceScatter(data, call.counts, into, call.reduction).wait(patience);
      return [...into];
    }
    case "allGatherRegion": {
      const { buffer, byteOffset } = group.region;
      const into = new Uint8Array(buffer, byteOffset + 48, total);
      const data = fill(new Uint8Array(own), call.seed + index);
      await group.allGather(data, call.counts, into).wait(patience);
      return [...into];
    }
    case "allGather": {
      const into = new Uint8Array(total);
      const data = fill(new Uint8Array(own), call.seed + index);
      await group.allGather(data, call.counts, into).wait(patience);
      return [...into];
    }
    case "allToAll": {
      const matrix = ranks.map((_, from) => ranks.map((__, to) => pairBytes(call, from, to)));
      const parts = ranks.map((_, to) => fill(new Uint8Array(pairBytes(call, index, to)), index * 8 + to));
      const data = new Uint8Array(parts.flatMap((part) => [...part]));
      const into = new Uint8Array(ranks.reduce((sum, _, from) => sum + pairBytes(call, from, index), 0));
      await group.allToAll(data, matrix, into).wait(patience);
      return [...into];
    }
    default:
      return call.kind satisfies never;
  }
}

/** All device functions by name. */
const cases = {
  /** Device 0 sends messages of the given sizes on tag 0; device 1 says for each whether it is the right one. */
  async stream(transport: Transport, sizes: readonly number[]): Promise<unknown> {
    const right: boolean[] = [];
    for (const [message, bytes] of sizes.entries()) {
      if (transport.rank === 0) {
        await transport.send(1, 0, fill(new Uint8Array(bytes), message)).wait(patience);
      } else {
        const into = new Uint8Array(bytes);
        await transport.receive(0, 0, into).wait(patience);
        right.push(matches(into, message));
      }
    }
    return right;
  },

  /** Device 0 sends rounds of tags in rising order; device 1 waits for them in falling order. */
  async tags(transport: Transport, input: { rounds: number; tags: number }): Promise<unknown> {
    const right: boolean[] = [];
    for (let round = 0; round < input.rounds; round++) {
      const buffers: Uint8Array[] = [];
      const transfers: Transfer[] = [];
      for (let tag = 0; tag < input.tags; tag++) {
        const bytes = new Uint8Array(40 + tag);
        buffers.push(bytes);
        if (transport.rank === 0) transfers.push(transport.send(1, tag, fill(bytes, round * 100 + tag)));
        else transfers.push(transport.receive(0, tag, bytes));
      }
      for (let tag = input.tags - 1; tag >= 0; tag--) {
        await transfers[tag]?.wait(patience);
        right.push(matches(buffers[tag] ?? new Uint8Array(1), round * 100 + tag));
      }
    }
    return right;
  },

  /** Two devices bounce one message; returns the last content on device 0. */
  async pingPong(transport: Transport, rounds: number): Promise<unknown> {
    const bytes = new Uint8Array(8);
    const counters = new Uint32Array(bytes.buffer);
    const peer = 1 - transport.rank;
    for (let round = 0; round < rounds; round++) {
      if (transport.rank === 0) await transport.send(peer, 0, bytes).wait(patience);
      await transport.receive(peer, 0, bytes).wait(patience);
      counters[transport.rank] = (counters[transport.rank] ?? 0) + 1;
      if (transport.rank === 1) await transport.send(peer, 0, bytes).wait(patience);
    }
    return [...counters];
  },

  /** Device 0 starts more sends than there are slots, then lets device 1 (tag 1) read. */
  async exhaust(transport: Transport, sends: number): Promise<unknown> {
    if (transport.rank === 0) {
      const started = Array.from({ length: sends }, (_, message) =>
        transport.send(1, 0, fill(new Uint8Array(16), message)),
      );
      const polled = started.map((transfer) => transfer.poll());
      await transport.send(1, 1, new Uint8Array(0)).wait(patience);
      for (const transfer of started) await transfer.wait(patience);
      return polled;
    }
    await transport.receive(0, 1, new Uint8Array(0)).wait(patience);
    const right: boolean[] = [];
    for (let message = 0; message < sends; message++) {
      const into = new Uint8Array(16);
      await transport.receive(0, 0, into).wait(patience);
      right.push(matches(into, message));
    }
    return right;
  },

  /** Both devices start more sends than fit and then receive: only progress in every wait ends this. */
  async exchange(transport: Transport, messages: number): Promise<unknown> {
    const peer = 1 - transport.rank;
    const sends = Array.from({ length: messages }, (_, message) =>
      transport.send(peer, 0, fill(new Uint8Array(1000), 10 * transport.rank + message)),
    );
    const right: boolean[] = [];
    for (let message = 0; message < messages; message++) {
      const into = new Uint8Array(1000);
      await transport.receive(peer, 0, into).wait(patience);
      right.push(matches(into, 10 * peer + message));
    }
    for (const transfer of sends) await transfer.wait(patience);
    return right;
  },

  /** Device 0 fills slots in place; device 1 keeps two arrived slots at a time and releases the younger first. */
  async slots(transport: Transport, messages: number): Promise<unknown> {
    if (transport.rank === 0) {
      const outlet = transport.outlet(1, 0);
      for (let message = 0; message < messages; message++) {
        const transfer = outlet.acquire();
        const { slot } = transfer;
        await transfer.wait(patience);
        const bytes = message % outlet.buffer(slot).length;
        fill(outlet.buffer(slot).subarray(0, bytes), message);
        outlet.publish(slot, bytes);
      }
      const first = outlet.buffer(0);
      return first.buffer instanceof ArrayBuffer && outlet.buffer(0) === first;
    }
    const inlet = transport.inlet(0, 0);
    const right: unknown[] = [];
    for (let message = 0; message < messages; message += 2) {
      const held: number[] = [];
      for (const each of [message, message + 1]) {
        const bytes = each % inlet.buffer(0).length;
        const transfer = inlet.arrive(bytes);
        held.push(transfer.slot);
        await transfer.wait(patience);
        right.push(matches(inlet.buffer(held.at(-1) ?? 0).subarray(0, bytes), each));
      }
      for (const slot of held.reverse()) inlet.release(slot);
    }
    return right;
  },

  /** Device 0 talks to itself, copying and in place; bytes by which its heap grows with each of `messages` once the code is warm. */
  async garbage(transport: Transport, messages: number): Promise<unknown> {
    const data = new Uint8Array(64);
    const [outlet, inlet] = [transport.outlet(0, 0), transport.inlet(0, 0)];
    const bounce = (count: number): void => {
      for (let message = 0; message < count; message++) {
        void transport.send(0, 0, data).wait(patience);
        void transport.receive(0, 0, data).wait(patience);
        const free = outlet.acquire();
        void free.wait(patience);
        outlet.publish(free.slot, 64);
        const full = inlet.arrive(64);
        void full.wait(patience);
        inlet.release(full.slot);
      }
    };
    bounce(3 * messages);
    const before = process.memoryUsage().heapUsed;
    bounce(messages);
    return (process.memoryUsage().heapUsed - before) / messages;
  },

  /** Device 1 waits for a message of device 0 that never comes. */
  async neverComes(transport: Transport, seconds: number): Promise<unknown> {
    if (transport.rank !== 1) return "idle";
    await transport.receive(0, 3, new Uint8Array(64_000), "act:3 F item (0,2)").wait(seconds);
    return "received";
  },

  /** Device 0 sends one message more than device 1 ever reads. */
  async neverRead(transport: Transport, seconds: number): Promise<unknown> {
    if (transport.rank !== 0) return "idle";
    for (let message = 0; message < 3; message++) await transport.send(1, 0, new Uint8Array(5)).wait(seconds);
    return "sent";
  },

  /** Only device 1 joins the all-reduce. */
  async neverJoined(transport: Transport, seconds: number): Promise<unknown> {
    if (transport.rank !== 1) return "idle";
    await transport.group(0).allReduce(new Float32Array(100), "sum", "gradients").wait(seconds);
    return "reduced";
  },

  /** All but device 0 wait for it; it aborts once the last one has spoken. */
  async abort(transport: Transport, reason: string): Promise<unknown> {
    const last = transport.size - 1;
    if (transport.rank === last) await transport.send(0, 0, new Uint8Array(1)).wait(patience);
    if (transport.rank > 0) await transport.receive(0, 0, new Uint8Array(1)).wait(patience);
    else {
      await transport.receive(last, 0, new Uint8Array(1)).wait(patience);
      transport.abort(reason);
      await transport.receive(last, 0, new Uint8Array(1)).wait(patience);
    }
    return "never";
  },

  /** Device 0 sends one message and leaves; device 1 wants two. */
  async leave(transport: Transport): Promise<unknown> {
    const into = new Uint8Array(3);
    if (transport.rank === 0) {
      await transport.send(1, 0, fill(into, 5)).wait(patience);
      transport.close();
      return "left";
    }
    await transport.receive(0, 0, into).wait(patience);
    if (!matches(into, 5)) return "wrong";
    await transport.receive(0, 0, into, "second").wait(patience);
    return "never";
  },

  /** Device 0 sends 4 B where device 1 expects 3 B. */
  async wrongSize(transport: Transport): Promise<unknown> {
    if (transport.rank === 0) await transport.send(1, 0, new Uint8Array(4)).wait(patience);
    else await transport.receive(0, 0, new Uint8Array(3)).wait(patience);
    return "done";
  },

  /** Device 0 starts a barrier, device 1 an all-reduce. */
  async disagree(transport: Transport): Promise<unknown> {
    const group = transport.group(0);
    if (transport.rank === 0) await group.barrier().wait(patience);
    else await group.allReduce(new Float32Array(2), "sum").wait(patience);
    return "done";
  },

  /** All devices walk through one list of messages, with a varying number of unfinished transfers. */
  async traffic(transport: Transport, messages: readonly PlannedMessage[]): Promise<unknown> {
    let wrong = 0;
    const open: { transfer: Transfer; into?: Uint8Array; message: number }[] = [];
    const finish = async (left: number): Promise<void> => {
      while (open.length > left) {
        const oldest = open.shift();
        await oldest?.transfer.wait(patience);
        if (oldest?.into && !matches(oldest.into, oldest.message)) wrong += 1;
      }
    };
    for (const [message, planned] of messages.entries()) {
      const { from, to, tag, bytes, window } = planned;
      if (from === transport.rank) {
        const data = fill(new Uint8Array(bytes), message);
        open.push({ transfer: transport.send(to, tag, data), message });
      }
      if (to === transport.rank) {
        const into = new Uint8Array(bytes);
        open.push({ transfer: transport.receive(from, tag, into), into, message });
      }
      await finish(window);
    }
    await finish(0);
    return wrong;
  },

  /** All devices do the collectives of their groups in the listed order; returns all results. */
  async collectives(
    transport: Transport,
    input: { groups: readonly (readonly number[])[]; calls: readonly PlannedCollective[] },
  ): Promise<unknown> {
    const results: (readonly number[])[] = [];
    for (const call of input.calls) {
      if (!input.groups[call.group]?.includes(transport.rank)) continue;
      results.push(await runCollective(transport.group(call.group), call));
    }
    return results;
  },
} satisfies Record<string, DeviceCase>;

export type CaseName = keyof typeof cases;

/** A device's result as it travels between threads. */
export type Outcome =
  | { readonly value: unknown }
  | { readonly error: { readonly name: string; readonly message: string } };

/** Runs one device's part and turns what happens into plain data. */
export async function runDevice(transport: Transport, name: CaseName, input: unknown): Promise<Outcome> {
  try {
    const device = cases[name] as (transport: Transport, input: unknown) => Promise<unknown>;
    return { value: await device(transport, input) };
  } catch (error) {
    const { name: type, message } = error as Error;
    return { error: { name: type, message } };
  }
}
