/** The cases that every transport must pass, whatever lies beneath it. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ChannelPlan, TransportPlan } from "../../src/execute/transport.ts";
import {
  type CaseName,
  contentAt,
  contribution,
  numbers,
  type Outcome,
  type PlannedCollective,
  type PlannedMessage,
  pairBytes,
} from "./transport-cases.ts";

/** Runs a case on all devices of a plan and returns what each ended with, by rank. */
export type CaseRunner = (plan: TransportPlan, name: CaseName, input: unknown) => Promise<readonly Outcome[]>;

/** Declares the conformance tests for one implementation; `runs` is the number of random cases. */
export function transportConformance(name: string, run: CaseRunner, runs = 30): void {
  describe(`${name} transport, messages`, () => declareMessageTests(run, runs));
  describe(`${name} transport, faults`, () => declareFaultTests(run));
  describe(`${name} transport, collectives`, () => declareCollectiveTests(run, runs));
}

function pair(channels: readonly Partial<ChannelPlan>[]): TransportPlan {
  return {
    size: 2,
    channels: channels.map((channel) => ({ from: 0, to: 1, tag: 0, bytes: 64, ...channel })),
  };
}

function all<T>(length: number, value: T): T[] {
  return Array.from({ length }, () => value);
}

function values(outcomes: readonly Outcome[]): readonly unknown[] {
  return outcomes.map((outcome) => ("value" in outcome ? outcome.value : outcome.error));
}

function messageOf(outcome: Outcome | undefined): string {
  return outcome && "error" in outcome
    ? `${outcome.error.name}: ${outcome.error.message}`
    : `no error: ${JSON.stringify(outcome)}`;
}

function declareMessageTests(run: CaseRunner, runs: number): void {
  test("messages of one channel arrive in order with their content", async () => {
    const outcomes = await run(pair([{ bytes: 32, slots: 3 }]), "stream", all(500, 32));
    expect(values(outcomes)).toEqual([[], all(500, true)]);
  });

  test("messages of any size up to the declared one are legal, also empty ones", async () => {
    const sizes = [0, 1, 63, 64, 65, 0, 1_000_001, 4096, 3_000_000, 0];
    for (const slots of [1, 2, 5]) {
      const outcomes = await run(pair([{ bytes: 3_000_000, slots }]), "stream", sizes);
      expect(values(outcomes)).toEqual([[], all(sizes.length, true)]);
    }
    expect(values(await run(pair([{ bytes: 0 }]), "stream", [0, 0, 0]))).toEqual([[], all(3, true)]);
  });

  test("tags are independent: they may be waited for in another order than they were sent", async () => {
    const channels = [0, 1, 2, 3].map((tag) => ({ tag, bytes: 50, slots: 1 }));
    const outcomes = await run(pair(channels), "tags", { rounds: 20, tags: 4 });
    expect(values(outcomes)).toEqual([all(80, true), all(80, true)]);
  });

  test("two devices can bounce thousands of messages", async () => {
    const plan = pair([
      { bytes: 8, slots: 1 },
      { from: 1, to: 0, bytes: 8, slots: 1 },
    ]);
    const [first] = values(await run(plan, "pingPong", 5000));
    expect(first).toEqual([5000, 5000]);
  });

  test("a sender waits while all slots are unread, and goes on when they are read", async () => {
    const plan = pair([{ slots: 2 }, { tag: 1, bytes: 0 }]);
    const outcomes = await run(plan, "exhaust", 5);
    expect(values(outcomes)).toEqual([[true, true, false, false, false], all(5, true)]);
  });

  test("every wait moves all started transfers of its device", async () => {
    const plan = pair([
      { bytes: 1000, slots: 1 },
      { from: 1, to: 0, bytes: 1000, slots: 1 },
    ]);
    expect(values(await run(plan, "exchange", 6))).toEqual([all(6, true), all(6, true)]);
  });

  test("slots can be written and read in place and released in any order", async () => {
    const outcomes = await run(pair([{ bytes: 100, slots: 4 }]), "slots", 250);
    expect(values(outcomes)).toEqual([true, all(250, true)]);
  });

  test("random traffic between 1 to 6 devices arrives complete and in order", async () => {
    await fc.assert(
      fc.asyncProperty(randomTraffic(), async ({ plan, messages }) => {
        expect(values(await run(plan, "traffic", messages))).toEqual(all(plan.size, 0));
      }),
      { numRuns: runs },
    );
  });
}

function declareFaultTests(run: CaseRunner): void {
  test("a wait for a message that never comes names both devices, the message and the time", async () => {
    const [, waiter] = await run(pair([{ tag: 3, bytes: 64_000 }]), "neverComes", 0.2);
    expect(messageOf(waiter)).toBe(
      'TransportTimeout: device 1 waited 0.2 s for device 0: message "act:3 F item (0,2)" (64,000 B) never came',
    );
  });

  test("a wait for a free slot names the reader and the slots", async () => {
    const [waiter] = await run(pair([{ slots: 2, label: "h:4" }]), "neverRead", 0.2);
    expect(messageOf(waiter)).toBe(
      'TransportTimeout: device 0 waited 0.2 s for device 1: message "h:4" (5 B) could not be sent, ' +
        "all 2 slots are unread",
    );
  });

  test("a wait for a collective names the devices that did not join", async () => {
    const plan = { size: 3, channels: [], groups: [{ id: 0, ranks: [0, 1, 2] }] };
    const [, waiter] = await run(plan, "neverJoined", 0.2);
    expect(messageOf(waiter)).toBe(
      'TransportTimeout: device 1 waited 0.2 s for devices 0, 2: all-reduce "gradients" (400 B) ' +
        "in group 0 of 3 was not joined",
    );
  });

  test("an abort wakes every waiting device at once with the culprit and its reason", async () => {
    const size = 4;
    const channels = [1, 2, 3].flatMap((rank) => [
      { from: 0, to: rank, tag: 0, bytes: 1 },
      { from: rank, to: 0, tag: 0, bytes: 1 },
    ]);
    const started = performance.now();
    const outcomes = await run({ size, channels }, "abort", "F of item (0,2) threw: out of memory");
    expect(performance.now() - started).toBeLessThan(5000);
    expect(outcomes.map(messageOf)).toEqual(
      all(size, "TransportAborted: device 0 ended the run: F of item (0,2) threw: out of memory"),
    );
  });

  test("a device that leaves still delivers what it sent, and whoever wants more is told", async () => {
    const outcomes = await run(pair([{ bytes: 3 }]), "leave", undefined);
    expect(values(outcomes)[0]).toBe("left");
    expect(messageOf(outcomes[1])).toBe(
      "TransportAborted: device 0 ended the run: it left while device 1 waited: " +
        'message "second" (3 B) never came',
    );
  });

  test("a message of another size than expected is refused", async () => {
    const [, receiver] = await run(pair([{}]), "wrongSize", undefined);
    expect(messageOf(receiver)).toContain('message "tag 0" (3 B) came with 4 B');
  });

  test("members that start different collectives are told so", async () => {
    const plan = { size: 2, channels: [], groups: [{ id: 0, ranks: [0, 1] }] };
    const [first] = await run(plan, "disagree", undefined);
    expect(messageOf(first)).toContain("device 0 started barrier");
    expect(messageOf(first)).toContain("device 1 all-reduce of 8 B");
  });
}

function declareCollectiveTests(run: CaseRunner, runs: number): void {
  test("all collectives agree with plain loops on random groups, sizes and types", async () => {
    await fc.assert(
      fc.asyncProperty(randomCollectives(), async ({ plan, groups, calls }) => {
        const outcomes = await run(plan, "collectives", { groups, calls });
        const expected = Array.from({ length: plan.size }, (_, rank) =>
          calls
            .filter((call) => groups[call.group]?.includes(rank))
            .map((call) => expectedResult(call, groups[call.group] ?? [], rank)),
        );
        expect(values(outcomes)).toEqual(expected);
      }),
      { numRuns: runs },
    );
  });

  test("a long all-reduce of two devices equals the plain sum, in staging and in the region", async () => {
    const groups = [[1, 0]];
    const counts = [60_000, 41_111];
    const plan = { size: 2, channels: [], groups: [{ id: 0, ranks: [1, 0], regionBytes: 500_000 }] };
    for (const kind of ["allReduce", "allReduceRegion"] as const) {
      const call = { kind, group: 0, seed: 5, counts, root: 0, reduction: "sum", type: "f32" } as const;
      const outcomes = await run(plan, "collectives", { groups, calls: [call, call] });
      const expected = expectedResult(call, [1, 0], 0);
      expect(values(outcomes)).toEqual(all(2, [expected, expected]));
    }
  });
}

/** Messages over random channels; `window` bounds how many transfers stay unfinished. */
function randomTraffic(): fc.Arbitrary<{ plan: TransportPlan; messages: readonly PlannedMessage[] }> {
  return fc.integer({ min: 1, max: 6 }).chain((size) => {
    const rank = fc.nat({ max: size - 1 });
    const channel = fc.record({
      from: rank,
      to: rank,
      tag: fc.nat({ max: 3 }),
      bytes: fc.nat({ max: 3000 }),
      slots: fc.integer({ min: 1, max: 3 }),
    });
    const selector = ({ from, to, tag }: ChannelPlan): string => `${from} ${to} ${tag}`;
    return fc.uniqueArray(channel, { minLength: 1, maxLength: 12, selector }).chain((channels) =>
      fc.record({
        plan: fc.constant({ size, channels }),
        messages: fc.array(
          fc
            .record({
              channel: fc.constantFrom(...channels),
              share: fc.nat({ max: 4 }),
              window: fc.nat({ max: 8 }),
            })
            .map(({ channel: { from, to, tag, bytes }, share, window }) => {
              // A device that sends to itself must be able to start the receive before it waits for the send.
              return { from, to, tag, bytes: Math.floor((bytes * share) / 4), window: window + 2 };
            }),
          { maxLength: 80 },
        ),
      }),
    );
  });
}

function randomCollectives(): fc.Arbitrary<{
  plan: TransportPlan;
  groups: readonly (readonly number[])[];
  calls: readonly PlannedCollective[];
}> {
  return fc.integer({ min: 1, max: 6 }).chain((size) => {
    const ranks = Array.from({ length: size }, (_, rank) => rank);
    const group = fc.shuffledSubarray(ranks, { minLength: 1 });
    return fc
      .record({
        groups: fc.array(group, { minLength: 1, maxLength: 3 }),
        pieceBytes: fc.constantFrom(64, 192, 1024),
      })
      .chain(({ groups, pieceBytes }) => {
        const plans = groups.map((members, id) => ({ id, ranks: members, pieceBytes, regionBytes: 4096 }));
        const call = fc
          .nat({ max: groups.length - 1 })
          .chain((id) => randomCall(id, groups[id]?.length ?? 1));
        return fc.record({
          plan: fc.constant({ size, channels: [], groups: plans }),
          groups: fc.constant(groups),
          calls: fc.array(call, { maxLength: 12 }),
        });
      });
  });
}

function randomCall(group: number, members: number): fc.Arbitrary<PlannedCollective> {
  return fc.record({
    kind: fc.constantFrom(
      "barrier" as const,
      "broadcast" as const,
      "allReduce" as const,
      "allReduceRegion" as const,
      "reduceScatter" as const,
      "reduceScatterRegion" as const,
      "allGather" as const,
      "allGatherRegion" as const,
      "allToAll" as const,
    ),
    group: fc.constant(group),
    seed: fc.nat({ max: 1000 }),
    counts: fc.array(fc.oneof(fc.constant(0), fc.nat({ max: 150 })), {
      minLength: members,
      maxLength: members,
    }),
    root: fc.nat({ max: members - 1 }),
    reduction: fc.constantFrom("sum" as const, "max" as const),
    type: fc.constantFrom("f32" as const, "f64" as const, "i32" as const),
  });
}

/** What a member must get, by loops over the contributions in member order. */
function expectedResult(
  call: PlannedCollective,
  members: readonly number[],
  rank: number,
  source: PlannedCollective = call,
): readonly number[] {
  const index = members.indexOf(rank);
  const total = call.counts.reduce((sum, count) => sum + count, 0);
  const content = (message: number, length: number): number[] =>
    Array.from({ length }, (_, at) => contentAt(message, at));
  switch (call.kind) {
    case "barrier":
      return [];
    case "broadcast":
      return content(call.seed, total);
    case "allReduce":
      return reduced(call, members.length, total);
    case "allReduceRegion":
      return reduced({ ...call, type: "f32" }, members.length, total, call);
    case "reduceScatterRegion":
      return expectedResult({ ...call, type: "f32", kind: "reduceScatter" }, members, rank, call);
    case "reduceScatter": {
      const start = call.counts.slice(0, index).reduce((sum, count) => sum + count, 0);
      return reduced(call, members.length, total, source).slice(start, start + (call.counts[index] ?? 0));
    }
    case "allGather":
    case "allGatherRegion":
      return call.counts.flatMap((count, member) => content(call.seed + member, count));
    case "allToAll":
      return members.flatMap((_, from) => content(from * 8 + index, pairBytes(call, from, index)));
    default:
      return call.kind satisfies never;
  }
}

function reduced(
  call: PlannedCollective,
  members: number,
  total: number,
  source: PlannedCollective = call,
): readonly number[] {
  const result = numbers(call.type, total);
  const value = numbers(call.type, 1);
  for (let i = 0; i < total; i++) {
    for (let member = 0; member < members; member++) {
      value[0] = contribution(source, member, i);
      const next = value[0] ?? 0;
      const before = result[i] ?? 0;
      if (member === 0) result[i] = next;
      else result[i] = call.reduction === "sum" ? before + next : Math.max(before, next);
    }
  }
  return [...result];
}
