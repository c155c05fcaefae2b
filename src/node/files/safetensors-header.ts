/** The JSON header of a safetensors file, verified: every fault is listed with the tensor's name. */
import { TextDecoder } from "node:util";
import * as z from "zod";
import { UserError } from "../../base/errors.ts";
import { type DType, elementBytes } from "../../graph/dtype.ts";

/** One tensor of the file; `begin` and `end` are bytes from the start of the data. */
export interface HeaderEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  readonly entries: readonly HeaderEntry[];
  readonly metadata: { readonly [key: string]: string };
}

const formatNames: { readonly [K in DType]: string } = {
  f32: "F32",
  f16: "F16",
  f64: "F64",
  i32: "I32",
  i64: "I64",
  bool: "BOOL",
};

const dtypesByName = new Map(Object.entries(formatNames).map(([dtype, name]) => [name, dtype as DType]));

/** The format's name of an element type. */
export function formatName(dtype: DType): string {
  return formatNames[dtype];
}

const size = z.number().int().min(0);
const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(size),
  data_offsets: z.tuple([size, size]),
});
const metadataSchema = z.record(z.string(), z.string());

/**
 * The tensors in the order of their data and the metadata. UserError lists all of: text that is not a JSON object,
 * malformed or unknown entries, sizes that contradict shapes, overlaps, holes, and data of another length than
 * `dataBytes`.
 */
export function parseHeader(header: Uint8Array, dataBytes: number, path: string): Header {
  const problems: string[] = [];
  const entries: HeaderEntry[] = [];
  let metadata: Header["metadata"] = {};
  for (const [name, value] of Object.entries(parseObject(header, path))) {
    if (name === "__metadata__") {
      const parsed = metadataSchema.safeParse(value);
      if (parsed.success) metadata = parsed.data;
      else problems.push("__metadata__ must map texts to texts");
    } else {
      const entry = parseEntry(name, value);
      if (typeof entry === "string") problems.push(entry);
      else entries.push(entry);
    }
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  problems.push(...entries.flatMap(sizeProblems));
  if (problems.length === 0) problems.push(...coverProblems(entries, dataBytes));
  if (problems.length > 0) throw new UserError(`${path} is not a valid safetensors file`, problems);
  return { entries, metadata };
}

function parseObject(header: Uint8Array, path: string): object {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(header));
  } catch {
    value = undefined;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new UserError(`${path} is not a safetensors file`, ["its header is not a JSON object"]);
}

function parseEntry(name: string, value: unknown): HeaderEntry | string {
  const parsed = entrySchema.safeParse(value);
  if (!parsed.success) return `tensor "${name}" needs a dtype, a shape and two data_offsets`;
  const dtype = dtypesByName.get(parsed.data.dtype);
  if (dtype === undefined) {
    const known = [...dtypesByName.keys()].join(", ");
    return `tensor "${name}" has the element type "${parsed.data.dtype}"; known are ${known}`;
  }
  const [begin, end] = parsed.data.data_offsets;
  return { name, dtype, shape: parsed.data.shape, begin, end };
}

function sizeProblems({ name, dtype, shape, begin, end }: HeaderEntry): string[] {
  const expected = shape.reduce((product, dim) => product * dim, 1) * elementBytes(dtype);
  if (end - begin === expected) return [];
  return [
    `tensor "${name}", ${formatNames[dtype]} [${shape.join(", ")}], needs ${expected} bytes, ` +
      `its offsets ${begin} to ${end} hold ${end - begin}`,
  ];
}

/** Tensors sorted by offset must follow each other from 0 to the end of the data. */
function coverProblems(entries: readonly HeaderEntry[], dataBytes: number): string[] {
  const problems: string[] = [];
  let covered = 0;
  let before = "the start of the data";
  for (const { name, begin, end } of entries) {
    if (begin < covered)
      problems.push(`tensor "${name}" starts at byte ${begin}, inside ${before}, which ends at ${covered}`);
    if (begin > covered)
      problems.push(`bytes ${covered} to ${begin} between ${before} and tensor "${name}" belong to none`);
    covered = Math.max(covered, end);
    before = `tensor "${name}"`;
  }
  if (covered > dataBytes)
    problems.push(`the tensors need ${covered} bytes, the file holds ${dataBytes}: it was cut off`);
  if (covered < dataBytes) problems.push(`the tensors end at byte ${covered}, the data only at ${dataBytes}`);
  return problems;
}
