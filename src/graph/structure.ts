/**
 * When are two graphs the same computation? When operations, attributes, types and wiring agree; names, roles, groups and
 * phases do not matter. Eight equal layers then share one compiled kernel, with their parameters as inputs.
 */

import { hashIndex } from "../base/random.ts";
import type { Graph } from "./graph.ts";
import { showType, type TensorType } from "./shape.ts";

/** 128 bits as hexadecimal text: equal for graphs of equal structure, different (but for chance) for all others. */
export function structureKey(graph: Graph): string {
  return hashText(structureText(graph));
}

/** The canonical text that `structureKey` hashes: one line for every input, node and the list of outputs. */
export function structureText(graph: Graph): string {
  const show = (value: number) => showType(graph.types[value] as TensorType);
  const inputs = graph.inputs.map((_, value) => show(value));
  const nodes = graph.nodes.map(
    ({ op, inputs: operands, outputs }) =>
      `${canonical(op)} ${operands.join(",")} > ${outputs.map(show).join(" ")}`,
  );
  return [...inputs, ...nodes, graph.outputs.map(({ value }) => value).join(",")].join("\n");
}

/** JSON with sorted keys; unlike JSON it tells -0, NaN and the infinities apart. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, entry]) => `${key}:${canonical(entry)}`).join(",")}}`;
  }
  return Object.is(value, -0) ? "-0" : typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** Four chains over the characters with different keys. */
function hashText(text: string): string {
  const chains = [0x2545f491, 0x9e3779b9, 0x51ed270b, 0x7f4a7c15];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    for (let chain = 0; chain < chains.length; chain++) {
      chains[chain] = hashIndex(Math.imul(chains[chain] as number, 0x01000193) ^ chain, code);
    }
  }
  return chains.map((chain) => hashIndex(chain, text.length).toString(16).padStart(8, "0")).join("");
}
