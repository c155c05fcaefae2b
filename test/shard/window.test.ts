/** Convolution and pooling split by rows and columns compute what one device computes, and move no more than halos. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { differentiate } from "../../src/autodiff/differentiate.ts";
import { UserError } from "../../src/base/errors.ts";
import { GraphBuilder } from "../../src/graph/builder.ts";
import { avgPool, conv2d, matmul, maxPool, reshape, square, sum } from "../../src/graph/functions.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { type Shape, sizeOf } from "../../src/graph/shape.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { splitGraph } from "../../src/shard/expand.ts";
import type { Axis, Mesh } from "../../src/shard/mesh.ts";
import { splitGroup } from "../../src/shard/sharded.ts";
import { type Sharding, showSharding, whole } from "../../src/shard/sharding.ts";
import type { GivenInput, SplitGraph, Spread } from "../../src/shard/split-source.ts";
import { expectSameOutputs } from "./evaluate-split.ts";

type Pair = readonly [number, number];

interface Slide {
  readonly kernel: Pair;
  readonly stride: Pair;
  readonly pad: readonly [number, number, number, number];
  readonly dilation: Pair;
}

interface Case extends Slide {
  readonly kind: "conv2d" | "max-pool" | "avg-pool";
  readonly image: Pair;
  readonly groups: number;
}

/** Height, width and tensor devices of the mesh; how the image lies before. */
interface Split {
  readonly height: number;
  readonly width: number;
  readonly tensor: number;
  readonly arrives: "whole" | "split";
}

const [samples, channels] = [1, 4];
const mesh = ({ height, width, tensor }: Split): Mesh => ({
  axes: [
    { axis: "height", size: height } as const,
    { axis: "width", size: width } as const,
    { axis: "tensor", size: tensor } as const,
  ].filter(({ size }) => size > 1),
});

/** Loss and gradients of one operation on an image. */
function gradientsOf({ kind, image, groups, kernel, ...window }: Case): Graph {
  const builder = new GraphBuilder();
  builder.within({ group: "layer" }, () => {
    const x = builder.input("x", "parameter", { dtype: "f64", shape: [samples, channels, ...image] });
    const weight = () =>
      builder.input("w", "parameter", { dtype: "f64", shape: [4, channels / groups, ...kernel] });
    const operations: { readonly [K in Case["kind"]]: () => Tensor } = {
      conv2d: () => conv2d(x, weight(), { ...window, groups }),
      "max-pool": () => maxPool(x, kernel, window),
      "avg-pool": () => avgPool(x, kernel, window),
    };
    const y = operations[kind]();
    builder.output("y", y);
    builder.output("loss", sum(square(y)));
  });
  const wanted = kind === "conv2d" ? ["x", "w"] : ["x"];
  return differentiate(builder.build(), [{ output: "loss", gradient: "one" }], wanted).graph;
}

function splitBy(graph: Graph, split: Split, given: ReadonlyMap<string, GivenInput> = new Map()): SplitGraph {
  const pending = new Map<string, string | undefined>(
    graph.outputs.flatMap(({ name }) => (name.startsWith("grad:") ? [[name, name.slice(5)] as const] : [])),
  ).set("loss", undefined);
  return splitGraph({
    graph,
    given,
    pending,
    meshOf: () => ({ stage: 0, mesh: mesh(split) }),
    chosen: new Map(),
    timeDims: () => [],
  });
}

/** Splits the image as an operation before would have left it: in even shares, where there are enough rows. */
function splitCase(own: Case, split: Split): { readonly graph: Graph; readonly made: SplitGraph } {
  const graph = gradientsOf(own);
  const { dims } = whole([samples, channels, ...own.image]);
  const sharding: Sharding = {
    dims: dims.map((factors, dim) => {
      const along = mesh(split).axes.find(({ axis }) => axis === (dim === 2 ? "height" : "width"));
      const size = own.image[dim - 2];
      return split.arrives === "whole" || !along || size === undefined || size < along.size
        ? factors
        : [{ size, along }];
    }),
    partial: [],
  };
  const given = { group: "layer", isMade: false, stage: 0, mesh: mesh(split), sharding };
  return { graph, made: splitBy(graph, split, new Map([["x", given]])) };
}

const plain = { stride: [1, 1], pad: [0, 0, 0, 0], dilation: [1, 1] } as const;
const kinds = ["conv2d", "max-pool", "avg-pool"] as const;
const slides: { readonly [name: string]: Partial<Slide> & { readonly image: Pair; readonly kernel: Pair } } =
  {
    "one element": { image: [6, 5], kernel: [1, 1] },
    "three with padding": { image: [6, 6], kernel: [3, 3], pad: [1, 1, 1, 1] },
    "three without padding, uneven rows": { image: [11, 9], kernel: [3, 3] },
    "padding at one edge only": { image: [8, 7], kernel: [3, 2], pad: [2, 0, 0, 1] },
    "two by two": { image: [7, 9], kernel: [2, 2], stride: [2, 2] },
    "stride below the kernel": { image: [12, 13], kernel: [5, 3], stride: [2, 2], pad: [2, 1, 2, 1] },
    "stride above the kernel": { image: [13, 10], kernel: [2, 1], stride: [4, 3] },
    "stride above the kernel with padding": {
      image: [11, 11],
      kernel: [2, 2],
      stride: [3, 3],
      pad: [1, 1, 1, 1],
    },
    dilated: { image: [14, 9], kernel: [3, 2], dilation: [2, 3], pad: [2, 1, 2, 2] },
    "dilated and strided": {
      image: [14, 12],
      kernel: [2, 3],
      dilation: [3, 2],
      stride: [2, 3],
      pad: [1, 2, 2, 1],
    },
    "flat and wide": { image: [1, 12], kernel: [1, 3], pad: [0, 1, 0, 1] },
  };
const splits: { readonly [name: string]: Split } = {
  "height 2": { height: 2, width: 1, tensor: 1, arrives: "split" },
  "height 3": { height: 3, width: 1, tensor: 1, arrives: "split" },
  "width 2, from a whole image": { height: 1, width: 2, tensor: 1, arrives: "whole" },
  "height 2 x width 2": { height: 2, width: 2, tensor: 1, arrives: "split" },
  "height 2 x tensor 2": { height: 2, width: 1, tensor: 2, arrives: "split" },
};

for (const kind of kinds) {
  for (const [title, slide] of Object.entries(slides)) {
    test(`${kind}, ${title}: value and gradients are those of one device on every mesh`, () => {
      for (const split of Object.values(splits)) {
        const { graph, made } = splitCase({ ...plain, ...slide, kind, groups: 1 }, split);
        expectSameOutputs(graph, made, 1);
      }
      expect.hasAssertions();
    });
  }
}

test("groups of a convolution follow the channels", () => {
  const own: Case = { ...plain, kind: "conv2d", image: [6, 6], kernel: [3, 3], pad: [1, 1, 1, 1], groups: 2 };
  for (const split of Object.values(splits)) {
    const { graph, made } = splitCase(own, split);
    expectSameOutputs(graph, made, 1);
  }
  expect.hasAssertions();
});

test("a rank whose windows see nothing but padding has a part of zeros", () => {
  const own: Case = {
    ...plain,
    kind: "conv2d",
    image: [3, 4],
    kernel: [2, 2],
    pad: [5, 0, 6, 4],
    groups: 1,
  };
  for (const split of [
    { height: 4, width: 1, tensor: 1, arrives: "whole" } as const,
    { height: 3, width: 2, tensor: 1, arrives: "whole" } as const,
  ]) {
    const { graph, made } = splitCase(own, split);
    expectSameOutputs(graph, made, 1);
    expect(made.graph.nodes.some(({ op }) => op.kind === "constant" && op.shape.length === 4)).toBe(true);
  }
});

const pairOf = (min: number, max: number) => fc.tuple(fc.integer({ min, max }), fc.integer({ min, max }));
const cases = fc.record({
  kind: fc.constantFrom(...kinds),
  image: pairOf(1, 14),
  kernel: pairOf(1, 4),
  stride: pairOf(1, 4),
  pad: fc.tuple(pairOf(0, 3), pairOf(0, 3)).map(([a, b]) => [...a, ...b] as const),
  dilation: pairOf(1, 2),
  groups: fc.constantFrom(1, 2, 4),
});
const meshes = fc.record({
  height: fc.integer({ min: 1, max: 4 }),
  width: fc.integer({ min: 1, max: 3 }),
  tensor: fc.constantFrom(1, 1, 2),
  arrives: fc.constantFrom("whole", "split" as const),
});

test("random windows on random meshes: value and gradients are those of one device, or the halo is refused", () => {
  let [compared, refused] = [0, 0];
  fc.assert(
    fc.property(cases, meshes, (own, split) => {
      fc.pre(isPossible(own));
      const reach = [0, 1].map((dim) => neededPastNeighbours(own, dim as 0 | 1, split));
      if (reach.includes("too far")) {
        refused++;
        expect(() => splitCase(own, split)).toThrow(UserError);
        return;
      }
      const { graph, made } = splitCase(own, split);
      expectSameOutputs(graph, made, 1);
      compared++;
    }),
    { numRuns: 80 },
  );
  expect(compared).toBeGreaterThan(25);
  expect(compared + refused).toBe(80);
}, 60_000);

function isPossible(own: Case): boolean {
  try {
    gradientsOf(own);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/** Element by element, whether an operation of the forward or backward pass needs more than its own slab and those beside it. */
function neededPastNeighbours(own: Case, dim: 0 | 1, split: Split): "near" | "too far" {
  const ranks = dim === 0 ? split.height : split.width;
  const [size, kernel, stride, dilation] = [own.image, own.kernel, own.stride, own.dilation].map(
    (pair) => pair[dim],
  ) as [number, number, number, number];
  const [before, after] = [own.pad[dim] as number, own.pad[dim + 2] as number];
  const reach = dilation * (kernel - 1);
  const windows = Math.floor((size + before + after - reach - 1) / stride) + 1;
  const seen = (window: number) =>
    Array.from({ length: reach + 1 }, (_, i) => window * stride - before + i).filter(
      (row) => row >= 0 && row < size,
    );
  const ownerOf = (count: number, element: number) => {
    const [least, rest] = [Math.floor(count / ranks), count % ranks];
    const owners = Array.from({ length: ranks }, (_, rank) =>
      Array(least + (rank < rest ? 1 : 0)).fill(rank),
    ).flat();
    return owners[element] as number;
  };
  const isFar = (from: number, to: number) => Math.abs(from - to) > 1;
  if (ranks === 1) return "near";
  const all = Array.from({ length: windows }, (_, window) => window);
  const isForward = windows >= ranks;
  const hasSlabs = size >= ranks && split.arrives === "split";
  const farRows = all.some((window) =>
    seen(window).some((row) => isFar(ownerOf(size, row), ownerOf(windows, window))),
  );
  if (isForward && hasSlabs && farRows) return "too far";
  if (size < ranks) return "near";
  const rows = Array.from({ length: size }, (_, row) => row);
  return rows.some((row) => {
    const touching = all.filter((window) => seen(window).includes(row));
    const me = ownerOf(size, row);
    if (isForward && touching.some((window) => isFar(ownerOf(windows, window), me))) return true;
    const isMax = own.kind === "max-pool" && hasSlabs;
    return isMax && touching.some((window) => seen(window).some((other) => isFar(ownerOf(size, other), me)));
  })
    ? "too far"
    : "near";
}

/** Elements that ranks get from each other, other than by collectives. */
function moved({ nodes, types }: Graph): number {
  const makers = new Map(
    nodes.flatMap(({ outputs, group }) => outputs.map((value) => [value, group] as const)),
  );
  const messages = new Map<string, number>();
  for (const { inputs, group } of nodes) {
    for (const value of inputs) {
      const from = splitGroup(makers.get(value) ?? group).ranks;
      const to = splitGroup(group).ranks;
      if (from.length === 1 && to.length === 1 && from[0] !== to[0])
        messages.set(`${value} ${to[0]}`, sizeOf(types[value]?.shape as Shape));
    }
  }
  return [...messages.values()].reduce((total, size) => total + size, 0);
}

/** Convolutions "a" and "b" of kernel `size` that keep the size of an image that is fed. */
function twoLayers(rows: number, size: number): Graph {
  const builder = new GraphBuilder();
  const edge = (size - 1) / 2;
  const pad = [edge, edge, edge, edge] as const;
  const x = builder.within({ group: "a" }, () =>
    builder.input("x", "data", { dtype: "f64", shape: [2, 1, rows, 5] }),
  );
  const layer = (group: string, operand: Tensor, shape: Shape) =>
    builder.within({ group }, () =>
      conv2d(operand, builder.input(`${group}.w`, "parameter", { dtype: "f64", shape }), { pad }),
    );
  const y = layer("b", layer("a", x, [3, 1, size, size]), [4, 3, size, size]);
  builder.within({ group: "b" }, () => builder.output("loss", sum(square(y))));
  return differentiate(builder.build(), [{ output: "loss", gradient: "one" }], ["a.w", "b.w"]).graph;
}

test("only halos move: one row on each side, once for x and once for dy, and no collective", () => {
  for (const height of [2, 3]) {
    const graph = twoLayers(9, 3);
    const made = splitBy(graph, { height, width: 1, tensor: 1, arrives: "whole" });
    expectSameOutputs(graph, made, 1);
    const [samplesByColumns, x, dy] = [2 * 5, 3, 4];
    expect(moved(made.graph)).toBe(2 * (height - 1) * samplesByColumns * (x + dy));
    expect(made.graph.nodes.filter(({ group }) => splitGroup(group).ranks.length > 1)).toEqual([]);
    expect(made.outputs.get("grad:b.w")?.sharding.partial).toEqual(["height"]);
  }
});

test("no device convolves the whole image", () => {
  const { graph } = splitBy(twoLayers(12, 3), { height: 3, width: 1, tensor: 1, arrives: "whole" });
  const heights = graph.nodes
    .filter(({ op }) => op.kind.startsWith("conv2d"))
    .map(({ inputs, outputs }) =>
      [...inputs, ...outputs].map((value) => graph.types[value]?.shape[2] as number),
    );
  expect(heights.length).toBe(3 * 5);
  expect(Math.max(...heights.flat())).toBe(6);
});

test("halos wider than a neighbour's slab are refused, all layers at once", () => {
  const height = (size: number): Split => ({ height: size, width: 1, tensor: 1, arrives: "whole" });
  const splitWide = () => splitBy(twoLayers(9, 7), height(4));
  expect(splitWide).toThrow(UserError);
  expect(splitWide).toThrow(
    'the model cannot be split over these devices: layer "b": the halo of 3 rows is wider than the slab of 2 rows of device 1 along height 4; use fewer devices along height',
  );
  const graph = twoLayers(9, 7);
  expectSameOutputs(graph, splitBy(graph, height(3)), 1);
  const own: Case = {
    ...plain,
    kind: "conv2d",
    image: [4, 12],
    kernel: [5, 7],
    pad: [2, 3, 2, 3],
    groups: 1,
  };
  let problems: readonly string[] = [];
  try {
    splitCase(own, { height: 4, width: 6, tensor: 1, arrives: "split" });
  } catch (error) {
    problems = error instanceof UserError ? error.problems : [];
  }
  expect(problems).toEqual([
    'layer "layer": the halo of 2 rows is wider than the slab of 1 row of device 1 along height 4; use fewer devices along height',
    'layer "layer": the halo of 3 columns is wider than the slab of 2 columns of device 1 along width 6; use fewer devices along width',
  ]);
});

test("an axis with more devices than result rows leaves a layer whole", () => {
  const own: Case = { ...plain, kind: "conv2d", image: [4, 3], kernel: [3, 3], groups: 1 };
  const { graph, made } = splitCase(own, { height: 3, width: 1, tensor: 1, arrives: "split" });
  expectSameOutputs(graph, made, 1);
  expect(made.outputs.get("grad:w")?.sharding.partial).toEqual([]);
});

const axes: readonly Axis["axis"][] = ["height", "width"];
test.each(axes)(
  "a layer after another stage gets its slabs and halos along %s, not the whole image",
  (axis) => {
    const graph = twoLayers(6, 3);
    const meshOf = (group: string) =>
      group === "a" ? { stage: 0, mesh: { axes: [] } } : { stage: 1, mesh: { axes: [{ axis, size: 2 }] } };
    const pending = new Map([
      ["grad:a.w", "a.w"],
      ["grad:b.w", "b.w"],
      ["loss", undefined],
    ] as const);
    const made = splitGraph({
      graph,
      given: new Map(),
      pending,
      meshOf,
      chosen: new Map(),
      timeDims: () => [],
    });
    expectSameOutputs(graph, made, 1);
    const { nodes, types } = made.graph;
    const sent = nodes.flatMap(({ group, phase, outputs }) =>
      group === "a" && phase === "F"
        ? outputs.filter((value) => nodes.some((user) => user.group !== "a" && user.inputs.includes(value)))
        : [],
    );
    const slabs = axis === "height" ? [3 * 5, 3 * 5] : [6 * 3, 6 * 2];
    expect(sent.map((value) => sizeOf(types[value]?.shape as Shape))).toEqual(
      slabs.map((slab) => 2 * 3 * slab),
    );
  },
);

test("after a flatten, the weights of the linear layer are split by the rows of the image", () => {
  const builder = new GraphBuilder();
  builder.within({ group: "net" }, () => {
    const type = (...shape: number[]) => ({ dtype: "f64", shape }) as const;
    const x = builder.input("x", "data", type(2, 1, 5, 4));
    const y = conv2d(x, builder.input("w", "parameter", type(3, 1, 3, 3)), { pad: [1, 1, 1, 1] });
    const flat = reshape(maxPool(y, [2, 2]), [2, 3 * 2 * 2]);
    builder.output("loss", sum(square(matmul(flat, builder.input("v", "parameter", type(12, 7))))));
  });
  const { graph } = differentiate(builder.build(), [{ output: "loss", gradient: "one" }], ["w", "v"]);
  const made = splitBy(graph, { height: 2, width: 1, tensor: 1, arrives: "whole" });
  expectSameOutputs(graph, made, 1);
  expect(showSharding((made.inputs.get("v") as Spread).sharding)).toBe("[3 x 4/height, 7]");
});
