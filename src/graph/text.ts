/**
 * The text form of a graph, made to be read in a review; `parse(print(graph))` is the same graph.
 *
 *     %0: f32[20,400] = input "x" {role: "data", group: "embed"}
 *     %1: f32[400,10] = input "w" {role: "parameter", group: "decode"}
 *     %2: f32[20,10] = matmul %0 %1 {transposeA: false, transposeB: false} @decode F
 *     output "y" %2
 */

import { UserError } from "../base/errors.ts";
import { type DType, dtypes } from "./dtype.ts";
import type { Graph, GraphInput, GraphOutput, InputRole, Node, Phase, ValueId } from "./graph.ts";
import type { Op, OpKind } from "./op.ts";
import { opTable } from "./op-table.ts";
import { showType, type TensorType } from "./shape.ts";

export function printGraph(graph: Graph): string {
  const typed = (value: ValueId) => `%${value}: ${showType(graph.types[value] as TensorType)}`;
  const inputs = graph.inputs.map(
    ({ name, role, group }, value) =>
      `${typed(value)} = input ${JSON.stringify(name)} ${printAttributes({ role, group })}`,
  );
  const nodes = graph.nodes.map(({ op, inputs: operands, outputs, group, phase }) => {
    const { kind, ...attributes } = op;
    const words = [
      kind,
      ...operands.map((value) => `%${value}`),
      printAttributes(attributes),
      `@${quoteWord(group)}`,
      phase,
    ];
    return `${outputs.map(typed).join(", ")} = ${words.filter((word) => word !== "").join(" ")}`;
  });
  const outputs = graph.outputs.map(({ name, value }) => `output ${JSON.stringify(name)} %${value}`);
  return `${[...inputs, ...nodes, ...outputs].join("\n")}\n`;
}

/** `{dims: [0, 1], keep: false}`; nothing when there are none. Numbers print so that they parse to the same number. */
function printAttributes(attributes: object): string {
  const entries = Object.entries(attributes);
  if (entries.length === 0) return "";
  return `{${entries.map(([key, value]) => `${key}: ${printValue(value)}`).join(", ")}}`;
}

function printValue(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(printValue).join(", ")}]`;
  if (typeof value === "object" && value !== null) return printAttributes(value);
  if (typeof value === "number" && !Number.isFinite(value)) return `"${value}"`;
  if (Object.is(value, -0)) return "-0";
  return JSON.stringify(value);
}

function quoteWord(word: string): string {
  return /^[\w.:/-]+$/.test(word) ? word : JSON.stringify(word);
}

/** The graph that a text describes. Throws a `UserError` that names every line it cannot read. */
export function parseGraph(text: string): Graph {
  const inputs: GraphInput[] = [];
  const nodes: Node[] = [];
  const outputs: GraphOutput[] = [];
  const types: TensorType[] = [];
  const problems: string[] = [];
  text.split("\n").forEach((line, number) => {
    if (line.trim() === "") return;
    const parsed = parseLine(line);
    if (parsed === undefined) problems.push(`line ${number + 1}: ${line.trim()}`);
    else if ("value" in parsed) outputs.push(parsed);
    else {
      types.push(...parsed.types);
      if ("role" in parsed) inputs.push({ name: parsed.name, role: parsed.role, group: parsed.group });
      else nodes.push(parsed.node);
    }
  });
  if (problems.length > 0) throw new UserError("cannot read this graph", problems);
  return { inputs, nodes, outputs, types };
}

type Line =
  | GraphOutput
  | ({ readonly types: readonly TensorType[] } & (GraphInput | { readonly node: Node }));

const string = '"(?:[^"\\\\]|\\\\.)*"';
const outputLine = new RegExp(`^output (${string}) %(\\d+)$`);
const inputLine = new RegExp(`^%\\d+: (\\S+) = input (${string}) (\\{.*\\})$`);
const nodeLine = new RegExp(
  `^(%\\d+: [^=]*) = ([a-z0-9-]+)((?: %\\d+)*)(?: (\\{.*\\}))? @([\\w.:/-]+|${string}) ([FBWU])$`,
);

function parseLine(line: string): Line | undefined {
  const output = outputLine.exec(line);
  if (output) return { name: JSON.parse(output[1] as string), value: Number(output[2]) };
  const input = inputLine.exec(line);
  if (input) {
    const type = parseType(input[1] as string);
    const { role, group } = parseAttributes(input[3] as string) as { role: InputRole; group: string };
    return type && { name: JSON.parse(input[2] as string), role, group, types: [type] };
  }
  const node = nodeLine.exec(line);
  return node ? parseNode(node) : undefined;
}

function parseNode(match: RegExpExecArray): Line | undefined {
  const [, results = "", kind = "", operands = "", attributes = "{}", group = "", phase] = match;
  if (!(kind in opTable)) return undefined;
  const typed = [...results.matchAll(/%(\d+): ([^%]*?)(?:, (?=%)|$)/g)];
  const types = typed.map(([, , type]) => parseType(type as string));
  if (types.some((type) => type === undefined)) return undefined;
  const node: Node = {
    op: { kind: kind as OpKind, ...parseAttributes(attributes) } as unknown as Op,
    inputs: [...operands.matchAll(/%(\d+)/g)].map(([, id]) => Number(id)),
    outputs: typed.map(([, id]) => Number(id)),
    group: group.startsWith('"') ? JSON.parse(group) : group,
    phase: phase as Phase,
  };
  return { types: types as TensorType[], node };
}

function parseType(text: string): TensorType | undefined {
  const match = /^(\w+)\[([\d,]*)\]$/.exec(text);
  const dtype = match?.[1] as DType | undefined;
  if (!(match && dtype && dtypes.includes(dtype))) return undefined;
  return { dtype, shape: match[2] === "" ? [] : (match[2] as string).split(",").map(Number) };
}

/** The attribute syntax is JSON with bare keys; the pattern steps over strings, whose text may look like a key. */
function parseAttributes(text: string): object {
  const json = text.replaceAll(/"(?:[^"\\]|\\.)*"|(\w+)(?=: )/g, (match, key) =>
    key === undefined ? match : `"${key}"`,
  );
  return JSON.parse(json, (_key, value) =>
    value === "Infinity" || value === "-Infinity" || value === "NaN" ? Number(value) : value,
  );
}
