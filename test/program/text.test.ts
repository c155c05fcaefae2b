import fc from "fast-check";
import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import type { DType } from "../../src/graph/dtype.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { parsePrograms } from "../../src/program/parse.ts";
import type { BufferSpec, Instruction, ItemId, Program } from "../../src/program/program.ts";
import { printTable } from "../../src/program/table.ts";
import { bufferKinds, printProgram, printPrograms } from "../../src/program/text.ts";
import { edited, stackedRows, twoDevices } from "./hand-made.ts";
import { choices, cuts, realPrograms } from "./real-programs.ts";

const dtypes: readonly DType[] = ["f32", "f16", "f64", "i32", "i64", "bool"];
/** Names that are easy to misread: like references, numbers, keywords, quotes, or equal to another. */
const names = fc.oneof(
  fc.string(),
  fc.constantFrom(
    "%7[0.1]",
    "grad:layer0.weight",
    "#1",
    "1",
    "a, b",
    'say "x"',
    "rows 2 of a",
    "zero f32[2,3]",
    "",
    "é",
    "\n",
  ),
);
const items: fc.Arbitrary<{ readonly item?: ItemId }> = fc.oneof(
  fc.constant({}),
  fc.record({ item: fc.record({ microBatch: fc.nat(20), chunk: fc.nat(20) }) }),
);
const indices = fc.array(fc.nat(30), { maxLength: 3 });
const ranks = fc.oneof(fc.constant({}), fc.record({ rank: fc.nat(9) }));
const meetings = fc
  .tuple(
    fc.record(
      {
        group: fc.nat(9),
        ranks: fc.array(fc.nat(9), { minLength: 1, maxLength: 3 }),
        phase: fc.constantFrom("F", "B", "W", "U"),
      },
      { requiredKeys: ["group", "ranks"] },
    ),
    items,
  )
  .map(([meeting, item]) => ({ ...meeting, ...item }));
const kernel: Graph = { ...(edited(twoDevices)[0]?.kernels[2] as Graph) };

/** Programs of any sense or none. */
const programs: fc.Arbitrary<readonly Program[]> = fc.array(
  fc.nat(5).chain((more) => {
    const buffer = fc.nat(more);
    const group = names;
    const instruction: fc.Arbitrary<Instruction> = fc.oneof(
      fc
        .tuple(
          fc.record({
            kind: fc.constant("run" as const),
            kernel: fc.nat(3),
            inputs: fc.array(buffer, { maxLength: 3 }),
            outputs: fc.array(buffer, { maxLength: 3 }),
            phase: fc.constantFrom("F", "B", "W", "U"),
            stage: fc.nat(9),
            group,
          }),
          ranks,
          items,
        )
        .map(([run, rank, item]) => ({ ...run, ...rank, ...item })),
      fc
        .tuple(
          fc.record({ kind: fc.constant("send" as const), buffer, to: fc.nat(9), tag: fc.nat(99) }),
          items,
        )
        .map(([send, item]) => ({ ...send, ...item })),
      fc
        .tuple(
          fc.record({ kind: fc.constant("receive" as const), buffer, from: fc.nat(9), tag: fc.nat(99) }),
          items,
        )
        .map(([receive, item]) => ({ ...receive, ...item })),
      fc
        .tuple(
          fc.record({
            kind: fc.constant("all-reduce" as const),
            buffer,
            reduce: fc.constantFrom("sum", "max"),
          }),
          meetings,
        )
        .map(([reduction, meeting]) => ({ ...reduction, ...meeting })),
      fc
        .tuple(
          fc.record({
            kind: fc.constantFrom("all-gather" as const, "reduce-scatter" as const),
            buffer,
            into: buffer,
            sizes: fc.array(fc.nat(99), { minLength: 1, maxLength: 3 }),
          }),
          meetings,
        )
        .map(([parted, meeting]) => ({ ...parted, ...meeting })),
      fc.record({ kind: fc.constantFrom("free" as const, "guard" as const), buffer }),
    );
    const spec: fc.Arbitrary<BufferSpec> = fc.record(
      {
        name: names,
        type: fc.record({ dtype: fc.constantFrom(...dtypes), shape: fc.array(fc.nat(30), { maxLength: 3 }) }),
        kind: fc.constantFrom(...bufferKinds),
        value: fc.double(),
        view: fc.record({ of: buffer, row: fc.nat(30) }),
        block: fc.record({ shape: indices, start: indices, size: indices }),
      },
      { requiredKeys: ["name", "type", "kind"] },
    );
    return fc.record({
      device: fc.nat(9),
      kernels: fc.array(fc.constant(kernel), { maxLength: 2 }),
      buffers: fc.array(spec, { minLength: more + 1, maxLength: more + 1 }),
      instructions: fc.array(instruction, { maxLength: 8 }),
      feeds: fc.array(fc.record({ buffer, input: names, start: fc.array(fc.nat(9), { maxLength: 3 }) }), {
        maxLength: 2,
      }),
    });
  }),
  { maxLength: 3 },
);

test("any program, printed and parsed, is the same program", () => {
  fc.assert(
    fc.property(programs, (some) => {
      expect(parsePrograms(printPrograms(some))).toStrictEqual(structuredClone(some));
    }),
    { numRuns: 300 },
  );
});

test("real programs, printed and parsed, are the same programs", () => {
  for (const choice of choices().filter((_choice, i) => i % 11 === 0)) {
    const real = realPrograms(choice);
    expect(parsePrograms(printPrograms(real))).toEqual(real);
  }
});

test("text written by hand is printed as it was written", () => {
  for (const text of [twoDevices, stackedRows]) expect(printPrograms(parsePrograms(text))).toBe(text);
  expect(printProgram(parsePrograms(stackedRows)[0] as Program)).toBe(stackedRows);
});

test("the programs of a two-stage language model read as reviewed", async () => {
  const stages = cuts[1] ?? [];
  const real = realPrograms({
    model: "lstm",
    stages,
    microBatches: 2,
    chunks: 1,
    schedule: "1f1b",
    weights: "per-item",
  });
  const withoutKernels = real.map((program) => ({ ...program, kernels: [] }));
  await expect(`${printTable(real)}\n\n${printPrograms(withoutKernels)}`).toMatchFileSnapshot(
    "golden/two-stages-1f1b.txt",
  );
});

test("every line that cannot be read is named", () => {
  const text = twoDevices
    .replace("free y[0.0]\nrun k0 (w, x[1.0])", "free y[7.7]\nrun k0 (w, x[1.0])")
    .replace("buffer rate: f32[] scalar", "buffer rate: f31[] scalar")
    .replace("guard scale\nrun", "gard scale\nrun")
    .replace("%2: f32[2] = mul %0 %1 @below F", "%2: f32[2] = mull %0 %1 @below F");
  let problems: readonly string[] = [];
  try {
    parsePrograms(text);
  } catch (error) {
    if (error instanceof UserError) problems = error.problems;
  }
  expect(problems).toEqual([
    "line 11: buffer rate: f31[] scalar",
    "line 16: free y[7.7]",
    "line 28: gard scale",
    "kernel k0 of program 0, line 3: %2: f32[2] = mull %0 %1 @below F",
  ]);
  expect(() => parsePrograms("hello\n")).toThrow(
    'cannot read these programs: line 1: expected "program 0", got "hello"',
  );
});

test("the table shows receives below their sends and an arrow at each fault", () => {
  const faults = [{ device: 1, instruction: 3 }, { device: 0 }];
  expect(printTable(edited(twoDevices), faults)).toBe(
    [
      "device 0 <-- HERE  device 1",
      "-----------------  -----------------------",
      " 0 F below 0.0",
      " 1 send→1 #0 0.0",
      " 3 F below 1.0      0 recv←0 #0 0.0",
      " 4 send→1 #1 1.0    1 F above 0.0",
      "                    2 B above 0.0",
      "                    3 free y[0.0] <-- HERE",
      "                    4 send→0 #2 0.0",
      " 6 recv←1 #2 0.0    6 recv←0 #1 1.0",
      " 7 W below 0.0      7 F above 1.0",
      "                    8 B above 1.0",
      "                   10 send→0 #3 1.0",
      " 9 recv←1 #3 1.0",
      "10 W below 1.0",
      "12 U below",
      "13 send→1 #4",
      "14 guard scale     12 recv←0 #4",
      "15 U below         13 guard scale",
      "17 send→1 #5",
      "                   15 recv←0 #5",
    ].join("\n"),
  );
});
