import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { TensorData } from "../../../src/data/dataset.ts";
import { allocate, dtypes } from "../../../src/graph/dtype.ts";
import { readSafetensors, writeSafetensors } from "../../../src/node/files/safetensors.ts";

const folder = mkdtempSync(join(tmpdir(), "paraxis-safetensors-"));
const path = join(folder, "file.safetensors");

/** Written by the Python package safetensors 0.8.0: every element type, a scalar, a tensor without elements. */
const official = Buffer.from(
  "sAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJpZCI6eyJkdHlwZSI6Ikk2NCIsInNoYXBlIjpbXSwiZGF0YV9vZmZz" +
    "ZXRzIjpbMCw4XX0sImQiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOls4LDE2XX0sIm5vbmUiOnsiZHR5cGUi" +
    "OiJGMzIiLCJzaGFwZSI6WzAsNF0sImRhdGFfb2Zmc2V0cyI6WzE2LDE2XX0sInciOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsM10sImRh" +
    "dGFfb2Zmc2V0cyI6WzE2LDQwXX0sImlkcyI6eyJkdHlwZSI6IkkzMiIsInNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzQwLDQ4XX0sImhh" +
    "bGYiOnsiZHR5cGUiOiJGMTYiLCJzaGFwZSI6WzJdLCJkYXRhX29mZnNldHMiOls0OCw1Ml19LCJtYXNrIjp7ImR0eXBlIjoiQk9PTCIsInNo" +
    "YXBlIjpbM10sImRhdGFfb2Zmc2V0cyI6WzUyLDU1XX19ICAHAAAAAAAAABgtRFT7IQlAAADAPwAAAMAAAEBAAACAQAAAoEAAAMhAAwAAAP//" +
    "//8AOAC8AQAB",
  "base64",
);

const officialTensors: Record<string, TensorData> = {
  w: { dtype: "f32", shape: [2, 3], data: Float32Array.from([1.5, -2, 3, 4, 5, 6.25]) },
  half: { dtype: "f16", shape: [2], data: Uint16Array.from([0x3800, 0xbc00]) },
  id: { dtype: "i64", shape: [], data: BigInt64Array.from([7n]) },
  mask: { dtype: "bool", shape: [3], data: Uint8Array.from([1, 0, 1]) },
  ids: { dtype: "i32", shape: [2], data: Int32Array.from([3, -1]) },
  d: { dtype: "f64", shape: [1], data: Float64Array.from([Math.PI]) },
  none: { dtype: "f32", shape: [0, 4], data: new Float32Array(0) },
};

test("a file of the official package is read", async () => {
  writeFileSync(path, official);
  const { tensors, metadata } = await readSafetensors(path);
  expect(tensors).toEqual(officialTensors);
  expect(metadata).toEqual({ format: "pt" });
});

test("the same tensors are written with the official package's data bytes and alignment", async () => {
  await writeSafetensors(path, { tensors: officialTensors, metadata: { format: "pt" } });
  const bytes = readFileSync(path);
  const header = Number(bytes.readBigUInt64LE(0));
  expect(header % 8).toBe(0);
  expect(bytes.subarray(8, 8 + header).toString()).toMatch(/^\{.*\} *$/);
  const entries = JSON.parse(bytes.subarray(8, 8 + header).toString());
  const officialHeader = Number(official.readBigUInt64LE(0));
  const expected = JSON.parse(official.subarray(8, 8 + officialHeader).toString());
  for (const name of Object.keys(officialTensors)) {
    const part = (of: Buffer, start: number, [begin = 0, end = 0]: number[]): Buffer =>
      of.subarray(8 + start + begin, 8 + start + end);
    expect(part(bytes, header, entries[name].data_offsets)).toEqual(
      part(official, officialHeader, expected[name].data_offsets),
    );
  }
  expect(bytes.length).toBe(official.length);
});

const tensor = fc
  .record({
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 3 }),
    seed: fc.infiniteStream(fc.nat({ max: 1 })),
  })
  .map(({ dtype, shape, seed }): TensorData => {
    const data = allocate(
      dtype,
      shape.reduce((product, dim) => product * dim, 1),
    );
    new Uint8Array(data.buffer).forEach((_, i, bytes) => {
      bytes[i] = seed.next().value;
    });
    return { dtype, shape, data };
  });
const names = fc.string({ minLength: 1 }).filter((name) => name !== "__metadata__");

test("what is written is read back, and equal content gives equal bytes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.tuple(names, tensor), { selector: ([name]) => name, maxLength: 6 }),
      fc.dictionary(fc.string(), fc.string(), { maxKeys: 3, noNullPrototype: true }),
      async (entries, metadata) => {
        const tensors = Object.fromEntries(entries);
        await writeSafetensors(path, { tensors, metadata });
        const bytes = readFileSync(path);
        expect(await readSafetensors(path)).toEqual({ tensors, metadata });
        await writeSafetensors(path, { tensors: Object.fromEntries(entries.toReversed()), metadata });
        expect(readFileSync(path).equals(bytes)).toBe(true);
      },
    ),
    { numRuns: 30 },
  );
});

test("a view into a larger buffer is written alone", async () => {
  const whole = Float32Array.from([9, 1, 2, 9]);
  const view: TensorData = { dtype: "f32", shape: [2], data: whole.subarray(1, 3) };
  await writeSafetensors(path, { tensors: { view }, metadata: {} });
  expect((await readSafetensors(path)).tensors["view"]?.data).toEqual(Float32Array.from([1, 2]));
});

/** A file with the given header and data. */
function broken(header: unknown, data: number): string {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  const target = join(folder, "broken.safetensors");
  writeFileSync(target, Buffer.concat([size, json, Buffer.alloc(data)]));
  return target;
}

const floats = (begin: number, end: number, shape = [(end - begin) / 4]): object => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});

test.each([
  [
    "a wrong size",
    { a: floats(0, 8, [3]) },
    8,
    'tensor "a", F32 [3], needs 12 bytes, its offsets 0 to 8 hold 8',
  ],
  ["an overlap", { a: floats(0, 8), b: floats(4, 12) }, 12, 'tensor "b" starts at byte 4, inside tensor "a"'],
  [
    "a hole",
    { a: floats(0, 4), b: floats(8, 12) },
    12,
    'bytes 4 to 8 between tensor "a" and tensor "b" belong to none',
  ],
  ["a hole at the start", { a: floats(4, 8) }, 8, "bytes 0 to 4 between the start of the data"],
  ["missing data", { a: floats(0, 8) }, 7, "the tensors need 8 bytes, the file holds 7: it was cut off"],
  ["surplus data", { a: floats(0, 8) }, 9, "the tensors end at byte 8, the data only at 9"],
  [
    "an unknown type",
    { a: { ...floats(0, 4), dtype: "F8" } },
    4,
    'tensor "a" has the element type "F8"; known are',
  ],
  ["a bad shape", { a: floats(0, 4, [-1]) }, 4, 'tensor "a" needs a dtype, a shape and two data_offsets'],
  ["bad metadata", { __metadata__: { a: 1 } }, 0, "__metadata__ must map texts to texts"],
  ["no JSON", "{", 0, "its header is not a JSON object"],
  ["no object", "[]", 0, "its header is not a JSON object"],
])("%s is refused by name", async (_fault, header, data, message) => {
  const target = broken(header, data);
  await expect(readSafetensors(target)).rejects.toThrow(message);
  await expect(readSafetensors(target)).rejects.toThrow(target);
});

test("files that are no safetensors, folders and missing files are refused", async () => {
  writeFileSync(path, "short");
  await expect(readSafetensors(path)).rejects.toThrow(
    "it has 5 bytes, fewer than the 8 of the header's length",
  );
  writeFileSync(path, Buffer.from([100, 0, 0, 0, 0, 0, 0, 0, 123]));
  await expect(readSafetensors(path)).rejects.toThrow("announces a header of 100 bytes, but only 1 follow");
  writeFileSync(path, Buffer.alloc(8, 255));
  await expect(readSafetensors(path)).rejects.toThrow("more than 100000000");
  await expect(readSafetensors(folder)).rejects.toThrow("it is a folder, not a file");
  await expect(readSafetensors(join(folder, "none"))).rejects.toThrow("there is no such file");
});

test("tensors whose sizes contradict themselves are our mistake and touch no file", async () => {
  await writeSafetensors(path, { tensors: officialTensors, metadata: {} });
  const before = readFileSync(path);
  const wrong = { a: { dtype: "f32", shape: [2], data: Float32Array.from([1]) } } as const;
  await expect(writeSafetensors(path, { tensors: wrong, metadata: {} })).rejects.toThrow(
    "internal: tensor a has 1",
  );
  expect(readFileSync(path).equals(before)).toBe(true);
});
