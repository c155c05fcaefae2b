/** Text files from users: UTF-8, not empty, not binary; anything else is refused by name. */
import { readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { TextDecoder } from "node:util";
import { UserError } from "../../base/errors.ts";

/** The text of a UTF-8 file without its byte order mark; UserError with the path where it is none or blank. */
export function readTextFile(path: string | URL): string {
  const name = pathOf(path);
  const bytes = readBytes(name);
  if (bytes.length === 0) throw unreadable(name, "the file is empty");
  const zero = bytes.indexOf(0);
  if (zero >= 0) {
    throw unreadable(name, `it is a binary file, not text: byte ${zero} is zero`);
  }
  const text = decode(bytes, name);
  if (text.trim() === "") throw unreadable(name, "the file holds nothing but white space");
  return text;
}

/** The path that a path or file URL names, as messages show it. */
export function pathOf(path: string | URL): string {
  return typeof path === "string" ? path : fileURLToPath(path);
}

function readBytes(path: string): Uint8Array {
  try {
    if (statSync(path).isDirectory()) throw unreadable(path, "it is a folder, not a file");
    return readFileSync(path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw unreadable(path, systemReason(error), error);
  }
}

function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    const reason = `it is not UTF-8 text: line ${firstBrokenLine(bytes)} has bytes that are no character`;
    throw unreadable(path, `${reason}; convert it, for example with iconv -f latin1 -t utf-8`, error);
  }
}

/** The line (from 1) that cannot be decoded; a line break byte is never part of a longer UTF-8 character. */
function firstBrokenLine(bytes: Uint8Array): number {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let line = 1;
  for (let start = 0; start < bytes.length; line++) {
    const found = bytes.indexOf(0x0a, start);
    const end = found < 0 ? bytes.length : found + 1;
    try {
      decoder.decode(bytes.subarray(start, end));
    } catch {
      return line;
    }
    start = end;
  }
  return line;
}

function unreadable(path: string, reason: string, cause?: unknown): UserError {
  const error = new UserError(`cannot read ${path}`, [reason]);
  if (cause !== undefined) error.cause = cause;
  return error;
}

const reasons: { readonly [code: string]: string } = {
  ENOENT: "there is no such file",
  EACCES: "this user may not read it",
  ENOTDIR: "a part of its path is not a folder",
};

/** A system error in words: what Node's code means, else Node's own message. */
export function systemReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? String(error.code) : "";
  return reasons[code] ?? error.message;
}
