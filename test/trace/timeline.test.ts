import fc from "fast-check";
import { expect, test } from "vitest";
import { renderStep } from "../../src/trace/timeline.ts";
import { anyTrace, pipelined, serial, trace } from "./hand-made.ts";

test("a step is drawn with a letter per phase, ~ for transfers and . for idle", () => {
  expect(renderStep(serial, { step: 0, width: 48 })).toBe(
    [
      "step 0: 10.0 s, one column is 250 ms",
      "cpu:0 |FFFFFFFF~~~~................~~~~BBBBBBBB|",
      "cpu:1 |........~~~~FFFFFFFFBBBBBBBB~~~~........|",
      "F forward  B, W backward  U update  # other work",
    ].join("\n"),
  );
  expect(renderStep(pipelined, { step: 0, width: 38 })).toBe(
    [
      "step 0: 10.0 s, one column is 333 ms".slice(0, 38),
      "cpu:0 |FFFFFFFFFFFFWWWWWWWWWWWW......|",
      "cpu:1 |......BBBBBBBBBBBBBBBBBBUUUUUU|",
      "F forward  B, W backward  U update  # ",
    ].join("\n"),
  );
});

test("a step that is not in the trace says so", () => {
  expect(renderStep(trace(2, []), { step: 3, width: 80 })).toBe("step 3: nothing was recorded");
});

test("no line is wider than asked for", () => {
  fc.assert(
    fc.property(anyTrace, fc.integer({ min: 30, max: 120 }), (any, width) => {
      const rows = renderStep(any, { step: 0, width }).split("\n");
      for (const row of rows) expect(row.length).toBeLessThanOrEqual(width);
    }),
    { numRuns: 40 },
  );
});
