/** What the two devices of the transport benchmark do; shared by the main thread and its peer thread. */
import type { Group, Inlet, Outlet, Transfer, Transport, TransportPlan } from "../src/execute/transport.ts";
import { joinThreadWorld, type ThreadWorld } from "../src/node/transport/threads.ts";

/** Bytes of the large message and of the all-reduce. */
export const large = 4 * 2 ** 20;
export const gradients = 64 * 2 ** 20;

/** All that the benchmark needs between two devices. */
export const plan: TransportPlan = {
  size: 2,
  channels: [0, 1].flatMap((from) => [
    { from, to: 1 - from, tag: 0, bytes: 8 },
    { from, to: 1 - from, tag: 1, bytes: large },
  ]),
  groups: [{ id: 0, ranks: [0, 1], regionBytes: gradients }],
};

export type RoundName =
  | "latency"
  | "copied"
  | "oneCopy"
  | "zeroCopy"
  | "memcpy"
  | "memcpyGradients"
  | "allReduceRegion"
  | "allReduceStaged";

/** Plays one device for some rounds; returns the milliseconds of each round on this device. */
export function playDevice(world: ThreadWorld, rank: number, name: RoundName, rounds: number): number[] {
  const round = prepare(joinThreadWorld(world, rank), name);
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    round();
    times.push(performance.now() - start);
  }
  return times;
}

/** Between threads a wait returns nothing: it blocks. */
function done(transfer: Transfer): void {
  void transfer.wait(20);
}

function prepare(transport: Transport, name: RoundName): () => void {
  const peer = 1 - transport.rank;
  const bounce = (send: () => void, receive: () => void): (() => void) => {
    const [first, second] = transport.rank === 0 ? [send, receive] : [receive, send];
    return () => {
      first();
      second();
    };
  };
  const copied = (tag: number, bytes: number): (() => void) => {
    const data = new Uint8Array(bytes).fill(1);
    return bounce(
      () => done(transport.send(peer, tag, data)),
      () => done(transport.receive(peer, tag, data)),
    );
  };
  const outlet = transport.outlet(peer, 1);
  const inlet = transport.inlet(peer, 1);
  switch (name) {
    case "latency":
      return copied(0, 8);
    case "copied":
      return copied(1, large);
    case "oneCopy": {
      const data = new Uint8Array(large).fill(1);
      return bounce(
        () => writeSlot(outlet),
        () => done(transport.receive(peer, 1, data)),
      );
    }
    case "zeroCopy":
      return bounce(
        () => writeSlot(outlet),
        () => readSlot(inlet),
      );
    case "memcpy":
      return memcpy(large);
    case "memcpyGradients":
      return memcpy(gradients);
    default:
      return allReduce(transport.group(0), name === "allReduceRegion");
  }
}

/** Hands over a slot that a kernel has filled, as far as the transport is concerned. */
function writeSlot(outlet: Outlet): void {
  const transfer = outlet.acquire();
  const { slot } = transfer;
  done(transfer);
  outlet.publish(slot, large);
}

function readSlot(inlet: Inlet): void {
  const transfer = inlet.arrive(large);
  const { slot } = transfer;
  done(transfer);
  inlet.release(slot);
}

function memcpy(bytes: number): () => void {
  const from = new Uint8Array(bytes).fill(1);
  const to = new Uint8Array(bytes).fill(2);
  return () => to.set(from);
}

function allReduce(group: Group, inRegion: boolean): () => void {
  const { buffer, byteOffset } = group.region;
  const data = inRegion
    ? new Float32Array(buffer, byteOffset, gradients / 4)
    : new Float32Array(gradients / 4);
  data.fill(1e-9);
  return () => done(group.allReduce(data, "sum"));
}
