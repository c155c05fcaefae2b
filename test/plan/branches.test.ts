import { expect, test } from "vitest";
import { branchAssignments } from "../../src/plan/branches.ts";

const devices = ["cpu:0", "cpu:1"].map((name) => ({ name, threads: 1 }));
const unit = (name: string, seconds: number) => ({ groups: [name], seconds });
const edge = (from: string, to: string) => ({ from, to });

test("two towers of two layers each go to different devices as wholes, in whatever order they are written", () => {
  const units = [unit("user0", 2), unit("item0", 3), unit("user1", 2), unit("item1", 3), unit("score", 1)];
  const edges = [
    edge("user0", "user1"),
    edge("item0", "item1"),
    edge("user1", "score"),
    edge("item1", "score"),
  ];
  const [fastest] = branchAssignments({ units, edges, devices });
  const [user0, item0, user1, item1, score] = fastest ?? [];
  expect(user1).toBe(user0);
  expect(item1).toBe(item0);
  expect(item0).not.toBe(user0);
  expect(score).toBe(item0);
});

test("the time of one item decides the first choice, the load of the busiest device the second", () => {
  const units = [unit("a", 4), unit("b", 4), unit("c", 4), unit("d", 6)];
  const edges = [edge("a", "b"), edge("b", "c"), edge("a", "d")];
  const [fastest, fairest] = branchAssignments({ units, edges, devices });
  expect(fastest?.[2]).toBe(fastest?.[1]);
  expect(fastest?.[3]).not.toBe(fastest?.[1]);
  const loads = devices.map((_, d) =>
    units.reduce((sum, { seconds }, i) => sum + (fairest?.[i] === d ? seconds : 0), 0),
  );
  expect(Math.max(...loads)).toBe(10);
});

test("too many assignments are not tried", () => {
  const units = Array.from({ length: 15 }, (_, i) => unit(`g${i}`, 1));
  expect(branchAssignments({ units, edges: [], devices })).toEqual([]);
});
