import { expect, test } from "vitest";
import { mailboxBytes } from "../../src/execute/mailbox-layout.ts";
import { memoryTransports, type Timer } from "../../src/execute/memory-transport.ts";
import { runDevice } from "./transport-cases.ts";
import { transportConformance } from "./transport-conformance.ts";

const timer: Timer = (milliseconds, action) => {
  const handle = setTimeout(action, milliseconds);
  return () => clearTimeout(handle);
};

transportConformance(
  "in-memory",
  (plan, name, input) =>
    Promise.all(memoryTransports(plan, timer).map((transport) => runDevice(transport, name, input))),
  100,
);

test("a faulty plan is refused with all its problems", () => {
  const plan = {
    size: 2,
    channels: [
      { from: 0, to: 2, tag: 0, bytes: 8 },
      { from: 0, to: 1, tag: -1, bytes: 8, slots: 0 },
      { from: 1, to: 0, tag: 5, bytes: 2 ** 31 },
      { from: 1, to: 0, tag: 5, bytes: 8 },
    ],
    groups: [{ id: 0, ranks: [0, 0], pieceBytes: 8 }],
  };
  expect(() => memoryTransports(plan, timer)).toThrow(
    [
      "cannot set up the transport:",
      "  - channel 0 -> 2 tag 0: there is no device 2 among 2",
      "  - channel 0 -> 1 tag -1: the tag must be a non-negative integer",
      "  - channel 0 -> 1 tag -1: needs at least one slot, got 0",
      "  - channel 1 -> 0 tag 5: a message must have 0 to 2147483646 B, got 2147483648",
      "  - channel 1 -> 0 tag 5 is declared twice",
      "  - group 0: names a device twice",
      "  - group 0: a piece must have at least 8 B per member, got 8 for 2",
    ].join("\n"),
  );
});

test("channels and groups that were not declared are refused by name", () => {
  const [first] = memoryTransports({ size: 2, channels: [{ from: 0, to: 1, tag: 0, bytes: 8 }] }, timer);
  expect(() => first?.send(1, 1, new Uint8Array(1))).toThrow("no channel 0 -> 1 tag 1 was declared");
  expect(() => first?.receive(1, 0, new Uint8Array(1))).toThrow("no channel 1 -> 0 tag 0 was declared");
  expect(() => first?.group(4)).toThrow("device 0 is in no group 4");
  expect(() => first?.send(1, 0, new Uint8Array(9))).toThrow("declared for at most 8 B, got 9 B");
});

test("the memory of a plan is its slots, regions and staging, rounded to cache lines, and little else", () => {
  const channel = { from: 0, to: 1, tag: 0, bytes: 1000, slots: 3 };
  const group = { id: 0, ranks: [0, 1], regionBytes: 100, pieceBytes: 256 };
  const empty = mailboxBytes({ size: 2, channels: [] });
  expect(empty).toBeLessThan(5000);
  expect(mailboxBytes({ size: 2, channels: [channel] }) - empty).toBe(3 * (1024 + 64));
  expect(mailboxBytes({ size: 2, channels: [], groups: [group] }) - empty).toBe(2 * (128 + 2 * 256 + 64));
});
