/** How the benchmarks measure: contestants take turns, the medians count, and the machine is written down. */

import { cpus, loadavg } from "node:os";
import type { Engine, TensorBuffer } from "../src/execute/engine.ts";
import { GraphBuilder } from "../src/graph/builder.ts";
import { allocate } from "../src/graph/dtype.ts";
import { matmul } from "../src/graph/functions.ts";

/** What a contestant does in its turn; only `run` is timed. */
export interface Turn {
  /** Brings caches and clocks to where they are when the contestant goes on and on. */
  readonly before?: () => Promise<unknown> | unknown;
  readonly run: () => Promise<unknown> | unknown;
}

/** Seconds of each turn of each contestant: A B C, B C A, C A B, ... after `warmUp` rounds that are not counted. */
export async function takeTurns<K extends string>(
  contestants: { readonly [name in K]: Turn },
  rounds: number,
  warmUp = 2,
): Promise<{ [name in K]: number[] }> {
  const names = Object.keys(contestants) as K[];
  const seconds = Object.fromEntries(names.map((name) => [name, [] as number[]])) as {
    [name in K]: number[];
  };
  for (let round = 0; round < warmUp + rounds; round++) {
    // Everybody comes after everybody else equally often: a turn leaves caches and clocks as the next one finds them.
    for (const i of names.keys()) {
      const name = names[(i + round) % names.length] as K;
      const { before, run } = contestants[name];
      await before?.();
      const start = performance.now();
      await run();
      if (round >= warmUp) seconds[name].push((performance.now() - start) / 1000);
    }
  }
  return seconds;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** The median of a[i] / b[i]: what two contestants of the same rounds compare as. */
export function medianRatio(a: readonly number[], b: readonly number[]): number {
  return median(a.map((value, i) => value / (b[i] as number)));
}

/** A 1024 x 1024 x 1024 product on the engine; one call is 2·1024³ floating-point operations. */
export async function referenceProduct(
  engine: Engine,
): Promise<{ run(): Promise<void>; readonly flops: number }> {
  const size = 1024;
  const builder = new GraphBuilder();
  const type = { dtype: "f32" as const, shape: [size, size] };
  builder.output("c", matmul(builder.input("a", "data", type), builder.input("b", "data", type)));
  const buffer = (): TensorBuffer => ({
    type,
    data: allocate("f32", size * size).fill(0.5 as never) as TensorBuffer["data"],
  });
  const bound = (await engine.prepare(builder.build())).bind([buffer(), buffer()], [buffer()]);
  return { run: async () => bound.run(), flops: 2 * size ** 3 };
}

/** Facts about the machine that belong beside every figure. */
export function machine(): {
  readonly cpu: string;
  readonly cores: number;
  readonly load: number;
  readonly node: string;
} {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    load: loadavg()[0] ?? 0,
    node: process.version,
  };
}

/** Prints a result as one JSON line, or as a table for people. */
export function report(result: { readonly [key: string]: unknown }): void {
  if (process.argv.includes("--json")) console.log(JSON.stringify(result));
  else console.table(result);
}

export function round(value: number, digits = 3): number {
  return Number(value.toPrecision(digits));
}
