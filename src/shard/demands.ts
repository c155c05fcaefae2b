/**
 * Why what a layout asks for would split nothing: axes of meshes that no dim can carry, and shardings of parameters that do not exist or
 * cannot lie so. Asked once, of the graph that settles how parameters lie.
 */

import { closestMatch } from "leven";
import { type GraphInput, typeOf } from "../graph/graph.ts";
import type { OpKind } from "../graph/op.ts";
import type { Shape } from "../graph/shape.ts";
import type { Axis } from "./mesh.ts";
import { axesOf, showSharding } from "./sharding.ts";
import type { Limit, SplitContext } from "./site.ts";
import type { StageMesh } from "./split-source.ts";

/** One sentence for each demand of the layout that the split does not meet. */
export function unmetDemands(context: SplitContext): readonly string[] {
  return [...shardingProblems(context), ...groupProblems(context), ...stageProblems(context)];
}

/** What is known when `shardings` are checked; values only where something is split. */
type Asked = Pick<SplitContext, "source" | "limits"> & Partial<Pick<SplitContext, "values">>;

/** What `shardings` asks for and does not get, parameter by parameter. */
export function shardingProblems(context: Asked): readonly string[] {
  const { graph, chosen } = context.source;
  const parameters = graph.inputs.filter(({ role }) => role === "parameter").map(({ name }) => name);
  return [...chosen].flatMap(([name, dim]) => {
    const problem = parameters.includes(name)
      ? dimProblem(context, name, dim)
      : `the model has no such parameter; ${suggest(name, parameters)}`;
    return problem === undefined ? [] : [`shardings.${name}: ${problem}`];
  });
}

/** Why the tensor axis does not split a dim of a parameter; `undefined` where it does. */
function dimProblem(
  { source: { graph, meshOf }, values, limits }: Asked,
  name: string,
  dim: number | "whole",
): string | undefined {
  if (dim === "whole") return undefined;
  const value = graph.inputs.findIndex((input) => input.role === "parameter" && input.name === name);
  const { shape } = typeOf(graph, value);
  if (dim >= shape.length) return `dim ${dim}, but ${show(shape)} has ${dimsOf(shape)}`;
  const { stage, mesh } = meshOf((graph.inputs[value] as GraphInput).group);
  const along = mesh.axes.find(({ axis }) => axis === "tensor");
  if (along === undefined)
    return `dim ${dim} is to be split along tensor, but stages[${stage}], which holds it, has no such axis`;
  const entry = values?.entry(value);
  const sharding = entry?.kind === "made" ? entry.value.sharding : undefined;
  if (axesOf(sharding?.dims[dim] ?? []).includes("tensor")) return undefined;
  const limit = limits.find((own) => own.parameter === name && own.dim === dim);
  if (limit !== undefined)
    return `dim ${dim} of ${show(shape)} has ${pieces(limit)} for ${along.size} devices along tensor`;
  const user = graph.nodes.find(({ inputs }) => inputs.includes(value))?.op.kind;
  const lies = sharding === undefined ? "" : `; it lies as ${showSharding(sharding)}`;
  return `dim ${dim} of ${show(shape)} cannot be split: ${splittable(user)}${lies}`;
}

/** What the tensor axis can split of the weight of an operation. */
function splittable(user: OpKind | undefined): string {
  switch (user) {
    case "conv2d":
      return "a convolution splits output channels (dim 0) or input channels (dim 1)";
    case "gather":
      return "a table splits its rows (dim 0)";
    case "lstm":
    case "gru":
      return "a recurrent layer splits the units of all its weights together, by dim 0 of the input weight";
    default:
      return "it follows the weight or the values that it is used with";
  }
}

/** Groups with weights, none of which has a piece for every device along the tensor axis. */
function groupProblems({ source, values, limits }: SplitContext): readonly string[] {
  const { graph, meshOf, chosen } = source;
  const small = limits.filter(({ axis, parameter }) => axis === "tensor" && !chosen.has(parameter ?? ""));
  return [...new Set(small.map(({ group }) => group))].flatMap((group) => {
    const used = graph.nodes.flatMap((node) => (node.group === group ? node.inputs : []));
    const isSplit = used.some((value) => {
      const entry = values.entry(value);
      const isParameter = graph.inputs[value]?.role === "parameter";
      return (
        isParameter && entry.kind === "made" && entry.value.sharding.dims.flatMap(axesOf).includes("tensor")
      );
    });
    if (isSplit) return [];
    const most = small
      .filter((limit) => limit.group === group)
      .reduce((best, limit) => (limit.pieces > best.pieces ? limit : best));
    const value = graph.inputs.findIndex(({ name }) => name === most.parameter);
    const { stage, mesh } = meshOf(group);
    const weight = `dim ${most.dim} of "${most.parameter}" ${show(typeOf(graph, value).shape)} has ${pieces(most)}`;
    const advice =
      most.pieces > 1 ? `use at most tensor ${most.pieces}` : `hold it in a stage without a tensor axis`;
    return [
      `${place(stage, "tensor")}: layer "${group}" has no weight for ${sizeOfAxis(mesh, "tensor")} devices; ${weight}: ${advice}, or "shardings": {"${most.parameter}": "whole"}`,
    ];
  });
}

/** Stages in which nothing is split along an axis of their mesh. */
function stageProblems(context: SplitContext): readonly string[] {
  const { graph, meshOf } = context.source;
  const stages = new Map<number, { readonly mesh: StageMesh["mesh"]; readonly groups: readonly string[] }>();
  for (const { group } of graph.nodes) {
    const { stage, mesh } = meshOf(group);
    const groups = stages.get(stage)?.groups ?? [];
    stages.set(stage, { mesh, groups: [...new Set([...groups, group])] });
  }
  return [...stages].flatMap(([stage, { mesh, groups }]) =>
    mesh.axes.flatMap(({ axis, size }) => {
      const isCarried = context.carried.get(stage)?.has(axis) === true;
      const small = context.limits.filter((limit) => limit.axis === axis && groups.includes(limit.group));
      if (isCarried || (axis === "tensor" && small.length > 0)) return [];
      return [
        `${place(stage, axis)}: ${size} devices, but nothing in ${layers(groups)} is split along ${axis}: ${reason(context, groups, axis, small)}`,
      ];
    }),
  );
}

function reason(
  context: SplitContext,
  groups: readonly string[],
  axis: Axis["axis"],
  small: readonly Limit[],
): string {
  const most = Math.max(...small.map(({ pieces: count }) => count));
  switch (axis) {
    case "height":
    case "width": {
      const unit = axis === "height" ? "rows" : "columns";
      const only = `only convolution and pooling deal out ${unit} of images`;
      return small.length === 0
        ? `${only}, and there is none`
        : `${only}, and here they have at most ${most}`;
    }
    case "sequence":
      return sequenceReason(context, groups);
    default:
      return "no layer there has weights that can be split";
  }
}

function sequenceReason({ source: { graph, timeDims } }: SplitContext, groups: readonly string[]): string {
  const steps = graph.inputs.flatMap(({ name }, value) =>
    timeDims(name).map((dim) => typeOf(graph, value).shape[dim] as number),
  );
  if (steps.length === 0) return "the data have no time dim";
  const isRecurrent = graph.nodes.some(
    ({ op, group }) => groups.includes(group) && (op.kind === "lstm" || op.kind === "gru"),
  );
  if (isRecurrent) return "recurrent layers need all time steps in their order";
  return `time steps (here ${Math.max(...steps)}) are dealt out where data come in, and values from a stage with another mesh come whole`;
}

function place(stage: number, axis: Axis["axis"]): string {
  return `stages[${stage}].mesh.${axis}`;
}

function sizeOfAxis({ axes }: StageMesh["mesh"], axis: Axis["axis"]): number {
  return axes.find((own) => own.axis === axis)?.size ?? 1;
}

function layers(groups: readonly string[]): string {
  const names = groups.map((group) => `"${group}"`).join(", ");
  return `${groups.length === 1 ? "layer" : "layers"} ${names}`;
}

/** `4 heads of 16`, `1 row`. */
function pieces({ pieces: count, unit }: Limit): string {
  return `${count} ${count === 1 ? unit.replace(/s( |$)/, "$1") : unit}`;
}

function show(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

function dimsOf({ length }: Shape): string {
  if (length === 0) return "no dim";
  return length === 1 ? "dim 0 only" : `dims 0 to ${length - 1}`;
}

/** The name that differs least from one that is not there. */
function suggest(name: string, known: readonly string[]): string {
  const near = closestMatch(name, known, { maxDistance: Math.max(2, Math.floor(name.length / 3)) });
  if (near !== undefined) return `did you mean ${near}?`;
  const first = known.slice(0, 8).join(", ");
  return known.length > 8 ? `it has ${first}, ... (${known.length})` : `it has ${first || "none"}`;
}
