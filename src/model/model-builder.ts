/**
 * What a model is written against: a graph builder that also declares parameters, carried state and dropout keys, and that knows for
 * every tensor which dims run over samples and over time.
 *
 * The roles of dims follow from the iteration spaces of the operations. They are what lets one model be built for any item (a slice
 * of the batch, a chunk of time): a dropout mask needs the global index of its elements.
 */

import { UserError } from "../base/errors.ts";
import type { BatchShape } from "../data/dataset.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { DType } from "../graph/dtype.ts";
import { add, constant, mul } from "../graph/functions.ts";
import type { Op } from "../graph/op.ts";
import { rulesOf } from "../graph/op-table.ts";
import { type Shape, stridesOf, type TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Initializer } from "./initializer.ts";

export type DimRole = "batch" | "time" | "fixed";

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
  readonly #roles = new Map<number, readonly DimRole[]>();
  readonly #names = new Map<object, string>();
  readonly #taken = new Map<string, number>();

  constructor(options: ModelOptions) {
    super();
    this.options = options;
  }

  /** The name of a layer: as given, or its kind with a number. The same layer used again keeps its name, and so its parameters. */
  nameOf(layer: object, kind: string, given: string | undefined): string {
    const known = this.#names.get(layer);
    if (known !== undefined) return known;
    const count = this.#taken.get(given ?? kind) ?? 0;
    if (given !== undefined && count > 0) {
      throw new UserError(
        `two layers are called "${given}"; names must differ, or use one layer twice to share its parameters`,
      );
    }
    this.#taken.set(given ?? kind, count + 1);
    const name = given ?? `${kind}${count}`;
    this.#names.set(layer, name);
    return name;
  }

  /** Declares a data input whose dims have the given roles. */
  data(name: string, dtype: DType, shape: Shape, roles: readonly DimRole[]): Tensor {
    const tensor = this.input(name, "data", { dtype, shape });
    this.#roles.set(tensor.id, roles);
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

  /** State of the item before; `setState` gives it to the item after. */
  state(name: string, shape: Shape, kind: StateSpec["kind"], initializer: Initializer): Tensor {
    const type: TensorType = { dtype: this.options.dtype, shape };
    this.states.push({ name, type, group: this.group, kind, initializer });
    const tensor = this.input(`state:${name}`, "state", type);
    this.#roles.set(
      tensor.id,
      shape.map((_, dim) => (kind === "carried" && dim === 0 ? "batch" : "fixed")),
    );
    return tensor;
  }

  setState(name: string, value: Tensor): void {
    this.output(`state:${name}`, value);
  }

  /** Whether sequences are cut into chunks, so that recurrent layers must carry their state. */
  get isChunked(): boolean {
    const { item, total } = this.options.shape;
    return item.time !== total.time;
  }

  /** A mask over `x` of 1/keep with probability `keep`, else 0: a function of seed, step, layer `name` and global element index. */
  dropoutMask(x: Tensor, name: string, keep: number): Tensor {
    const { item, total } = this.options.shape;
    const roles = this.rolesOf(x);
    const whole = x.shape.map((size, dim) => {
      const role = roles[dim];
      return role === "batch" ? total.batch : role === "time" ? (total.time ?? 1) : size;
    });
    const strides = stridesOf(whole);
    const isCut = { batch: item.batch !== total.batch, time: item.time !== total.time };
    let base = constant(this, "i32", [], 0);
    roles.forEach((role, dim) => {
      if (role === "fixed" || !isCut[role]) return;
      const offset = this.input(`offset:${role}`, "scalar", { dtype: "i32", shape: [] });
      base = add(base, mul(offset, constant(this, "i32", [], strides[dim] as number)));
    });
    const key = this.input(`key:${name}`, "scalar", { dtype: "i32", shape: [] });
    const [mask] = this.apply({ kind: "dropout-mask", dtype: x.dtype, shape: x.shape, strides, keep }, [
      key,
      base,
    ]);
    return mask as Tensor;
  }

  /** What each dim of `x` runs over. */
  rolesOf(x: Tensor): readonly DimRole[] {
    return this.#roles.get(x.id) ?? x.shape.map(() => "fixed");
  }

  override apply(op: Op, inputs: readonly Tensor[]): readonly Tensor[] {
    const results = super.apply(op, inputs);
    const operandRoles = inputs.map((input) => this.rolesOf(input));
    if (operandRoles.every((roles) => roles.every((role) => role === "fixed"))) return results;
    const { operands, results: indices } = rulesOf(op.kind).space(op, inputs, results);
    const loopRoles = new Map<number, DimRole>();
    operands.forEach((dims, operand) => {
      dims.forEach((loops, dim) => {
        const role = operandRoles[operand]?.[dim] ?? "fixed";
        if (role !== "fixed") for (const loop of loops.slice(0, 1)) loopRoles.set(loop, role);
      });
    });
    results.forEach((result, i) => {
      this.#roles.set(
        result.id,
        (indices[i] ?? []).map((loops) => loopRoles.get(loops[0] ?? -1) ?? "fixed"),
      );
    });
    return results;
  }
}

/** The builder that a model's tensor belongs to. */
export function modelOf(x: Tensor): ModelBuilder {
  if (!(x.scope instanceof ModelBuilder))
    throw new UserError("layers work on the tensors that a model function is given");
  return x.scope;
}
