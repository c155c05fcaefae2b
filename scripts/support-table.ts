/**
 * Writes docs/support.md: `npx tsx scripts/support-table.ts`. Derivatives come from the operation table, schedules from the checks that
 * refuse them; whether ONNX Runtime has kernels is found out by running a graph of each operation.
 */

import { realpathSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import type { Engine } from "../src/execute/engine.ts";
import type { DType } from "../src/graph/dtype.ts";
import type { OpKind } from "../src/graph/op.ts";
import { opTable } from "../src/graph/op-table.ts";
import type { WeightTiming } from "../src/layout/layout.ts";
import { onnxRuntimeEngine } from "../src/node/onnxruntime/engine.ts";
import {
  type ScheduleKind,
  type ScheduleSpec,
  scheduleKinds,
  specProblems,
} from "../src/schedule/schedule.ts";
import { expectAgrees } from "../test/execute/engine-run.ts";
import { casesOf } from "../test/onnx/cases.ts";

/** The types of the columns, and how far a result may be from the reference. */
const dtypes = { f32: 1e-5, f16: 2e-2, f64: 1e-11 } as const satisfies { readonly [D in DType]?: number };
const timings: readonly WeightTiming[] = ["fused", "per-item", "per-micro-batch", "deferred"];

/** The whole page. */
export async function supportPage(): Promise<string> {
  await using engine = onnxRuntimeEngine();
  const kinds = Object.keys(opTable) as OpKind[];
  const operations: string[][] = [];
  for (const kind of kinds) operations.push(await operationRow(engine, kind));
  return `${head}
${table(["operation", "derivative", "reference", ...Object.keys(dtypes).map((dtype) => `ONNX ${dtype}`)], operations)}

## Schedules

What each schedule accepts; the others are refused with a sentence ([layouts](guide/layouts.md#refusals)).

${table(
  [
    "schedule",
    ...timings.map((timing) => `weights \`${timing}\``),
    "chunks",
    "several stages on a device, in turn",
    "any placement",
    "stages over devices that hold others too",
  ],
  scheduleKinds.map(scheduleRow),
)}
`;
}

const head = `# What is supported

Written by \`npx tsx scripts/support-table.ts\`; a test keeps it up to date.

## Operations

- **derivative**: there is a rule in the operation table. Without one a gradient stops there: comparisons and whole numbers.
  Operations that graphs have only after they were differentiated need none: what derivatives are made of (\`...-grad\`), and what
  layers that are split over devices are made of (\`...-step\`, \`all-reduce\`, \`all-gather\`, \`reduce-scatter\`).
- **reference**: evaluation in float64, which the tests compare everything with.
- **ONNX**: ONNX Runtime runs it on the CPU in that type and agrees with the reference. \`f16\` is a way to store numbers: whatever
  calculates converts to f32 and back. Operations that no float takes part in are the same in all columns.
`;

async function operationRow(engine: Engine, kind: OpKind): Promise<string[]> {
  const { derive, evaluate } = opTable[kind];
  const runs: string[] = [];
  for (const dtype of ["f32", "f16", "f64"] as const) runs.push(mark(await agrees(engine, kind, dtype)));
  return [`\`${kind}\``, mark(derive !== null), mark(evaluate !== undefined), ...runs];
}

async function agrees(engine: Engine, kind: OpKind, dtype: keyof typeof dtypes): Promise<boolean> {
  const [sample] = fc.sample(casesOf(kind, dtype), { numRuns: 1, seed: 1 });
  if (sample === undefined) return false;
  try {
    await expectAgrees(engine, sample.graph, sample.inputs, { tolerance: dtypes[dtype], floor: 1 });
    return true;
  } catch {
    return false;
  }
}

function scheduleRow(kind: ScheduleKind): string[] {
  const legal = timings.filter((weights) => isLegal(kind, { weights }));
  const [weights = "fused"] = legal;
  return [
    `\`${kind}\``,
    ...timings.map((timing) => mark(legal.includes(timing))),
    mark(isLegal(kind, { weights, chunks: 2 })),
    mark(isLegal(kind, { weights, stages: 4 })),
    mark(isLegal(kind, { weights, placement: [[1], [0]] })),
    mark(isLegal(kind, { weights, stages: 3, placement: [[0], [1], [0, 1]] })),
  ];
}

interface Choice {
  readonly weights: WeightTiming;
  readonly chunks?: number;
  readonly stages?: number;
  readonly placement?: NonNullable<ScheduleSpec["placement"]>;
}

function isLegal(kind: ScheduleKind, choice: Choice): boolean {
  const problems = specProblems({ kind, devices: 2, stages: 2, microBatches: 4, chunks: 1, ...choice });
  return problems.length === 0;
}

function mark(holds: boolean): string {
  return holds ? "yes" : "–";
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  return [header, header.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

const page = new URL("../docs/support.md", import.meta.url);
const [, command] = process.argv;
if (command !== undefined && realpathSync(command) === fileURLToPath(import.meta.url)) {
  writeFileSync(page, await supportPage());
}
