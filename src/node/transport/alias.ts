/**
 * An ordinary ArrayBuffer over shared memory. ONNX Runtime refuses tensors on a SharedArrayBuffer but accepts
 * such an alias, as input and as output, which saves a copy per message; plain copies through it are also
 * about twice as fast as through shared arrays, which engines copy word by word. Made with `koffi`, which is
 * optional: where it cannot be loaded, or the platform forbids foreign memory, kernels get private memory.
 */
import { createRequire } from "node:module";

/** Makes an alias of all of `memory`; the shared memory stays alive as long as the alias does. */
export type Alias = (memory: SharedArrayBuffer) => ArrayBuffer;

interface Koffi {
  address(value: Uint8Array): bigint;
  view(address: bigint, bytes: number): ArrayBuffer;
}

/** Keeps the shared memory reachable from its alias. */
const owner: unique symbol = Symbol("owner");

/** Loads the means to make aliases and tries it once; undefined when this process has none. */
export function loadAlias(): Alias | undefined {
  try {
    const koffi = createRequire(import.meta.url)("koffi") as Koffi;
    const alias: Alias = (memory) => {
      if (memory.byteLength === 0) return new ArrayBuffer(0);
      const view = koffi.view(koffi.address(new Uint8Array(memory)), memory.byteLength);
      return Object.assign(view, { [owner]: memory });
    };
    const probe = new Uint8Array(new SharedArrayBuffer(64));
    new Uint8Array(alias(probe.buffer as SharedArrayBuffer))[7] = 42;
    return probe[7] === 42 ? alias : undefined;
  } catch {
    return undefined;
  }
}
