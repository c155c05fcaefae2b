/** What a person reads of a layout: how every layer is split, what that moves, and what every device holds. */

import { showBytes } from "../../base/bytes.ts";
import { type TextColumn, textTable } from "../../base/text-table.ts";
import { type BatchShape, shapeKey } from "../../data/dataset.ts";
import { type Layout, meshAxes, meshSize, showMesh } from "../../layout/layout.ts";
import type { GroupSplit, ParameterSplit, SplitReport, StageSplit } from "../../plan/describe-split.ts";
import type { Move } from "../../plan/moves.ts";
import type { StepPrediction } from "../../plan/predict-step.ts";
import { formatCount, formatPercent, formatValue, plural } from "./format.ts";

/** What `paraxis layout` shows. */
export interface LayoutReport extends SplitReport {
  readonly job: string;
  readonly layout: Layout;
  /** The mini-batch of which one step is described. */
  readonly shape: BatchShape;
  /** Why the layout is as it is; empty where the user chose. */
  readonly reasons: readonly string[];
  /** By the estimated time of every operation, and for one device alone. */
  readonly predicted: StepPrediction & { readonly oneDeviceSeconds: number };
}

/** The report as text. */
export function describeLayout(report: LayoutReport): string {
  const { job, layout, shape, reasons, stages, devices, predicted } = report;
  const { microBatches, chunks, schedule, weights } = layout;
  const cut = [
    `mini-batch ${shapeKey(shape)}`,
    plural(microBatches, "micro-batch").replace(/batchs$/, "batches"),
    ...(chunks > 1 ? [plural(chunks, "chunk")] : []),
    `schedule ${schedule}`,
    `weights ${weights}`,
  ];
  const totals = devices.map(({ device, parameters, gradients, optimizer, sent }, i) => [
    device,
    ...[parameters, gradients, optimizer, sent].map(showBytes),
    formatPercent(predicted.busy[i] ?? 0),
  ]);
  const table = textTable(
    [
      left("device"),
      right("parameters"),
      right("gradients"),
      right("optimizer state"),
      right("sent per step"),
      right("computes"),
    ],
    totals,
  );
  return [
    `Layout of ${job}: ${cut.join(", ")}`,
    ...reasons,
    ...stages.map(describeStage),
    table,
    predictedSentence(report),
    legend(stages),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** What the step would take, and what one device would. */
function predictedSentence({ predicted: { seconds, oneDeviceSeconds }, devices }: LayoutReport): string {
  const milliseconds = `Predicted: ${formatValue(1000 * seconds)} ms a step`;
  if (devices.length === 1) return `${milliseconds}.`;
  const gain = oneDeviceSeconds / seconds;
  const slower = gain < 1 ? "; one device alone is faster" : "";
  return `${milliseconds}, ${gain.toFixed(2)} times as fast as one device${slower}; each device computes for the share shown.`;
}

function describeStage(split: StageSplit): string {
  const { stage, devices, mesh, groups, copies } = split;
  const names = devices.map((ranks) => ranks.join(" ")).join(" | ");
  const size = meshSize({ mesh });
  const lines = [
    `Stage ${stage} on ${names}${size === 1 ? "" : ` (${showMesh(split)})`}`,
    ...groups.map((group) => indent(describeGroup(group, split))),
  ];
  if (copies.length > 0)
    lines.push(indent(`copies of parameters that other stages update: ${copies.join(", ")}`));
  return lines.join("\n\n");
}

function describeGroup(
  { group, parameters, moves, isSequenceWhole }: GroupSplit,
  { mesh }: StageSplit,
): string {
  const lines = [group];
  if (parameters.length > 0)
    lines.push(
      indent(
        textTable(
          [left("parameter"), left("shape"), left("lies as"), right("elements"), right("bytes per device")],
          parameters.map(parameterRow),
        ),
      ),
    );
  else lines.push("  no parameters");
  const whole = parameters.filter(({ isWhole }) => isWhole).map(({ name }) => name);
  if (whole.length > 0 && (mesh.tensor ?? 1) > 1)
    lines.push(`  whole on all ${meshSize({ mesh })} devices: ${whole.join(", ")}`);
  if (isSequenceWhole)
    lines.push(
      `  the recurrent layer needs all time steps in their order: every device along sequence computes all of them`,
    );
  lines.push(...moveLines(moves));
  return lines.join("\n");
}

function parameterRow({ name, shape, lies, elements, bytes }: ParameterSplit): readonly string[] {
  return [name, `[${shape.join(", ")}]`, lies, range(elements, formatCount), range(bytes, showBytes)];
}

const phaseNames: { readonly [P in Move["phase"]]: string } = {
  F: "F",
  B: "B",
  W: "W",
  sum: "after W",
  U: "U",
};

/** `F  2 all-reduces of 64.0 KiB`: what each device moves in each phase. */
function moveLines(moves: readonly Move[]): readonly string[] {
  if (moves.length === 0) return ["  nothing moves"];
  const keys = [...new Set(moves.map(({ phase, kind }) => `${phase} ${kind}`))];
  const rows = keys.map((key) => {
    const alike = moves.filter(({ phase, kind }) => `${phase} ${kind}` === key);
    const [{ phase, kind }] = alike as [Move, ...Move[]];
    const counts = alike.map(({ count }) => count);
    return [
      phaseNames[phase],
      range(counts, formatCount),
      Math.max(...counts) === 1 ? kind : `${kind}s`,
      range(
        alike.map(({ bytes }) => bytes),
        showBytes,
      ),
      range(
        alike.map(({ sent }) => sent),
        showBytes,
      ),
    ];
  });
  const table = textTable(
    [left("phase"), right("number"), left("moves, per device"), right("bytes"), right("sent")],
    rows,
  );
  return [indent(table)];
}

/** The number where all are the same, else the least and the most. */
function range(numbers: readonly number[], format: (value: number) => string): string {
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  return least === most ? format(least) : `${format(least)} to ${format(most)}`;
}

function legend(stages: readonly StageSplit[]): string {
  const axes = new Set(stages.flatMap(({ mesh }) => meshAxes({ mesh }).map(({ axis }) => axis)));
  const shardings = stages.flatMap(({ groups }) =>
    groups.flatMap(({ parameters }) => parameters.flatMap(({ lies, isWhole }) => (isWhole ? [] : [lies]))),
  );
  const lines = [
    ...(shardings.length === 0
      ? []
      : [
          "n/tensor: these n rows, columns or channels are dealt out along the axis, evenly where a stage has no shares; a plain number is whole on every device.",
        ]),
    ...(shardings.some((lies) => / x /.test(lies))
      ? ["4 x n/tensor: a dim of 4 blocks (gates) of n, each of which is dealt out."]
      : []),
    ...(axes.size > 0 || stages.length > 1 || stages.some(({ devices }) => devices.length > 1)
      ? [
          "bytes: of the whole tensor of a collective, and of a message. sent: of S bytes over n devices, a device sends 2·S·(n-1)/n for an",
          "all-reduce, S·(n-1)/n for an all-gather or a reduce-scatter, and S for a message. Receivers are not counted again.",
        ]
      : []),
  ];
  return lines.join("\n");
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, "  ");
}

function left(header: string): TextColumn {
  return { header };
}

function right(header: string): TextColumn {
  return { header, align: "right" };
}
