/**
 * What a model is written against: a graph builder that also declares parameters, carried state and dropout keys, and that knows for
 * every tensor which dims are cut when the mini-batch is cut into items (a slice of the batch, a chunk of time).
 *
 * That is what lets one model be built for any item: a dropout mask needs the global index of its elements, and an operation that needs
 * all of a cut dim is refused instead of computing something else.
 */

import { UserError } from "../base/errors.ts";
import type { BatchShape } from "../data/dataset.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { DType } from "../graph/dtype.ts";
import { add, constant, mul, only, reshape } from "../graph/functions.ts";
import type { ValueId } from "../graph/graph.ts";
import type { Op } from "../graph/op.ts";
import { rulesOf } from "../graph/op-table.ts";
import { type Shape, stridesOf, type TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type CutRole, type DimParts, fixed, followCuts, rolesIn } from "./cut-dims.ts";
import type { Initializer } from "./initializer.ts";

/** What a dim of a data input runs over. */
export type DimRole = CutRole | "fixed";

/** The part of a mini-batch that one run of the graph sees, and the whole; equal where the batch is not cut. */
export interface ItemShape {
  readonly item: BatchShape;
  readonly total: BatchShape;
}

export interface ParameterSpec {
  readonly name: string;
  readonly type: TensorType;
  /** The group that owns it: the first that used it. */
  readonly group: string;
  readonly initializer: Initializer;
}

/**
 * A value that goes from one item to the next: `carried` by a recurrent layer (zero at the start of every sequence; gradients flow
 * back through it), or a `statistic` that lasts over steps and has no gradient.
 */
export interface StateSpec {
  readonly name: string;
  readonly type: TensorType;
  readonly group: string;
  readonly kind: "carried" | "statistic";
  readonly initializer: Initializer;
}

export interface ModelOptions {
  readonly shape: ItemShape;
  /** Dropout and batch statistics are on in training only. */
  readonly training: boolean;
  /** Floating-point type of parameters and activations. */
  readonly dtype: DType;
  /** Used for weights instead of each layer's own initialiser. */
  readonly initializer?: Initializer;
}

export class ModelBuilder extends GraphBuilder {
  readonly options: ModelOptions;
  readonly parameters: ParameterSpec[] = [];
  readonly states: StateSpec[] = [];
  readonly #parts = new Map<ValueId, readonly DimParts[]>();
  readonly #names = new Map<object, string>();
  readonly #taken = new Set<string>();
  readonly #uses = new Map<string, number>();
  #layer: string | undefined;
  #isSumming = false;

  constructor(options: ModelOptions) {
    super();
    this.options = options;
  }

  /**
   * The name of a layer: as given; or that of its group where that is free; or its kind with a number. The same layer used again keeps
   * its name, and so its parameters.
   */
  nameOf(
    layer: object,
    kind: string,
    { name, group }: { readonly name?: string; readonly group?: string },
  ): string {
    const known = this.#names.get(layer);
    if (known !== undefined) return known;
    if (name !== undefined && this.#taken.has(name)) {
      throw new UserError(
        `two layers are called "${name}"; names must differ, or use one layer twice to share its parameters`,
      );
    }
    const chosen =
      name ?? (group === undefined || this.#taken.has(group) ? this.#freeName(kind, group) : group);
    this.#taken.add(chosen);
    this.#names.set(layer, chosen);
    return chosen;
  }

  #freeName(kind: string, group: string | undefined): string {
    const prefix = group === undefined ? kind : `${group}.${kind}`;
    let count = 0;
    while (this.#taken.has(`${prefix}${count}`)) count++;
    return `${prefix}${count}`;
  }

  /** Runs `build` with the layer named in the messages of its mistakes. */
  inLayer<T>(name: string, build: () => T): T {
    const before = this.#layer;
    this.#layer = name;
    try {
      return build();
    } finally {
      this.#layer = before;
    }
  }

  protected override get place(): string {
    if (this.#layer === undefined) return super.place;
    return this.#layer === this.group ? `layer "${this.#layer}"` : `layer "${this.#layer}" of ${super.place}`;
  }

  /** Runs `build`, whose sums over cut dims are this item's share of a sum over the mini-batch. */
  sharing<T>(build: () => T): T {
    this.#isSumming = true;
    try {
      return build();
    } finally {
      this.#isSumming = false;
    }
  }

  /** Declares a data input whose dims have the given roles. */
  data(name: string, dtype: DType, shape: Shape, roles: readonly DimRole[]): Tensor {
    const tensor = this.input(name, "data", { dtype, shape });
    this.#parts.set(tensor.id, this.#partsOfDims(shape, roles));
    return tensor;
  }

  /** The trained parameter `name`; asking again for the same name gives the same parameter. */
  parameter(
    name: string,
    shape: Shape,
    initializer: Initializer,
    kind: "weight" | "bias" = "weight",
  ): Tensor {
    const type: TensorType = { dtype: this.options.dtype, shape };
    const tensor = this.input(name, "parameter", type);
    if (!this.parameters.some((parameter) => parameter.name === name)) {
      const chosen = kind === "weight" ? (this.options.initializer ?? initializer) : initializer;
      this.parameters.push({ name, type, group: this.group, initializer: chosen });
    }
    return tensor;
  }

  /** State of the item before; `setState` gives it to the item after. Each state has one user. */
  state(name: string, shape: Shape, kind: StateSpec["kind"], initializer: Initializer): Tensor {
    const type: TensorType = { dtype: this.options.dtype, shape };
    if (this.states.some((state) => state.name === name)) {
      throw new UserError(
        `${this.place} keeps the state "${name}" and can be used only once; make a layer of its own for each use`,
      );
    }
    this.states.push({ name, type, group: this.group, kind, initializer });
    const tensor = this.input(`state:${name}`, "state", type);
    this.#parts.set(tensor.id, this.#partsOfDims(shape, kind === "carried" ? ["batch"] : []));
    return tensor;
  }

  setState(name: string, value: Tensor): void {
    this.output(`state:${name}`, value);
  }

  /** Whether dim `dim` of `x` is cut into chunks of time, so that what comes before this item matters. */
  isChunked(x: Tensor, dim: number): boolean {
    return this.partsOf(x)[dim]?.some(({ role }) => role === "time") === true;
  }

  /** Global index, along a dim that is cut, of the first element of this item. */
  offset(role: CutRole): Tensor {
    return this.input(`offset:${role}`, "scalar", { dtype: "i32", shape: [] });
  }

  /**
   * A mask over `x` of 1/keep with probability `keep`, else 0: a function of seed, step, layer `name` and global element index. A layer
   * that is used several times draws different numbers each time.
   */
  dropoutMask(x: Tensor, name: string, keep: number): Tensor {
    const parts = this.partsOf(x).flat();
    const strides = stridesOf(parts.map(({ role, size }) => (role === "fixed" ? size : this.#total(role))));
    let base = constant(this, "i32", [], 0);
    parts.forEach(({ role }, i) => {
      if (role === "fixed") return;
      base = add(base, mul(this.offset(role), constant(this, "i32", [], strides[i] as number)));
    });
    const key = this.input(`key:${this.nextUse(name)}`, "scalar", { dtype: "i32", shape: [] });
    const shape = parts.map(({ size }) => size);
    const op = { kind: "dropout-mask", dtype: x.dtype, shape, strides, keep } as const;
    return reshape(only(super.apply(op, [key, base])), x.shape);
  }

  /** `name` at its first use, then `name#2`, `name#3`, ...: what belongs to one use of a shared layer. */
  nextUse(name: string): string {
    const count = (this.#uses.get(name) ?? 0) + 1;
    this.#uses.set(name, count);
    return count === 1 ? name : `${name}#${count}`;
  }

  /** Which parts of each dim of `x` are cut where the mini-batch is cut into items. */
  partsOf(x: Tensor): readonly DimParts[] {
    return this.#parts.get(x.id) ?? x.shape.map((size) => [fixed(size)]);
  }

  /** As `GraphBuilder.apply`; throws a `UserError` where an operation needs all of a dim that is cut. */
  override apply(op: Op, inputs: readonly Tensor[]): readonly Tensor[] {
    const results = super.apply(op, inputs);
    const operands = inputs.map((input) => this.partsOf(input));
    if (operands.flat().every((parts) => rolesIn(parts).length === 0)) return results;
    const isCarrying = op.kind === "lstm" || op.kind === "gru";
    const space = rulesOf(op.kind).space(op, inputs, results);
    const followed = followCuts(space, operands, isCarrying ? "time" : undefined, (role) => {
      if (this.#isSumming || (op.kind === "batch-norm" && role === "batch")) return;
      throw new UserError(
        `${op.kind} in ${this.place} needs the whole ${role} dim; this model cannot be cut into ${role === "time" ? "chunks of time" : "micro-batches"}`,
      );
    });
    results.forEach((result, i) => {
      this.#parts.set(result.id, followed[i] ?? []);
    });
    return results;
  }

  #total(role: CutRole): number {
    const { total } = this.options.shape;
    return role === "batch" ? total.batch : (total.time ?? 1);
  }

  #isCut(role: CutRole): boolean {
    const { item, total } = this.options.shape;
    return item[role] !== total[role];
  }

  #partsOfDims(shape: Shape, roles: readonly DimRole[]): readonly DimParts[] {
    return shape.map((size, dim) => {
      const role = roles[dim] ?? "fixed";
      return [role !== "fixed" && this.#isCut(role) ? { role, size } : fixed(size)];
    });
  }
}

/** The builder that a model's tensor belongs to. */
export function modelOf(x: Tensor): ModelBuilder {
  if (!(x.scope instanceof ModelBuilder))
    throw new UserError("layers work on the tensors that a model function is given");
  return x.scope;
}
