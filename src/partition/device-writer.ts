/** Collects the program of one device: buffers by name, kernels once each, instructions in order. */

import { invariant } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import { sameType, showType } from "../graph/shape.ts";
import {
  type BufferKind,
  type BufferSpec,
  type Feed,
  type Instruction,
  type Program,
  readsOf,
  writesOf,
} from "../program/program.ts";

export class DeviceWriter {
  readonly device: number;
  readonly #replica: number;
  readonly #kernels = new Map<Graph, number>();
  readonly #buffers: BufferSpec[] = [];
  readonly #ids = new Map<string, number>();
  readonly #instructions: Instruction[] = [];
  readonly #feeds: Feed[] = [];

  constructor(device: number, replica: number) {
    this.device = device;
    this.#replica = replica;
  }

  /** The buffer of this name, declared on first use. */
  buffer(spec: BufferSpec): number {
    const known = this.#ids.get(spec.name);
    if (known !== undefined) {
      const { type } = this.#buffers[known] as BufferSpec;
      invariant(
        sameType(type, spec.type),
        `buffer "${spec.name}" is ${showType(type)} and ${showType(spec.type)}`,
      );
      return known;
    }
    this.#ids.set(spec.name, this.#buffers.length);
    return this.#buffers.push(spec) - 1;
  }

  /** The buffer of this name, if it has been declared. */
  specOf(name: string): BufferSpec | undefined {
    return this.#buffers[this.#ids.get(name) ?? -1];
  }

  /** Whether it has a buffer of this kind. */
  holds(kind: BufferKind): boolean {
    return this.#buffers.some((spec) => spec.kind === kind);
  }

  kernel(segment: Graph): number {
    const known = this.#kernels.get(segment);
    if (known !== undefined) return known;
    this.#kernels.set(segment, this.#kernels.size);
    return this.#kernels.size - 1;
  }

  feed(feed: Feed): void {
    if (!this.#feeds.some(({ buffer }) => buffer === feed.buffer)) this.#feeds.push(feed);
  }

  add(instruction: Instruction): void {
    this.#instructions.push(instruction);
  }

  build(): Program {
    return {
      device: this.device,
      ...(this.#replica > 0 && { replica: this.#replica }),
      kernels: [...this.#kernels.keys()],
      buffers: this.#buffers,
      instructions: withFrees(this.#buffers, this.#instructions),
      feeds: this.#feeds,
    };
  }
}

/** Frees every activation after the last instruction that uses it, or uses a view of it. */
function withFrees(buffers: readonly BufferSpec[], instructions: readonly Instruction[]): Instruction[] {
  const last = new Map<number, number>();
  instructions.forEach((instruction, i) => {
    for (const id of [...readsOf(instruction), ...writesOf(instruction)]) {
      const owner = buffers[id]?.view?.of ?? id;
      if (buffers[owner]?.kind === "activation") last.set(owner, i);
    }
  });
  return instructions.flatMap((instruction, i): Instruction[] => {
    const used = new Set(
      [...readsOf(instruction), ...writesOf(instruction)].map((id) => buffers[id]?.view?.of ?? id),
    );
    const dead = [...used].filter((id) => last.get(id) === i).sort((a, b) => a - b);
    return [instruction, ...dead.map((buffer): Instruction => ({ kind: "free", buffer }))];
  });
}
