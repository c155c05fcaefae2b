/** Collectives of programs against plain loops, on devices of one thread and on devices in threads. */

import { expect, test } from "vitest";
import type { TensorData } from "../../src/data/dataset.ts";
import type { Cluster } from "../../src/execute/cluster.ts";
import { localCluster } from "../../src/execute/local-cluster.ts";
import { referenceEngine } from "../../src/execute/reference-engine.ts";
import { threadCluster } from "../../src/node/devices/thread-cluster.ts";
import type { Program } from "../../src/program/program.ts";
import { assertPrograms } from "../../src/program/verify.ts";
import { connect } from "../partition/train.ts";
import { type MeetingCase, meetingPrograms, total } from "../program/meetings.ts";

function rounded(
  { dtype }: MeetingCase,
  values: readonly number[],
): Float32Array | Float64Array | Int32Array {
  if (dtype === "f32") return Float32Array.from(values);
  return dtype === "f64" ? Float64Array.from(values) : Int32Array.from(values);
}

/** Numbers with all bits in use, different for every seed. */
function numbers(example: MeetingCase, seed: number, length: number) {
  const values = Array.from({ length }, (_, i) =>
    example.dtype === "i32" ? ((i * 7 + seed * 13) % 23) - 11 : Math.sin(1 + i * 1.7 + seed * 31) * 3,
  );
  return rounded(example, values);
}

function inputsOf(example: MeetingCase): { readonly [name: string]: TensorData } {
  const { dtype, sizes } = example;
  const tensor = (seed: number, length: number): TensorData => ({
    dtype,
    shape: [length],
    data: numbers(example, seed, length),
  });
  return Object.fromEntries(
    sizes.flatMap((size, rank) => [
      [`a${rank}`, tensor(2 * rank, size)],
      [`b${rank}`, tensor(2 * rank + 1, total(sizes))],
    ]),
  );
}

/** What every device must hold in w, with a rounding after every operation, sums in the order of ranks. */
function expected(example: MeetingCase): Float64Array {
  const { dtype, sizes } = example;
  const round = dtype === "f32" ? Math.fround : (x: number) => x;
  const add = (a: number, b: number) => round(a + b);
  const ranks = [...sizes.keys()];
  const a = ranks.flatMap((rank) => [...numbers(example, 2 * rank, sizes[rank] ?? 0)]);
  const b = ranks.map((rank) => numbers(example, 2 * rank + 1, a.length));
  const at = (rank: number, i: number) => b[rank]?.[i] ?? Number.NaN;
  return Float64Array.from(a, (own, i) => {
    const sum = ranks.map((rank) => add(at(rank, i), at(rank, i))).reduce(add);
    const most = Math.max(...ranks.map((rank) => add(sum, at(rank, i))));
    return round(ranks.map(() => most).reduce(add) * own);
  });
}

function keyed(programs: readonly Program[]): readonly ReadonlyMap<string, Program>[] {
  return programs.map((program) => new Map([["meet", program]]));
}

function inOneThread(): Cluster {
  return localCluster({ engine: referenceEngine(), deadline: 5, now: () => 0, connect });
}

function inThreads(example: MeetingCase): Cluster {
  const devices = example.sizes.map((_, rank) => ({ name: `cpu:${rank}`, threads: 1 }));
  return threadCluster({ devices, engine: "reference", deadline: 5 });
}

/** What the devices hold in w after each of two steps. */
async function outcomeOn(cluster: Cluster, example: MeetingCase): Promise<readonly Float64Array[]> {
  const programs = meetingPrograms(example);
  assertPrograms(programs);
  await cluster.load(keyed(programs));
  const held: Float64Array[] = [];
  for (let step = 0; step < 2; step++) {
    await cluster.run("meet", { data: inputsOf(example), scalars: {} });
    for (const tensors of await cluster.read())
      held.push(Float64Array.from(tensors.get("w")?.data as Float64Array));
  }
  return held;
}

const cases: readonly MeetingCase[] = [
  { dtype: "f32", sizes: [3, 3] },
  { dtype: "f64", sizes: [5, 2] },
  { dtype: "f32", sizes: [0, 7] },
  { dtype: "i32", sizes: [2, 3] },
  { dtype: "f32", sizes: [4, 1, 3] },
  { dtype: "f64", sizes: [2, 0, 0] },
  { dtype: "f32", sizes: [1, 0, 6, 2] },
  { dtype: "f64", sizes: [17, 16, 16, 1] },
  { dtype: "f64", sizes: [30_001, 5_000] },
];
const named = cases.map((example) => {
  const { dtype, sizes } = example;
  return [`${dtype} in parts of ${sizes.join(", ")}`, example] as const;
});

test.each(named)(
  "%s: every kind of collective gives what plain loops give, in every bit",
  async (_, example) => {
    await using cluster = inOneThread();
    const wanted = expected(example);
    for (const held of await outcomeOn(cluster, example)) expect(held).toEqual(wanted);
  },
);

const inWorkers = named.filter((_, i) => [1, 4, 5, 6, 8].includes(i));

test.each(inWorkers)("%s: devices in threads give the same bits", async (_, example) => {
  await using cluster = inThreads(example);
  const wanted = expected(example);
  for (const held of await outcomeOn(cluster, example)) expect(held).toEqual(wanted);
});

test("a member that never comes is named with what it was waited for", async () => {
  const [first, second] = meetingPrograms({ dtype: "f32", sizes: [1, 2] }) as readonly [Program, Program];
  const isGather = ({ kind }: { readonly kind: string }) => kind === "all-gather";
  const absent = { ...second, instructions: second.instructions.filter((one) => !isGather(one)) };
  await using cluster = localCluster({ engine: referenceEngine(), deadline: 0.1, now: () => 0, connect });
  await cluster.load(keyed([first, absent]));
  await expect(
    cluster.run("meet", { data: inputsOf({ dtype: "f32", sizes: [1, 2] }), scalars: {} }),
  ).rejects.toThrow(
    /^device 0, stage 0, item \(0, 0\), instruction 9 \(all-gather w 0\.0\): device 0 waited 0\.1 s for device 1: all-gather in place "w" \(12 B\) in group devices 0, 1 of 2 was not joined$/,
  );
});
