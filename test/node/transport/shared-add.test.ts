import { expect, test } from "vitest";
import { allocateSharedMemory, sharedAdd } from "../../../src/node/transport/shared-add.ts";

test("adding in shared memory gives the bits of a plain loop, for every length and alignment", () => {
  const memory = allocateSharedMemory(200_000);
  if (!memory) throw new Error("this platform has no shared WebAssembly memory");
  const add = sharedAdd(memory);
  const floats = new Float32Array(memory.buffer);
  for (let count = 0; count < 130; count++) {
    const [into, from] = [3 + count, 20_001 + 2 * count];
    for (let i = 0; i < floats.length; i++) floats[i] = Math.fround(Math.sin(i * 7 + count) * 10 ** (i % 9));
    const expected = Float32Array.from(floats);
    for (let i = 0; i < count; i++)
      expected[into + i] = (expected[into + i] ?? 0) + (expected[from + i] ?? 0);
    add(4 * into, 4 * from, count);
    expect(Buffer.compare(Buffer.from(memory.buffer), Buffer.from(expected.buffer))).toBe(0);
  }
});

test("memory beyond the limit of WebAssembly is not offered", () => {
  expect(allocateSharedMemory(2 ** 32)).toBeUndefined();
});
