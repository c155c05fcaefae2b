/** Messages between the programs being written: every message of a step has a tag of its own, agreed on by both ends. */

import type { ItemId } from "../program/program.ts";
import type { DeviceWriter } from "./device-writer.ts";

export class Mail {
  readonly #writers: readonly DeviceWriter[];
  readonly #tags = new Map<string, number>();
  readonly #received = new Set<string>();

  constructor(writers: readonly DeviceWriter[]) {
    this.#writers = writers;
  }

  /** Device `from` sends its buffer; `name` and `item` say which value it is and are the same at both ends. */
  send(from: number, to: number, buffer: number, name: string, item?: ItemId): void {
    this.#writers[from]?.add({
      kind: "send",
      buffer,
      to,
      tag: this.#tag(from, to, name, item),
      ...(item && { item }),
    });
  }

  /** Device `to` receives the value into its buffer, when it asks for it first. */
  receive(from: number, to: number, buffer: number, name: string, item?: ItemId): void {
    const key = `${to} ${buffer}`;
    if (this.#received.has(key)) return;
    this.#received.add(key);
    this.#writers[to]?.add({
      kind: "receive",
      buffer,
      from,
      tag: this.#tag(from, to, name, item),
      ...(item && { item }),
    });
  }

  #tag(from: number, to: number, name: string, item: ItemId | undefined): number {
    const key = `${from} ${to} ${name} ${item?.microBatch}.${item?.chunk}`;
    const tag = this.#tags.get(key) ?? this.#tags.size;
    this.#tags.set(key, tag);
    return tag;
  }
}
