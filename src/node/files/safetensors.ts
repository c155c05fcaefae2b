/**
 * The safetensors file format (https://github.com/huggingface/safetensors, "Format"):
 *
 *     [8 bytes: n, little-endian] [n bytes: JSON header, padded with spaces] [tensors, C order, without holes]
 *     header: { "__metadata__": { text: text }, name: { dtype, shape, data_offsets: [begin, end] }, ... }
 *
 * Tensors are written by falling element size, then by name, so that each is aligned and equal content gives
 * equal bytes.
 */

import { type FileHandle, open } from "node:fs/promises";
import { endianness } from "node:os";
import { invariant, UserError } from "../../base/errors.ts";
import type { TensorData } from "../../data/dataset.ts";
import { allocate, type DType, elementBytes, type TypedArray } from "../../graph/dtype.ts";
import { writeAtomically } from "./atomic.ts";
import { formatName, type HeaderEntry, parseHeader } from "./safetensors-header.ts";
import { systemReason } from "./text-file.ts";

/** The content of one file. */
export interface TensorFile {
  readonly tensors: { readonly [name: string]: TensorData };
  readonly metadata: { readonly [key: string]: string };
}

/** Reads and writes of more bytes than this are cut, as the system limits one call to 2 GiB. */
const pieceBytes = 1 << 30;
const headerLimit = 100_000_000;

/** Writes the file atomically: after a failure `path` holds what it held before. */
export async function writeSafetensors(path: string, file: TensorFile): Promise<void> {
  invariant(endianness() === "LE", "safetensors needs a little-endian machine");
  const entries = Object.entries(file.tensors).sort(
    ([a, tensorA], [b, tensorB]) =>
      elementBytes(tensorB.dtype) - elementBytes(tensorA.dtype) || (a < b ? -1 : 1),
  );
  const header = encodeHeader(entries, file.metadata);
  await writeAtomically(path, async (handle) => {
    await writeBytes(handle, header);
    for (const [, tensor] of entries) await writeBytes(handle, bytesOf(tensor.data));
  });
}

/** Every tensor of the file in its own memory; UserError names the path and every fault of the file. */
export async function readSafetensors(path: string): Promise<TensorFile> {
  invariant(endianness() === "LE", "safetensors needs a little-endian machine");
  const handle = await openForReading(path);
  try {
    const { size } = await handle.stat();
    const headerBytes = await readHeader(handle, size, path);
    const { entries, metadata } = parseHeader(headerBytes, size - 8 - headerBytes.length, path);
    const tensors: [string, TensorData][] = [];
    for (const entry of entries) {
      tensors.push([entry.name, await readTensor(handle, entry, 8 + headerBytes.length, path)]);
    }
    return { tensors: Object.fromEntries(tensors), metadata };
  } finally {
    await handle.close();
  }
}

function encodeHeader(
  entries: readonly (readonly [string, TensorData])[],
  metadata: TensorFile["metadata"],
): Uint8Array {
  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let begin = 0;
  for (const [name, { dtype, shape, data }] of entries) {
    invariant(name !== "__metadata__", "a tensor may not be called __metadata__");
    const elements = shape.reduce((product, dim) => product * dim, 1);
    invariant(elements === data.length, `tensor ${name} has ${data.length} values for shape [${shape}]`);
    const end = begin + elements * elementBytes(dtype);
    header.push([name, { dtype: formatName(dtype), shape, data_offsets: [begin, end] }]);
    begin = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return bytes;
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    const handle = await open(path, "r");
    if ((await handle.stat()).isFile()) return handle;
    await handle.close();
  } catch (error) {
    throw new UserError(`cannot read ${path}`, [systemReason(error)]);
  }
  throw new UserError(`cannot read ${path}`, ["it is a folder, not a file"]);
}

async function readHeader(handle: FileHandle, size: number, path: string): Promise<Uint8Array> {
  const refuse = (problem: string): never => {
    throw new UserError(`${path} is not a safetensors file`, [problem]);
  };
  if (size < 8) refuse(`it has ${size} bytes, fewer than the 8 of the header's length`);
  const prefix = new Uint8Array(8);
  await readBytes(handle, prefix, 0, path);
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (length > headerLimit) refuse(`it announces a header of ${length} bytes, more than ${headerLimit}`);
  if (length > size - 8) refuse(`it announces a header of ${length} bytes, but only ${size - 8} follow`);
  const header = new Uint8Array(length);
  await readBytes(handle, header, 8, path);
  return header;
}

async function readTensor(
  handle: FileHandle,
  entry: HeaderEntry,
  dataStart: number,
  path: string,
): Promise<TensorData> {
  const { dtype, shape, begin, end } = entry;
  const data = allocateTensor(dtype, end - begin);
  await readBytes(handle, bytesOf(data), dataStart + begin, path);
  return { dtype, shape, data };
}

function allocateTensor(dtype: DType, bytes: number): TypedArray {
  return allocate(dtype, bytes / elementBytes(dtype));
}

function bytesOf(data: TypedArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

async function readBytes(
  handle: FileHandle,
  into: Uint8Array,
  position: number,
  path: string,
): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const length = Math.min(pieceBytes, into.length - done);
    const { bytesRead } = await handle.read(into, done, length, position + done);
    if (bytesRead === 0) throw new UserError(`cannot read ${path}`, ["it became shorter while it was read"]);
    done += bytesRead;
  }
}

async function writeBytes(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(pieceBytes, bytes.length - done));
    done += bytesWritten;
  }
}
