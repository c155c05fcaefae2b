/**
 * Convolution and pooling over images [N, C, H, W] whose rows are split along the mesh axis `height`, or columns along `width`. Results
 * and gradients are dealt out in even shares; a rank collects the rows that its windows see from its neighbours, and does the operation
 * on these rows with padding at the edges of the image only:
 *
 *     forward          windows of the own results  ──► rows that they see  ──► operation
 *     weight gradient  the same, with the own rows of dy; the results are partial
 *     input gradient   own rows ──► windows that touch them ──► rows that these see ──► operation ──► own rows of the result
 *
 * With both axes, columns are collected after rows, so that corners come along. All other dims follow the loops of the operation.
 */

import { constant, pad, sliceDim } from "../../graph/functions.ts";
import type { Op, Window } from "../../graph/op.ts";
import type { TensorType } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { planLoops } from "../by-loops.ts";
import { collectSpans, cutSpans, isEmpty, type Span, slabOf, wideHalo } from "../halo.ts";
import { localise } from "../localise.ts";
import { type Axis, coordinate } from "../mesh.ts";
import { onEach, type Sharded } from "../sharded.ts";
import { axesOf, localShape, type Sharding, showSharding, sizeOfFactors } from "../sharding.ts";
import type { Site, SplitRule, SplitRules } from "../site.ts";

type WindowOp = Extract<Op, { readonly window: Window }>;

/** An image that windows slide over, one that has an element for each window, or neither. */
type Role = "image" | "windows" | "weight";

interface Roles {
  readonly operands: readonly Role[];
  readonly result: Role;
}

const rolesOf: { readonly [K in WindowOp["kind"]]: Roles } = {
  conv2d: { operands: ["image", "weight"], result: "windows" },
  "conv2d-input-grad": { operands: ["windows", "weight"], result: "image" },
  "conv2d-weight-grad": { operands: ["image", "windows"], result: "weight" },
  "max-pool": { operands: ["image"], result: "windows" },
  "max-pool-grad": { operands: ["image", "windows", "windows"], result: "image" },
  "avg-pool": { operands: ["image"], result: "windows" },
  "avg-pool-grad": { operands: ["windows"], result: "image" },
};

/** What one rank does along one dim. */
interface Piece {
  readonly windows: Span;
  /** Elements of the image that these windows see. */
  readonly image: Span;
  /** Padding that they see on both sides. */
  readonly pad: readonly [before: number, after: number];
  /** Elements of an image that is the result. */
  readonly own: Span;
}

/** One of the dims that windows slide along. */
interface Lane {
  readonly dim: 2 | 3;
  /** Sizes of the whole tensors. */
  readonly size: Readonly<Record<"image" | "windows", number>>;
  /** None: every rank does all of it. */
  readonly axis: Axis | undefined;
  /** By position along the axis. */
  readonly pieces: readonly Piece[];
}

const slide: SplitRule = (site) => {
  const { node, place, values, results } = site;
  const op = node.op as WindowOp;
  const roles = rolesOf[op.kind];
  const lanes = [laneOf(site, op, roles, 2), laneOf(site, op, roles, 3)] as const;
  const axes = lanes.flatMap(({ axis }) => axis?.axis ?? []);
  const lie = node.inputs.map((value) => otherDims(values.shardingOf(value, place), axes));
  const plan = planLoops(site, lie, []);
  const operands = node.inputs.map((value, i) => {
    const [sharding, role] = [plan.operands[i] as Sharding, roles.operands[i] as Role];
    return role === "weight"
      ? values.get(value, place, sharding).parts
      : collect(site, value, sharding, lanes, role);
  });
  const [base] = plan.results as [Sharding];
  const [type] = results as [TensorType];
  const parts = onEach(place, (rank) => {
    const pieces = lanes.map((lane) => pieceOf(lane, site, rank)) as [Piece, Piece];
    const own = operands.map((tensors) => tensors[rank] as Tensor);
    return applyTo(site, roles.result, own, pieces, [...localShape(base, place.mesh, rank)]);
  });
  const sharding = resultSharding(base, roles.result, lanes);
  const result: Sharded = { ...type, mesh: place.mesh, sharding, parts };
  return [result];
};

/** How a tensor lies in the dims that windows do not slide along, and not along `axes`. */
function otherDims(sharding: Sharding | undefined, axes: readonly string[]): Sharding | undefined {
  return (
    sharding && {
      ...sharding,
      dims: sharding.dims.map((factors, dim) =>
        dim >= 2 || axesOf(factors).some((axis) => axes.includes(axis))
          ? [{ size: sizeOfFactors(factors) }]
          : factors,
      ),
    }
  );
}

function laneOf({ place, operands, results, limits }: Site, op: WindowOp, roles: Roles, dim: 2 | 3): Lane {
  const sizeAs = (role: Role): number => {
    const at = roles.operands.indexOf(role);
    return (at < 0 ? results[0] : operands[at])?.shape[dim] as number;
  };
  const size = { image: sizeAs("image"), windows: sizeAs("windows") };
  const kernel = "kernel" in op ? (op.kernel[dim - 2] as number) : sizeAs("weight");
  const slideAlong = slideOf(op, dim, kernel, size);
  const dealt = roles.result === "image" ? size.image : size.windows;
  const name = dim === 2 ? "height" : "width";
  const along = place.mesh.axes.find((own) => own.axis === name);
  const axis = along !== undefined && along.size <= dealt ? along : undefined;
  if (along !== undefined && axis === undefined)
    limits.push({ group: place.group, axis: name, dim, pieces: dealt, unit: dim === 2 ? "rows" : "columns" });
  const pieces = Array.from({ length: axis?.size ?? 1 }, (_, at): Piece => {
    if (axis === undefined) return everything(op, dim, size);
    const own = slabOf(dealt, axis, at);
    const all = { start: 0, stop: size.image };
    if (roles.result !== "image") return { ...slideAlong.see(own, all), own };
    const isSum = op.kind === "conv2d-input-grad";
    return { ...slideAlong.see(slideAlong.touching(own), isSum ? own : all), own };
  });
  return { dim, size, axis, pieces };
}

function everything({ window }: WindowOp, dim: 2 | 3, size: Lane["size"]): Piece {
  const image = { start: 0, stop: size.image };
  const edges = [window.pad[dim - 2], window.pad[dim]] as [number, number];
  return { windows: { start: 0, stop: size.windows }, image, pad: edges, own: image };
}

/**
 * Which elements windows see along one dim, of those that lie `within`, and which windows touch elements. To a convolution's gradient
 * the elements outside of a slab are padding, which gets nothing; pooling has to know them.
 */
function slideOf({ window }: WindowOp, dim: 2 | 3, kernel: number, size: Lane["size"]) {
  const [stride, dilation, before] = [
    window.stride[dim - 2],
    window.dilation[dim - 2],
    window.pad[dim - 2],
  ] as [number, number, number];
  const reach = dilation * (kernel - 1);
  return {
    see: (windows: Span, within: Span): Omit<Piece, "own"> => {
      const first = windows.start * stride - before;
      const end = isEmpty(windows) ? first : (windows.stop - 1) * stride - before + reach + 1;
      const image = { start: Math.max(within.start, first), stop: Math.min(within.stop, end) };
      return { windows, image, pad: [Math.max(0, within.start - first), Math.max(0, end - within.stop)] };
    },
    touching: ({ start, stop }: Span): Span => ({
      start: Math.max(0, Math.ceil((start + before - reach) / stride)),
      stop: Math.min(size.windows, Math.ceil((stop + before) / stride)),
    }),
  };
}

function pieceOf({ axis, pieces }: Lane, { place }: Site, rank: number): Piece {
  return pieces[axis === undefined ? 0 : coordinate(place.mesh, rank, axis.axis)] as Piece;
}

/** What every rank needs of an image, or of a tensor with an element for each window; once for all operations that need the same. */
function collect(
  site: Site,
  value: number,
  sharding: Sharding,
  lanes: readonly Lane[],
  role: "image" | "windows",
): readonly Tensor[] {
  const { place, values } = site;
  const active = lanes.flatMap(({ axis, dim, size, pieces }): readonly Needed[] =>
    axis === undefined ? [] : [{ axis, dim, size: size[role], spans: pieces.map((piece) => piece[role]) }],
  );
  const split = active.filter((lane) => comesSplit(site, value, lane));
  const dims = sharding.dims.map((factors, dim) => {
    const lane = split.find((own) => own.dim === dim);
    return lane === undefined ? factors : [{ size: lane.size, along: lane.axis }];
  });
  for (const lane of split) checkHalo(site, lane);
  const spans = active.map(
    ({ dim, spans: own }) => `${dim}: ${own.map(({ start, stop }) => `${start}-${stop}`)}`,
  );
  return values.keepParts(value, place, `${showSharding({ dims, partial: [] })} ${spans}`, () => {
    const { parts } = values.get(value, place, { dims, partial: [] });
    const whole = active.filter((lane) => !split.includes(lane));
    const cut = whole.reduce((own, lane) => cutSpans(place, own, lane.dim, lane.axis, lane.spans), parts);
    return split.reduce((own, lane) => collectSpans(place, own, lane, lane.axis, lane.spans), cut);
  });
}

/** Elements of one dim of a tensor, by position along the axis. */
interface Needed {
  readonly axis: Axis;
  readonly dim: number;
  readonly size: number;
  readonly spans: readonly Span[];
}

/** Whether every rank gets its slab, and the rest from its neighbours; otherwise it gets the whole dim, and cuts. */
function comesSplit({ values, place }: Site, value: number, { axis, dim, size, spans }: Needed): boolean {
  const sharding = values.shardingOf(value, place);
  const [factor, ...others] = sharding?.dims[dim] ?? [];
  if (others.length === 0 && factor?.along?.axis === axis.axis) return true;
  if (sharding?.partial.includes(axis.axis)) return size >= axis.size;
  const entry = values.entry(value);
  const isFar = entry.kind === "made" && entry.input === undefined && entry.place.stage !== place.stage;
  return isFar && size >= axis.size && wideHalo(size, axis, spans) === undefined;
}

function checkHalo({ place, problems }: Site, { axis, dim, size, spans }: Needed): void {
  const wide = wideHalo(size, axis, spans);
  if (wide === undefined) return;
  const { halo, slab, neighbour } = wide;
  const unit = (count: number) => `${count} ${dim === 2 ? "row" : "column"}${count === 1 ? "" : "s"}`;
  problems.add(
    `layer "${place.group}": the halo of ${unit(halo)} is wider than the slab of ${unit(slab)} of device ${neighbour} along ${axis.axis} ${axis.size}; use fewer devices along ${axis.axis}`,
  );
}

/** The operation on what one rank has collected; `shape` is that of its result in the dims that windows do not slide along. */
function applyTo(
  { node, place, operands: types, results }: Site,
  role: Role,
  operands: readonly Tensor[],
  pieces: readonly [Piece, Piece],
  shape: readonly number[],
): Tensor {
  const [type] = results as [TensorType];
  const withDims = (span: "image" | "windows" | "own") => [
    ...shape.slice(0, 2),
    ...pieces.map((piece) => piece[span].stop - piece[span].start),
  ];
  const wanted = role === "weight" ? shape : withDims(role === "image" ? "own" : "windows");
  if (pieces.some(({ windows, image }) => isEmpty(windows) || isEmpty(image)))
    return constant(place.builder, type.dtype, wanted, 0);
  const [rows, columns] = pieces;
  const edges = [rows.pad[0], columns.pad[0], rows.pad[1], columns.pad[1]] as const;
  const op = node.op as WindowOp;
  const local = localise({ ...op, window: { ...op.window, pad: edges } } as WindowOp, {
    operands: operands.map((operand) => operand.shape),
    results: [role === "image" ? withDims("image") : wanted],
    whole: { operand: types[0]?.shape ?? [], result: type.shape },
  });
  const [made] = place.builder.apply(local, operands) as readonly [Tensor];
  return role === "image" ? ownPart(made, pieces) : made;
}

/** The own elements of the gradient of an image; those that no window sees are zero. */
function ownPart(gradient: Tensor, pieces: readonly [Piece, Piece]): Tensor {
  const seen = pieces.map(({ image, own }) => ({
    start: Math.max(image.start, own.start),
    stop: Math.min(image.stop, own.stop),
  })) as [Span, Span];
  const cut = seen.reduce((part, { start, stop }, i) => {
    const { image } = pieces[i] as Piece;
    return sliceDim(part, i + 2, start - image.start, stop - image.start);
  }, gradient);
  const before = pieces.map(({ own }, i) => (seen[i] as Span).start - own.start);
  const after = pieces.map(({ own }, i) => own.stop - (seen[i] as Span).stop);
  const isFull = [...before, ...after].every((missing) => missing === 0);
  return isFull ? cut : pad(cut, [0, 0, ...before], [0, 0, ...after]);
}

function resultSharding(base: Sharding, role: Role, lanes: readonly Lane[]): Sharding {
  const active = lanes.filter(({ axis }) => axis !== undefined);
  if (role === "weight")
    return { ...base, partial: [...base.partial, ...active.flatMap(({ axis }) => axis?.axis ?? [])] };
  const dims = base.dims.map((factors, dim) => {
    const lane = active.find((own) => own.dim === dim);
    return lane?.axis === undefined ? factors : [{ size: lane.size[role], along: lane.axis }];
  });
  return { ...base, dims };
}

export const window: SplitRules = {
  conv2d: slide,
  "conv2d-input-grad": slide,
  "conv2d-weight-grad": slide,
  "max-pool": slide,
  "max-pool-grad": slide,
  "avg-pool": slide,
  "avg-pool-grad": slide,
};
