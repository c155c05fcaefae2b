/** What devices of a mesh hold and move, counted in compiled programs, is what the closed forms of docs/communication.md say. */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Mesh, meshAxisNames, type ZeroStage } from "../../src/layout/layout.ts";
import type { Move } from "../../src/plan/moves.ts";
import { planMemory } from "../../src/program/memory.ts";
import type { Program } from "../../src/program/program.ts";
import { root } from "../docs/pages.ts";
import {
  bytesHeld,
  type CountedModel,
  compileSplit,
  convolutionChain,
  flattened,
  models,
  movesOn,
  type Sizes,
  type Split,
} from "./counted.ts";
import { evaluateFormula } from "./formula.ts";

const page = readFileSync(`${root}docs/communication.md`, "utf8");

/** The rows of all tables that have these columns, as cells without backticks. */
function rowsUnder(...columns: string[]): readonly (readonly string[])[] {
  const header = `| ${columns.join(" | ")} |\n`;
  return page
    .split(header)
    .slice(1)
    .flatMap((rest) => {
      const table = rest.split("\n\n")[0] ?? "";
      return table
        .split("\n")
        .slice(1)
        .filter((line) => line.startsWith("|"))
        .map(cellsOf);
    });
}

function cellsOf(line: string): readonly string[] {
  return line
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim().replaceAll("`", ""));
}

interface Described {
  readonly model: CountedModel;
  readonly sizes: string;
  readonly parameters: string;
  readonly whole: string;
}

const described = rowsUnder("model", "sizes", "parameters", "whole").map((cells): Described => {
  const [title, sizes, parameters, whole] = cells as [string, string, string, string];
  const model = models.find((own) => own.title === title);
  if (model === undefined) throw new Error(`the page names a model that is not counted: ${title}`);
  return { model, sizes, parameters, whole };
});

/** Names that formulas use: sizes, the numbers of parameters, and the sizes of axes. */
function namesFor({ parameters, whole }: Described, sizes: Sizes, split: Sizes): Sizes {
  const own = { ...sizes, ...split };
  return { ...own, parameters: evaluateFormula(parameters, sizes), whole: evaluateFormula(whole, sizes) };
}

/** All weights of the two pairs of linear layers, [input features, output features]. */
const pairWeights = ["up.weight", "down.weight", "up2.weight", "down2.weight"];

/** `tensor 2, 2 replicas, zero 1` as numbers and as a split. */
function splitOf(text: string): { readonly axes: Sizes; readonly split: Split } {
  const axes: { [name: string]: number } = {};
  for (const [, word, number] of text.matchAll(/([a-z]+) (\d+)/g)) axes[word as string] = Number(number);
  for (const [, number, word] of text.matchAll(/(\d+) (replicas|chunks|items)/g))
    axes[word as string] = Number(number);
  const mesh: Mesh = Object.fromEntries(meshAxisNames.map((axis) => [axis, axes[axis]]));
  const { replicas = 1, chunks = 1, items = 1, zero = 0 } = axes;
  const columns = Object.fromEntries(pairWeights.map((name) => [name, 1]));
  const shardings = text.includes("by output features") ? columns : {};
  const rest = { chunks, microBatches: items, schedule: "gpipe", shardings } as const;
  return { axes, split: { mesh, replicas, rest: { ...rest, zero: zero as ZeroStage } } };
}

test("the page describes the models that are counted", () => {
  expect(described.map(({ model, sizes }) => [model.title, sizes])).toEqual(
    models.map(({ title, sizes }) => [
      title,
      Object.entries(sizes)
        .map((size) => size.join(" "))
        .join(", "),
    ]),
  );
});

describe("every table of what moves is what programs move, nothing more and nothing less", () => {
  const rows = rowsUnder("split", "model", "when", "collective", "times", "elements", "bytes", "sent");
  const cases = [...new Set(rows.map(([split, model]) => `${split}: ${model}`))];

  test("there are tables", () => expect(cases.length).toBeGreaterThan(20));

  test.each(cases)("%s", (title) => {
    const own = rows.filter(([split, model]) => `${split}: ${model}` === title);
    const [text = "", name = ""] = own[0] ?? [];
    const entry = described.find(({ model }) => model.title === name) as Described;
    const { axes, split } = splitOf(text);
    for (const sizes of [entry.model.sizes, entry.model.others]) {
      const names = namesFor(entry, sizes, axes);
      const counted = movesOn(compileSplit({ ...entry.model, sizes }, split), 0);
      const expected = own.map(([, , phase, kind, times = "", elements = ""]) => {
        return [phase, kind, evaluateFormula(times, names), 4 * evaluateFormula(elements, names)];
      });
      expect(counted.map(({ phase, kind, count, bytes }) => [phase, kind, count, bytes])).toEqual(expected);
      for (const move of counted) expectFewest(move, Object.values(axes));
      if (sizes === entry.model.others) continue;
      const numbers = counted.map(({ bytes, sent }) =>
        [bytes, sent].map((count) => count.toLocaleString("en")),
      );
      expect(own.map((cells) => cells.slice(-2))).toEqual(numbers);
    }
  });
});

test.each(["two convolutions", "convolution, mean pooling"])(
  "%s: a device between two neighbours sends twice the messages of one at the edge",
  (title) => {
    const { model } = described.find((own) => own.model.title === title) as Described;
    const step = compileSplit({ ...model, sizes: model.others }, { mesh: { height: 4 } });
    const messages = [0, 1, 2, 3].map((device) =>
      movesOn(step, device)
        .filter(({ kind }) => kind === "message")
        .map(({ sent }) => sent),
    );
    const [edge = []] = messages;
    expect(edge).toHaveLength(2);
    const twice = edge.map((sent) => 2 * sent);
    expect(messages).toEqual([edge, twice, twice, edge]);
  },
);

/** Bytes that leave a device, where devices differ along one axis only; every collective is rounded to whole bytes. */
function expectFewest({ kind, count, bytes, sent }: Move, axes: readonly number[]): void {
  const [size = 1, ...others] = axes;
  if (others.length > 0) return;
  const rounds = { "all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, message: size / (size - 1) };
  expect(Math.abs(sent - (rounds[kind] * bytes * (size - 1)) / size)).toBeLessThanOrEqual(count);
}

const lasting = ["parameter", "gradient", "optimizer"] as const;

/** Elements of parameters, gradients and each of Adam's two states on every device. */
function elementsHeld(
  model: Pick<CountedModel, "build" | "sizes">,
  split: Split,
): readonly (readonly number[])[] {
  const step = compileSplit(model, split);
  return step.programs.map((_, device) =>
    lasting.map((kind) => bytesHeld(step, device, kind) / (kind === "optimizer" ? 8 : 4)),
  );
}

test.each(described)(
  "$model.title: on the tensor axis parameters, gradients and states fall as 1/n",
  (entry) => {
    for (const sizes of [entry.model.sizes, entry.model.others]) {
      const { parameters = 0, whole = 0 } = namesFor(entry, sizes, {});
      const model = { ...entry.model, sizes };
      expect(elementsHeld(model, {})).toEqual([[parameters, parameters, parameters]]);
      for (const tensor of [2, 4]) {
        const share = (parameters - whole) / tensor + whole;
        const all = Array.from({ length: tensor }, () => [share, share, share]);
        expect(elementsHeld(model, { mesh: { tensor } }), `tensor ${tensor}`).toEqual(all);
      }
    }
  },
);

test.each([
  [1, 2],
  [1, 3],
  [2, 2],
  [2, 3],
] as const)(
  "with zero %i each of %i replicas holds its share of the state, with 2 of the gradients",
  (zero, replicas) => {
    for (const entry of described) {
      const { parameters = 0 } = namesFor(entry, entry.model.sizes, {});
      const model = { ...entry.model, sizes: { ...entry.model.sizes, batch: 6 } };
      const held = elementsHeld(model, { replicas, rest: { zero } });
      const total = (kind: number) => held.reduce((sum, elements) => sum + (elements[kind] as number), 0);
      const gradients = zero === 2 ? parameters : replicas * parameters;
      expect([0, 1, 2].map(total)).toEqual([replicas * parameters, gradients, parameters]);
      const equal = held.map(() => [parameters, gradients / replicas, parameters / replicas]);
      if (replicas === 2) expect(held).toEqual(equal);
    }
  },
);

test("replicas of a mesh with zero 1 share all but the vectors that the tensor axis has split already", () => {
  const [entry] = described as [Described];
  const { parameters = 0, whole = 0, hidden = 0, hidden2 = 0 } = namesFor(entry, entry.model.sizes, {});
  const [tensor, replicas] = [2, 2];
  const vectors = (hidden + hidden2) / tensor;
  const share = (parameters - whole) / tensor + whole;
  for (const [own, , state] of elementsHeld(entry.model, { mesh: { tensor }, replicas, rest: { zero: 1 } }))
    expect([own, state]).toEqual([share, (share - vectors) / replicas + vectors]);
});

const domains: readonly (readonly [string, Mesh])[] = [
  ["two convolutions", { height: 2 }],
  ["two convolutions", { height: 2, width: 2 }],
  ["convolution, max pooling", { width: 3 }],
  ["transformer blocks", { sequence: 3 }],
];

test.each(domains)("%s on %o: domain axes split no parameters", (title, mesh) => {
  const entry = described.find(({ model }) => model.title === title) as Described;
  const { parameters } = namesFor(entry, entry.model.sizes, {});
  for (const held of elementsHeld(entry.model, { mesh }))
    expect(held).toEqual([parameters, parameters, parameters]);
});

test("the weights of a linear layer over flattened images are dealt out as the images are", () => {
  const [channels, outputs, rows, columns] = [2, 5, 8, 12];
  const model = flattened(channels, outputs);
  const convolutions = 10 * channels + outputs;
  const weights = channels * rows * columns * outputs;
  for (const mesh of [{ height: 2 }, { width: 3 }, { height: 2, width: 2 }, { height: 4 }] satisfies Mesh[]) {
    const count = Object.values(mesh).reduce((product, size) => product * size, 1);
    const share = convolutions + weights / count;
    const held = elementsHeld({ ...model, sizes: { batch: 3, rows, columns } }, { mesh });
    expect(held).toEqual(Array.from({ length: count }, () => [share, share, share]));
  }
});

/** The most bytes of activations that are alive at once, on each device. */
function alive(model: Pick<CountedModel, "build" | "sizes">, mesh: Mesh): readonly number[] {
  return compileSplit(model, { mesh }).programs.map((program: Program) => planMemory(program).lowerBound);
}

test("activations of a chain of convolutions fall as 1/n along the height, but for the halo", () => {
  const [layers, channels, columns, batch] = [4, 4, 16, 3];
  const model = convolutionChain(layers, channels);
  const row = 4 * batch * channels * columns;
  const rowsAlive = (rows: number, height: number) =>
    alive({ ...model, sizes: { batch, rows, columns } }, { height }).map((bytes) => bytes / row);
  expect(rowsAlive(64, 1)).toEqual([(layers + 2) * 64]);
  for (const height of [2, 4, 8]) {
    const slabs = (layers + 3) * (64 / height);
    const halos = rowsAlive(64, height).map((rows) => rows - slabs);
    expect(halos).toEqual(halos.map((_, i) => (i === 0 || i === height - 1 ? layers + 1 : 2 * (layers + 1))));
  }
});

test("activations of a transformer block fall as 1/n along the sequence, but for keys, values and their gradients", () => {
  const { model } = described.find((own) => own.model.title === "transformer blocks") as Described;
  const sizes = { batch: 2, time: 24, features: 32, blocks: 1 };
  const [whole = 0] = alive({ ...model, sizes }, {});
  const gathered = 4 * (4 * sizes.batch * sizes.time * sizes.features);
  const alignment = 32 * 64;
  for (const sequence of [2, 3, 4])
    for (const bytes of alive({ ...model, sizes }, { sequence })) {
      expect(bytes).toBeGreaterThanOrEqual(whole / sequence);
      expect(bytes).toBeLessThanOrEqual(whole / sequence + gathered + alignment);
    }
});
