import { Writable } from "node:stream";
import { expect, test } from "vitest";
import { formatDuration, formatValue } from "../../../src/node/cli/format.ts";
import { openProgress, type ProgressStream } from "../../../src/node/cli/progress.ts";
import type { StartEvent, StepEvent } from "../../../src/node/train/events.ts";

const start: StartEvent = {
  kind: "start",
  job: "job",
  seed: 1,
  engine: "onnxruntime",
  devices: [{ name: "cpu:0", threads: 1 }],
  stages: [{ devices: ["cpu:0"], groups: ["a"] }],
  reasons: [],
  groups: ["a"],
  parameters: 10,
  loss: "cross-entropy",
  optimizer: "sgd",
  data: {},
  unit: "tokens",
  steps: 40,
  stepsPerEpoch: 20,
  validation: true,
  unigramPerplexity: 50,
};

function step(number: number): StepEvent {
  return {
    kind: "step",
    step: number,
    epoch: 1,
    loss: Math.log(30),
    perplexity: 30,
    gradientNorm: 1,
    rate: 0.1,
    targets: 100,
    tokens: 100,
    seconds: 0.5,
    tokensPerSecond: 200,
  };
}

/** A stream that keeps what is written, and a clock that the test moves. */
function screen(isTTY: boolean): {
  readonly stream: ProgressStream;
  text(): string;
  readonly clock: { seconds: number };
} {
  let text = "";
  const stream = new Writable({
    write: (piece, _encoding, done) => {
      text += piece;
      done();
    },
  });
  const clock = { seconds: 0 };
  return { stream: Object.assign(stream, { isTTY, columns: 120 }), text: () => text, clock };
}

test("without a terminal, progress is one line every five seconds and one at the end", () => {
  const { stream, text, clock } = screen(false);
  using progress = openProgress(stream, () => clock.seconds);
  progress.show(start);
  for (let number = 1; number <= 40; number++) {
    clock.seconds += 0.5;
    progress.show(step(number));
  }
  const lines = text().trimEnd().split("\n");
  expect(lines.map((line) => line.split(" | ")[0])).toEqual([
    "step 1/40",
    "step 11/40",
    "step 21/40",
    "step 31/40",
    "step 40/40",
  ]);
  expect(lines[1]).toBe("step 11/40 | loss 3.401 | perplexity 30.00 | 200 tokens/s | 15 s left");
  expect(lines.at(-1)).toContain("validating");
});

test("an evaluation in between is told beside the unigram baseline", () => {
  const { stream, text, clock } = screen(false);
  using progress = openProgress(stream, () => clock.seconds);
  progress.show(start);
  progress.show({
    kind: "evaluation",
    step: 20,
    epoch: 1,
    loss: 3,
    perplexity: 20.09,
    targets: 9,
    seconds: 1,
  });
  expect(text()).toBe(
    "validation after step 20, epoch 1: loss 3.000, perplexity 20.09 (unigram baseline 50.00)\n",
  );
});

test("on a terminal, progress is a bar that gives way to remarks and brings the cursor back", () => {
  const { stream, text, clock } = screen(true);
  const progress = openProgress(stream, () => clock.seconds);
  progress.show(start);
  clock.seconds = 10;
  progress.show(step(20));
  progress.note("a remark");
  progress[Symbol.dispose]();
  expect(text()).toContain("50 % | step 20/40 | loss 3.401 | perplexity 30.00 | 200 tokens/s | validating");
  expect(text()).toContain("a remark\n");
  expect(text()).toContain("\u001b[?25l");
  expect(text().lastIndexOf("\u001b[?25h")).toBeGreaterThan(text().lastIndexOf("\u001b[?25l"));
});

test("numbers have four digits, and durations a unit that fits", () => {
  expect([0, 0.00012345, 0.5, 5.7123, 294.96, 12_345.6, Number.NaN].map(formatValue)).toEqual([
    "0",
    "1.23e-4",
    "0.5000",
    "5.712",
    "295.0",
    "12,346",
    "NaN",
  ]);
  expect([0.25, 9.96, 59.4, 65, 3723].map(formatDuration)).toEqual([
    "0.3 s",
    "10.0 s",
    "59 s",
    "1:05",
    "1:02:03",
  ]);
});
