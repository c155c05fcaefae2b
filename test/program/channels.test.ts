import { expect, test } from "vitest";
import type { TransportPlan } from "../../src/execute/transport.ts";
import { channelPlan } from "../../src/program/channels.ts";
import { edited, twoDevices } from "./hand-made.ts";

test("each (from, to, tag) is a channel of one slot, as large as its largest message in any set", () => {
  const longer = edited(twoDevices.replaceAll("f32[2]", "f32[5]"));
  const plan: TransportPlan = channelPlan([edited(twoDevices), longer]);
  expect(plan).toEqual({
    size: 2,
    channels: [
      { from: 0, to: 1, tag: 0, bytes: 20, slots: 1, label: "y[0.0]" },
      { from: 0, to: 1, tag: 1, bytes: 20, slots: 1, label: "y[1.0]" },
      { from: 0, to: 1, tag: 4, bytes: 4, slots: 1, label: "scale" },
      { from: 0, to: 1, tag: 5, bytes: 20, slots: 1, label: "w" },
      { from: 1, to: 0, tag: 2, bytes: 20, slots: 1, label: "dy[0.0]" },
      { from: 1, to: 0, tag: 3, bytes: 20, slots: 1, label: "dy[1.0]" },
    ],
    groups: [],
  });
});

test("programs that say nothing to each other need no channel", () => {
  expect(channelPlan([])).toEqual({ size: 0, channels: [], groups: [] });
});
