/** Evaluates a graph and its split form with the reference engine on the same random inputs, and puts the parts together again. */

import { expect } from "vitest";
import { hashIndex, normal } from "../../src/base/random.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { sizeOf, stridesOf } from "../../src/graph/shape.ts";
import { type Block, blockOf } from "../../src/shard/block.ts";
import { partName } from "../../src/shard/inputs.ts";
import { coordinate, rankCount } from "../../src/shard/mesh.ts";
import type { SplitGraph } from "../../src/shard/split-source.ts";

/** Indices in the whole tensor of the elements of a block, in the block's order. */
function elementsOf({ shape, start, size }: Block): readonly number[] {
  const strides = stridesOf(shape);
  const own = stridesOf(size);
  return Array.from({ length: sizeOf(size) }, (_, element) =>
    size.reduce((sum, length, dim) => {
      const index = Math.floor(element / (own[dim] as number)) % length;
      return sum + (index + (start[dim] as number)) * (strides[dim] as number);
    }, 0),
  );
}

/** Values for all inputs: whole numbers below `vocabulary` for indices, normal numbers otherwise. */
function randomInputs(graph: Graph, vocabulary: number, seed = 1): Map<string, Dense> {
  return new Map(
    graph.inputs.map(({ name, role }, value) => {
      const { shape, dtype } = graph.types[value] as Graph["types"][number];
      const data = Float64Array.from({ length: sizeOf(shape) }, (_, i) => {
        if (dtype === "i32") return indexOf(name, hashIndex(seed + value, i) % vocabulary);
        if (dtype === "bool") return 1;
        return role === "scalar" ? 0.125 : numberOf(name, normal(seed + value, i) * 0.4);
      });
      return [name, { shape, data }] as const;
    }),
  );
}

function indexOf(name: string, random: number): number {
  if (name.startsWith("offset:")) return 0;
  return name.startsWith("key:") ? 17 : random;
}

/** Adam's mean squares are not negative. */
function numberOf(name: string, random: number): number {
  return name.startsWith("square:") ? Math.abs(random) : random;
}

/** All outputs of the split graph as whole tensors; those that are partial are added up. */
function evaluateSplit(split: SplitGraph, inputs: ReadonlyMap<string, Dense>): Map<string, Dense> {
  const given = new Map(
    split.graph.inputs.map(({ name }, value) => {
      const part = split.parts.get(name) ?? { of: name, rank: 0 };
      const from = inputs.get(part.of);
      if (from === undefined) throw new Error(`no input ${part.of}`);
      const { shape } = split.graph.types[value] as Graph["types"][number];
      const data =
        part.block === undefined
          ? from.data
          : Float64Array.from(elementsOf(part.block), (i) => from.data[i] as number);
      return [name, { shape, data }] as const;
    }),
  );
  const parts = evaluateGraph(split.graph, given);
  return new Map(
    [...split.outputs].map(([name, { mesh, sharding }]) => {
      const shape = sharding.dims.map((factors) => sizeOf(factors.map(({ size }) => size)));
      const data = new Float64Array(sizeOf(shape)).fill(Number.NaN);
      const seen = new Map<string, Float64Array>();
      for (let rank = 0; rank < rankCount(mesh); rank++) {
        const part = parts.get(partName(name, mesh, rank)) as Dense;
        const block = blockOf(sharding, mesh, rank);
        const elements = block ? elementsOf(block) : [...data.keys()];
        const at = sharding.partial.map((axis) => coordinate(mesh, rank, axis)).join();
        const copy = seen.get(at) ?? data.slice();
        elements.forEach((element, i) => {
          const known = copy[element] as number;
          const value = part.data[i] as number;
          if (!Number.isNaN(known)) expect(value, `${name}: ranks with the same part differ`).toBe(known);
          copy[element] = value;
        });
        seen.set(at, copy);
      }
      const [first, ...others] = [...seen.values()] as [Float64Array, ...Float64Array[]];
      const total = first.map((value, i) => others.reduce((sum, copy) => sum + (copy[i] as number), value));
      return [name, { shape, data: total }] as const;
    }),
  );
}

/** Every output of the split graph is that of the whole graph, to 1e-9 of its largest element. */
export function expectSameOutputs(graph: Graph, split: SplitGraph, vocabulary: number): void {
  const inputs = randomInputs(graph, vocabulary);
  const expected = evaluateGraph(graph, inputs);
  const got = evaluateSplit(split, inputs);
  expect([...got.keys()].toSorted()).toEqual([...expected.keys()].toSorted());
  for (const [name, { data, shape }] of expected) {
    const own = got.get(name) as Dense;
    expect(own.shape, name).toEqual(shape);
    const scale = data.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
    data.forEach((value, i) => {
      if (!(Math.abs((own.data[i] as number) - value) <= 1e-9 * scale))
        expect(own.data[i], `${name}[${i}] of [${shape}]`).toBe(value);
    });
  }
}
