/**
 * How fast are messages between two device threads? Latency of 8 bytes, waiting by spinning and by sleeping;
 * bandwidth of 4 MiB and of a 64 MiB all-reduce beside a plain copy of the same size. Turns of all kinds are
 * interleaved, so that other load on the machine meets all alike. Every figure is the median of the rounds of
 * one turn: of the least disturbed turn, and (`typical`) of the middle one. Needs two idle processors.
 *
 *     npm run bench -- transport [--json]
 */
import { once } from "node:events";
import { availableParallelism, cpus, loadavg } from "node:os";
import { Worker } from "node:worker_threads";
import { createThreadWorld, type ThreadWorld } from "../src/node/transport/threads.ts";
import { gradients, large, plan, playDevice, type RoundName } from "./transport-rounds.ts";

interface Series {
  readonly key: string;
  readonly name: RoundName;
  /** Rounds per turn, the first fifth of which is warm-up and not counted. */
  readonly rounds: number;
  readonly spinMicroseconds: number;
  /** Median milliseconds of each turn. */
  readonly medians: number[];
}

const turns = 12;

function series(key: string, name: RoundName, rounds: number, spinMicroseconds = 100): Series {
  return { key, name, rounds, spinMicroseconds, medians: [] };
}

const all: readonly Series[] = [
  series("latencySpin", "latency", 1000),
  series("latencySleep", "latency", 200, 0),
  series("memcpy4MiB", "memcpy", 20),
  series("copied4MiB", "copied", 20),
  series("oneCopy4MiB", "oneCopy", 20),
  series("zeroCopy4MiB", "zeroCopy", 20),
  series("memcpy64MiB", "memcpyGradients", 5),
  series("allReduceRegion64MiB", "allReduceRegion", 5),
  series("allReduceStaged64MiB", "allReduceStaged", 5),
];

function median(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1] ?? Number.NaN;
}

async function play(peer: Worker, world: ThreadWorld, one: Series): Promise<void> {
  const together = !one.name.startsWith("memcpy");
  if (together) peer.postMessage({ world, name: one.name, rounds: one.rounds });
  const times = playDevice(world, 0, one.name, one.rounds);
  one.medians.push(median(times.slice(Math.ceil(one.rounds / 5))));
  if (together) await once(peer, "message");
}

async function measure(): Promise<void> {
  const peer = new Worker(new URL("transport-peer.mjs", import.meta.url));
  await once(peer, "message");
  for (let turn = 0; turn < turns; turn++) {
    for (const one of all) {
      await play(peer, createThreadWorld(plan, { spinMicroseconds: one.spinMicroseconds }), one);
    }
  }
  await peer.terminate();
}

type Pick = (medians: readonly number[]) => number;

function figures(pick: Pick): Record<string, number> {
  const of = (key: string): number => pick(all.find((one) => one.key === key)?.medians ?? []);
  const gigabytesPerSecond = (bytes: number, milliseconds: number): number => bytes / milliseconds / 1e6;
  const memcpy4 = gigabytesPerSecond(large, of("memcpy4MiB"));
  const memcpy64 = gigabytesPerSecond(gradients, of("memcpy64MiB"));
  // A round is a bounce, so one way takes half of it.
  const oneWay = (key: string): number => (1000 * of(key)) / 2;
  const bandwidth = (key: string): number => gigabytesPerSecond(large, of(key) / 2);
  const reduction = (key: string): number => gigabytesPerSecond(gradients, of(key));
  const result = {
    latency8BMicroseconds: oneWay("latencySpin"),
    latency8BAsleepMicroseconds: oneWay("latencySleep"),
    zeroCopy4MiBMicroseconds: oneWay("zeroCopy4MiB"),
    memcpy4MiBGigabytesPerSecond: memcpy4,
    oneCopy4MiBGigabytesPerSecond: bandwidth("oneCopy4MiB"),
    oneCopyToMemcpy: bandwidth("oneCopy4MiB") / memcpy4,
    copiedToMemcpy: bandwidth("copied4MiB") / memcpy4,
    memcpy64MiBGigabytesPerSecond: memcpy64,
    allReduceRegion64MiBToMemcpy: reduction("allReduceRegion64MiB") / memcpy64,
    allReduceStaged64MiBToMemcpy: reduction("allReduceStaged64MiB") / memcpy64,
  };
  return Object.fromEntries(
    Object.entries(result).map(([key, value]) => [key, Math.round(value * 100) / 100]),
  );
}

await measure();
const result = {
  ...figures((medians) => Math.min(...medians)),
  typical: figures(median),
  machine: `${cpus()[0]?.model ?? "unknown"} x ${availableParallelism()}, Node ${process.version}`,
  load: loadavg(),
};
if (process.argv.includes("--json")) process.stdout.write(`${JSON.stringify(result)}\n`);
else console.dir(result);
