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
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
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
  text.split("\n").forEach((untrimmed, number) => {
    const line = untrimmed.trim();
    if (line === "") return;
    const parsed = parseLine(line);
    if (parsed === undefined) problems.push(`line ${number + 1}: ${line}`);
    else if ("value" in parsed) outputs.push(parsed);
    else {
      if (!isInOrder(parsed, types.length, nodes.length))
        problems.push(
          `line ${number + 1}: inputs come first, and the next value is %${types.length}: ${line}`,
        );
      types.push(...parsed.types);
      if ("role" in parsed) inputs.push({ name: parsed.name, role: parsed.role, group: parsed.group });
      else nodes.push(parsed.node);
    }
  });
  if (problems.length > 0) throw new UserError("cannot read this graph", problems);
  return { inputs, nodes, outputs, types };
}

type Line = GraphOutput | Definition;
type Definition = { readonly ids: readonly ValueId[]; readonly types: readonly TensorType[] } & (
  | GraphInput
  | { readonly node: Node }
);

function isInOrder(line: Definition, values: number, nodes: number): boolean {
  return line.ids.every((id, i) => id === values + i) && !("role" in line && nodes > 0);
}

const roles: readonly InputRole[] = ["data", "parameter", "state", "gradient", "scalar"];

const string = '"(?:[^"\\\\]|\\\\.)*"';
const outputLine = new RegExp(`^output (${string}) %(\\d+)$`);
const inputLine = new RegExp(
  `^%(\\d+): (\\S+) = input (${string}) \\{role: "(\\w+)", group: (${string})\\}$`,
);
const nodeLine = new RegExp(
  `^(%\\d+: [^=]*) = ([a-z0-9-]+)((?: %\\d+)*)(?: (\\{.*\\}))? @([\\w.:/-]+|${string}) ([FBWU])$`,
);

/** What a line says; undefined where it cannot be read. */
function parseLine(line: string): Line | undefined {
  try {
    return readLine(line);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function readLine(line: string): Line | undefined {
  const output = outputLine.exec(line);
  if (output) return { name: JSON.parse(output[1] as string), value: Number(output[2]) };
  const input = inputLine.exec(line);
  if (input) {
    const [, id, shown, name, word, group] = input as unknown as readonly [string, ...string[]];
    const type = parseType(shown as string);
    const role = roles.find((known) => known === word);
    if (type === undefined || role === undefined) return undefined;
    return {
      ids: [Number(id)],
      types: [type],
      name: JSON.parse(name as string),
      role,
      group: JSON.parse(group as string),
    };
  }
  const node = nodeLine.exec(line);
  return node ? parseNode(node) : undefined;
}

function parseNode(match: RegExpExecArray): Line | undefined {
  const [, results = "", kind = "", operands = "", attributes = "{}", group = "", phase] = match;
  if (!Object.hasOwn(opTable, kind)) return undefined;
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
  return { ids: node.outputs, types: types as TensorType[], node };
}

function parseType(text: string): TensorType | undefined {
  const match = /^(\w+)\[((?:\d+(?:,\d+)*)?)\]$/.exec(text);
  const dtype = match?.[1] as DType | undefined;
  if (!(match && dtype && dtypes.includes(dtype))) return undefined;
  return { dtype, shape: match[2] === "" ? [] : (match[2] as string).split(",").map(Number) };
}

/** The attributes of an operation: JSON with bare keys and the numbers that JSON lacks. Their only strings are element types. */
function parseAttributes(text: string): object {
  const json = text.replaceAll(/"[^"]*"|\w+(?=: )|-?Infinity|NaN/g, (match) =>
    match.startsWith('"') ? match : `"${match}"`,
  );
  return JSON.parse(json, (_key, value) =>
    value === "Infinity" || value === "-Infinity" || value === "NaN" ? Number(value) : value,
  );
}
