import { expect, test } from "vitest";
import { replay, uniformCosts } from "../../src/schedule/replay.ts";
import { type ScheduleSpec, schedule } from "../../src/schedule/schedule.ts";
import { parseSchedule, printSchedule, renderTimeline } from "../../src/schedule/text.ts";

const base = { devices: 4, stages: 4, microBatches: 8, chunks: 1, weights: "fused" } as const;

function picture(of: ScheduleSpec, F: number, B: number, W: number): string {
  return renderTimeline(replay(schedule(of), of, uniformCosts(F, B, W)));
}

/** The text between the backticks, without the indentation of the source. */
function table([text = ""]: TemplateStringsArray): string {
  return text
    .split("\n")
    .map((row) => row.trim())
    .filter((row) => row !== "")
    .join("\n");
}

test("naive: 4 stages, 2 items", () => {
  expect(picture({ ...base, kind: "naive", microBatches: 2 }, 1, 1, 0)).toBe(table`
    device 0 | F0 .  .  .  .  .  .  B0 F1 .  .  .  .  .  .  B1
    device 1 | .  F0 .  .  .  .  B0 .  .  F1 .  .  .  .  B1 .
    device 2 | .  .  F0 .  .  B0 .  .  .  .  F1 .  .  B1 .  .
    device 3 | .  .  .  F0 B0 .  .  .  .  .  .  F1 B1 .  .  .
  `);
});

test("GPipe: 4 stages, 8 micro-batches", () => {
  expect(picture({ ...base, kind: "gpipe" }, 1, 1, 0)).toBe(table`
    device 0 | F0 F1 F2 F3 F4 F5 F6 F7 .  .  .  .  .  .  B0 B1 B2 B3 B4 B5 B6 B7
    device 1 | .  F0 F1 F2 F3 F4 F5 F6 F7 .  .  .  .  B0 B1 B2 B3 B4 B5 B6 B7 .
    device 2 | .  .  F0 F1 F2 F3 F4 F5 F6 F7 .  .  B0 B1 B2 B3 B4 B5 B6 B7 .  .
    device 3 | .  .  .  F0 F1 F2 F3 F4 F5 F6 F7 B0 B1 B2 B3 B4 B5 B6 B7 .  .  .
  `);
});

test("1F1B: 4 stages, 8 micro-batches, backward twice as long", () => {
  expect(picture({ ...base, kind: "1f1b" }, 1, 2, 0)).toBe(table`
    device 0 | F0 F1 F2 F3 .  .  .  .  .  .  B0 -- F4 B1 -- F5 B2 -- F6 B3 -- F7 B4 -- .  B5 -- .  B6 -- .  B7 --
    device 1 | .  F0 F1 F2 .  .  .  .  B0 -- F3 B1 -- F4 B2 -- F5 B3 -- F6 B4 -- F7 B5 -- .  B6 -- .  B7 -- .  .
    device 2 | .  .  F0 F1 .  .  B0 -- F2 B1 -- F3 B2 -- F4 B3 -- F5 B4 -- F6 B5 -- F7 B6 -- .  B7 -- .  .  .  .
    device 3 | .  .  .  F0 B0 -- F1 B1 -- F2 B2 -- F3 B3 -- F4 B4 -- F5 B5 -- F6 B6 -- F7 B7 -- .  .  .  .  .  .
  `);
});

test("ZB-H1: 4 stages, 8 micro-batches", () => {
  expect(picture({ ...base, kind: "zero-bubble-h1", weights: "per-item" }, 1, 1, 1)).toBe(table`
    device 0 | F0 F1 F2 F3 .  .  .  B0 W0 F4 B1 W1 F5 B2 W2 F6 B3 W3 F7 B4 W4 B5 W5 B6 W6 B7 W7
    device 1 | .  F0 F1 F2 .  .  B0 F3 B1 W0 F4 B2 W1 F5 B3 W2 F6 B4 W3 F7 B5 W4 B6 W5 B7 W6 W7
    device 2 | .  .  F0 F1 .  B0 F2 B1 F3 B2 W0 F4 B3 W1 F5 B4 W2 F6 B5 W3 F7 B6 W4 B7 W5 W6 W7
    device 3 | .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 W0 F4 B4 W1 F5 B5 W2 F6 B6 W3 F7 B7 W4 W5 W6 W7
  `);
});

test("interleaved 1F1B: 4 stages on 2 devices, 4 micro-batches", () => {
  const of: ScheduleSpec = { ...base, kind: "interleaved-1f1b", devices: 2, microBatches: 4 };
  expect(picture(of, 1, 1, 0)).toBe(table`
    device 0 | 0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 .   2B2 .   2B3 0B2 0B3
    device 1 | .   1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3 .
  `);
});

test("interleaved 1F1B: 8 stages on 4 devices, 8 micro-batches", () => {
  const of: ScheduleSpec = { ...base, kind: "interleaved-1f1b", stages: 8 };
  const order = printSchedule(schedule(of)).replaceAll(/ \d+W\d+/g, "");
  expect(order).toBe(table`
    device 0 | 0F0 0F1 0F2 0F3 4F0 4F1 4F2 4F3 0F4 0F5 0F6 4B0 0F7 4B1 4F4 4B2 4F5 4B3 4F6 0B0 4F7 0B1 0B2 0B3 4B4 4B5 4B6 4B7 0B4 0B5 0B6 0B7
    device 1 | 1F0 1F1 1F2 1F3 5F0 5F1 5F2 5F3 1F4 5B0 1F5 5B1 1F6 5B2 1F7 5B3 5F4 1B0 5F5 1B1 5F6 1B2 5F7 1B3 5B4 5B5 5B6 5B7 1B4 1B5 1B6 1B7
    device 2 | 2F0 2F1 2F2 2F3 6F0 6F1 6F2 6B0 6F3 6B1 2F4 6B2 2F5 6B3 2F6 2B0 2F7 2B1 6F4 2B2 6F5 2B3 6F6 6B4 6F7 6B5 6B6 6B7 2B4 2B5 2B6 2B7
    device 3 | 3F0 3F1 3F2 3F3 7F0 7B0 7F1 7B1 7F2 7B2 7F3 7B3 3F4 3B0 3F5 3B1 3F6 3B2 3F7 3B3 7F4 7B4 7F5 7B5 7F6 7B6 7F7 7B7 3B4 3B5 3B6 3B7
  `);
});

test("wavefront: 2 stages, one mini-batch in 4 chunks, weights deferred", () => {
  const of: ScheduleSpec = {
    ...base,
    kind: "wavefront",
    devices: 2,
    stages: 2,
    microBatches: 1,
    chunks: 4,
    weights: "deferred",
  };
  expect(picture(of, 1, 1, 1)).toBe(table`
    device 0 | F0.0 F0.1 F0.2 F0.3 .    .    B0.3 B0.2 B0.1 B0.0 W0.3 W0.2 W0.1 W0.0
    device 1 | .    F0.0 F0.1 F0.2 F0.3 B0.3 B0.2 B0.1 B0.0 W0.3 W0.2 W0.1 W0.0 .
  `);
});

test("wavefront: 2 stages, 2 micro-batches of 2 chunks, weights per item", () => {
  const of: ScheduleSpec = {
    ...base,
    kind: "wavefront",
    devices: 2,
    stages: 2,
    microBatches: 2,
    chunks: 2,
    weights: "per-item",
  };
  expect(picture(of, 1, 1, 1)).toBe(table`
    device 0 | F0.0 F0.1 F1.0 F1.1 B0.1 W0.1 B0.0 W0.0 B1.1 B1.0 W1.1 W1.0 .
    device 1 | .    F0.0 F0.1 B0.1 F1.0 B0.0 F1.1 B1.1 B1.0 W0.1 W0.0 W1.1 W1.0
  `);
});

test("a stage is named only where the row does not say it", () => {
  expect(printSchedule(parseSchedule("device 0 | 0F0 0B0.0\ndevice 1 |"))).toBe(
    "device 0 | F0 B0\ndevice 1 |",
  );
  expect(printSchedule([[{ phase: "W", stage: 3, microBatch: 1, chunk: 2 }]])).toBe("device 0 | 3W1.2");
});

test("a timeline may have columns that are not whole actions", () => {
  const of: ScheduleSpec = { ...base, kind: "gpipe", devices: 1, stages: 1, microBatches: 2 };
  const timeline = replay(schedule(of), of, uniformCosts(1, 2, 0));
  expect(renderTimeline(timeline, 0.5)).toBe("device 0 | F0 -- F1 -- B0 -- -- -- B1 -- -- --");
  expect(renderTimeline(timeline, 2)).toBe("device 0 | F1 B0 B1");
});

test("an unreadable schedule is refused with every row and word", () => {
  expect(() => parseSchedule("device 0 | F0 X1 B0\ndevice 2 | F0\nF0 B0")).toThrow(
    "cannot read the schedule:\n" +
      '  - device 0, position 1: expected an action like F0, B0.2 or 1W0.2, got "X1"\n' +
      "  - row 2: expected device 1, got device 2\n" +
      '  - row 3: expected "device 2 | ...", got "F0 B0"',
  );
});
