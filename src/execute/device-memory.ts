/**
 * Where the buffers of a device's programs lie: activations of all programs in one arena, what lasts once for all of them, what devices
 * reduce in memory that they share, messages in the slots of their channels, and rows within what they are rows of.
 */

import { allocate, elementBytes } from "../graph/dtype.ts";
import { sizeOf, type TensorType } from "../graph/shape.ts";
import { type MemoryPlan, planMemory } from "../program/memory.ts";
import type { BufferSpec, Program } from "../program/program.ts";
import { placeKey, regionOf, sharedTensors } from "../program/regions.ts";
import type { TensorBuffer } from "./engine.ts";
import { fill } from "./feed.ts";
import type { Inlet } from "./transport.ts";

export class DeviceMemory {
  readonly #plans: ReadonlyMap<Program, MemoryPlan>;
  readonly #arena: ArrayBuffer;
  /** Buffers that programs share, by name and type. */
  readonly #shared = new Map<string, TensorBuffer>();

  /** For `programs`, all of one device; `regionFor` gives the memory that the members of a group share. */
  constructor(programs: readonly Program[], regionFor: (group: number) => Uint8Array) {
    this.#plans = new Map(programs.map((program) => [program, planMemory(program)]));
    this.#arena = new ArrayBuffer(
      Math.max(0, ...[...this.#plans.values()].map(({ arenaBytes }) => arenaBytes)),
    );
    this.#shareRegions(programs, regionFor);
  }

  /** Bytes of the buffers that last, and of the memory that activations share. */
  get bytes(): { readonly lasting: number; readonly activations: number } {
    const lasting = [...this.#shared.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    return { lasting, activations: this.#arena.byteLength };
  }

  /** The buffers of one of the programs; messages that kernels read where the sender wrote them arrive in `inlets`. */
  place(program: Program, inlets: ReadonlyMap<number, Inlet>): readonly TensorBuffer[] {
    const offsets = this.#plans.get(program)?.offsets;
    const placed: TensorBuffer[] = [];
    const place = (id: number): TensorBuffer => {
      const spec = program.buffers[id] as BufferSpec;
      const known = placed[id];
      if (known !== undefined) return known;
      const buffer =
        spec.view === undefined
          ? (slotOf(inlets.get(id), spec.type) ?? this.#own(spec, offsets?.get(id)))
          : rowsOf(place(spec.view.of), spec.type, spec.view.row);
      placed[id] = buffer;
      return buffer;
    };
    program.buffers.forEach((_, id) => {
      place(id);
    });
    return placed;
  }

  /** Places what is reduced over devices and stays where it is where they can read it, if kernels can write there. */
  #shareRegions(programs: readonly Program[], regionFor: (group: number) => Uint8Array): void {
    const shared = sharedTensors(programs);
    for (const group of new Set(shared.map((tensor) => tensor.group))) {
      const region = regionFor(group);
      if (!(region.buffer instanceof ArrayBuffer)) continue;
      const { offsets } = regionOf(programs, group);
      for (const { spec } of shared.filter((tensor) => tensor.group === group)) {
        const { type } = spec;
        const offset = region.byteOffset + (offsets.get(placeKey(spec)) ?? 0);
        const data = allocate(type.dtype, sizeOf(type.shape), region.buffer, offset);
        this.#shared.set(placeKey(spec), { type, data });
      }
    }
  }

  #own(spec: BufferSpec, offset: number | undefined): TensorBuffer {
    const { type, value } = spec;
    if (offset !== undefined)
      return { type, data: allocate(type.dtype, sizeOf(type.shape), this.#arena, offset) };
    const key = placeKey(spec);
    const known = this.#shared.get(key);
    if (known !== undefined) return known;
    const data = allocate(type.dtype, sizeOf(type.shape));
    if (value !== undefined && value !== 0) fill(data, value);
    this.#shared.set(key, { type, data });
    return { type, data };
  }
}

/** The memory of a channel's only slot as a tensor. */
function slotOf(inlet: Inlet | undefined, type: TensorType): TensorBuffer | undefined {
  if (inlet === undefined) return undefined;
  const { buffer, byteOffset } = inlet.buffer(0);
  return { type, data: allocate(type.dtype, sizeOf(type.shape), buffer as ArrayBuffer, byteOffset) };
}

function rowsOf({ data, type }: TensorBuffer, part: TensorType, row: number): TensorBuffer {
  const width = sizeOf(type.shape.slice(1));
  const offset = data.byteOffset + row * width * elementBytes(type.dtype);
  return { type: part, data: allocate(part.dtype, sizeOf(part.shape), data.buffer as ArrayBuffer, offset) };
}
