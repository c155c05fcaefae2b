/** What a person reads before and after a training run. */

import { showBytes } from "../../base/bytes.ts";
import { textTable } from "../../base/text-table.ts";
import { type LayoutStage, meshSize, showMesh } from "../../layout/layout.ts";
import type { PhaseSummary, StartEvent, TrainSummary } from "../train/events.ts";
import {
  formatCount,
  formatDuration,
  formatMetrics,
  formatPercent,
  formatValue,
  labelled,
  plural,
} from "./format.ts";

/** What is going to be trained, on what, for how long. */
export function describeStart(event: StartEvent): string {
  const { groups, parameters, loss, optimizer, seed, steps, stepsPerEpoch, runFolder } = event;
  const epochs = steps / stepsPerEpoch;
  const passes = `${Number(epochs.toFixed(2))} ${epochs === 1 ? "epoch" : "epochs"}`;
  const length = `${plural(steps, "step")}, ${passes} of ${formatCount(stepsPerEpoch)}`;
  const rows: [string, string][] = [
    ["model", `${plural(parameters, "parameter")} in ${plural(groups.length, "group")}: ${shorten(groups)}`],
    ["data", describeData(event.data)],
    ["training", `${loss}, ${optimizer}, seed ${seed}; ${length}`],
    [
      "devices",
      event.devices.map(({ name, threads }) => `${name} (${plural(threads, "thread")})`).join(", "),
    ],
  ];
  if (event.stages.length > 1 || event.stages.some((stage) => meshSize(stage) > 1)) {
    rows.push(
      ...event.stages.map((stage, i): [string, string] => [
        `stage ${i}`,
        `${describeDevices(stage)}: ${shorten(stage.groups)}`,
      ]),
    );
  }
  rows.push(...event.reasons.map((reason, i): [string, string] => [i === 0 ? "layout" : "", reason]));
  if (runFolder !== undefined) rows.push(["run folder", runFolder]);
  return `Training ${event.job}\n\n${labelled(rows)}\n`;
}

/** `cpu:0`, with a mesh `cpu:0 cpu:1 (tensor 2)`, with replicas `cpu:0 | cpu:2`. */
function describeDevices(stage: LayoutStage): string {
  const size = meshSize(stage);
  const replicas = Array.from({ length: stage.devices.length / size }, (_, replica) =>
    stage.devices.slice(replica * size, (replica + 1) * size).join(" "),
  );
  return `${replicas.join(" | ")}${size === 1 ? "" : ` (${showMesh(stage)})`}`;
}

/** How it went, and where everything is. */
export function describeEnd(summary: TrainSummary, unit: StartEvent["unit"]): string {
  const { reason, steps, seconds, tokensPerSecond, parameters, runFolder } = summary;
  const head = `${reason === "stopped" ? "Stopped after" : "Trained"} ${plural(steps, "step")}`;
  const speed =
    steps === 0 ? "" : ` in ${formatDuration(seconds)}, ${formatCount(tokensPerSecond)} ${unit}/s`;
  const rows = lossRows(summary);
  if (parameters !== undefined) rows.push(["parameters", parameters]);
  if (runFolder !== undefined) rows.push(["metrics", `${runFolder}/metrics.jsonl`]);
  if (summary.trace !== undefined) rows.push(["trace", `${summary.trace} (open it in ui.perfetto.dev)`]);
  return `${head}${speed}.\n\n${labelled(rows)}\n${describePhases(summary.phases, unit)}`;
}

/** Who computed when: in words for one layout, side by side for several. */
function describePhases(phases: readonly PhaseSummary[], unit: StartEvent["unit"]): string {
  const done = phases.filter(({ steps }) => steps > 0);
  const [first] = done;
  if (first === undefined || first.devices.length < 2) return "";
  const words = done.flatMap(({ name, sentences }) =>
    sentences.map((sentence) => (done.length > 1 ? `${name}: ${sentence}` : sentence)),
  );
  const text = words.map((sentence) => `  ${sentence}`).join("\n");
  return done.length === 1 ? `\n${text}\n` : `\n${comparison(done, unit)}\n\n${text}\n`;
}

function comparison(phases: readonly PhaseSummary[], unit: StartEvent["unit"]): string {
  const [first] = phases as readonly [PhaseSummary, ...PhaseSummary[]];
  const row = (label: string, show: (phase: PhaseSummary) => string) => [label, ...phases.map(show)];
  const rows = [
    row("steps", ({ steps }) => formatCount(steps)),
    row(`${unit}/s`, ({ tokensPerSecond }) => formatCount(tokensPerSecond)),
    row("times as fast", ({ tokensPerSecond }) => (tokensPerSecond / first.tokensPerSecond).toFixed(2)),
    ...first.devices.map(({ name }, i) =>
      row(`${name} computes`, ({ devices }) => formatPercent(devices[i]?.busy ?? 0)),
    ),
    row("devices at once", ({ concurrency }) => concurrency.toFixed(2)),
    ...first.devices.map(({ name }, i) =>
      row(`${name} memory`, ({ devices }) => showBytes(devices[i]?.peakBytes ?? 0)),
    ),
  ];
  const columns = ["", ...phases.map(({ name }) => name)].map((header, i) => ({
    header,
    align: i === 0 ? ("left" as const) : ("right" as const),
  }));
  return textTable(columns, rows)
    .split("\n")
    .map((line) => `  ${line}`)
    .join("\n")
    .trimEnd();
}

function lossRows({ training, validation, unigramPerplexity }: TrainSummary): [string, string][] {
  const rows: [string, string][] = [];
  const show = ({ loss, perplexity }: { readonly loss: number; readonly perplexity?: number }): string =>
    perplexity === undefined
      ? formatValue(loss)
      : `${formatValue(loss)}, perplexity ${formatValue(perplexity)}`;
  if (training !== undefined) {
    rows.push([
      "training loss",
      `${show(training)} (mean of the last ${plural(training.lastSteps, "step")})`,
    ]);
  }
  if (validation === undefined) return rows;
  rows.push(["validation loss", `${show(validation)}${formatMetrics(validation.metrics)}`]);
  if (validation.perplexity !== undefined && unigramPerplexity !== undefined) {
    const verdict =
      validation.perplexity < unigramPerplexity
        ? "the model has learned more than how often each token occurs"
        : "the model has not yet learned more than how often each token occurs";
    rows.push(["unigram baseline", `perplexity ${formatValue(unigramPerplexity)}: ${verdict}`]);
  }
  return rows;
}

/** `embed, layer0, layer1, ... decode`. */
function shorten(groups: readonly string[]): string {
  return groups.length <= 12 ? groups.join(", ") : `${groups.slice(0, 8).join(", ")}, ... ${groups.at(-1)}`;
}

/** `text moby-dick, sentences 8,858`; buckets and the like are left to run.json. */
function describeData(facts: StartEvent["data"]): string {
  return Object.entries(facts)
    .filter(([label]) => !label.startsWith("bucket "))
    .map(([label, value]) => {
      if (typeof value === "number") return `${formatCount(value)} ${label}`;
      return label === "data" || label === "text" ? value : `${label} ${value}`;
    })
    .join(", ");
}
