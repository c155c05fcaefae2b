/** Tensors that last, between the whole model and the parts that devices hold. */

import { invariant, UserError } from "../base/errors.ts";
import { allocate, type TypedArray } from "../graph/dtype.ts";
import { showType, sizeOf } from "../graph/shape.ts";
import { type Block, putBlock, takeBlock } from "../shard/block.ts";
import { copy, type TensorBuffer } from "./engine.ts";

/** What a device has of a tensor: all of it, or a block. */
export interface HeldTensor extends TensorBuffer {
  readonly block?: Block;
}

/** What one device holds, by name. */
type Held = ReadonlyMap<string, HeldTensor>;

/** Overwrites the tensors that a device holds, given whole; throws a `UserError`, having written none, where one is of another size. */
export function writeTensors(own: Held, tensors: ReadonlyMap<string, TypedArray>): void {
  const held = [...own].flatMap(([name, tensor]) => {
    const given = tensors.get(name);
    return given === undefined ? [] : [{ name, ...tensor, given }];
  });
  const problems = held.flatMap(({ name, type, block, given }) => {
    const shape = block?.shape ?? type.shape;
    return given.length === sizeOf(shape)
      ? []
      : [
          `"${name}" is ${showType({ ...type, shape })} in the model, but ${given.length} elements were given`,
        ];
  });
  if (problems.length > 0) throw new UserError("the tensors do not fit the model", problems);
  for (const { data, block, given } of held) {
    if (block === undefined) copy(given, data);
    else takeBlock(block, given, data);
  }
}

/** Copies of the tensors that a device holds. */
export function readTensors(own: Held): Held {
  return new Map(
    [...own].map(([name, tensor]) => {
      const data = allocate(tensor.type.dtype, tensor.data.length);
      copy(tensor.data, data);
      return [name, { ...tensor, data }];
    }),
  );
}

/** The whole tensor from the parts of all devices that hold any of it; `shape` is that of the whole. */
export function joinParts(parts: readonly HeldTensor[], shape: readonly number[]): TensorBuffer {
  const [first] = parts;
  invariant(first !== undefined, "a tensor is held by at least one device");
  if (first.block === undefined) return { type: first.type, data: first.data };
  const data = allocate(first.type.dtype, sizeOf(first.block.shape));
  for (const { block, data: part } of parts) {
    invariant(block !== undefined, "all devices hold parts of a tensor of which one holds a part");
    putBlock(block, part, data);
  }
  return { type: { dtype: first.type.dtype, shape }, data };
}
