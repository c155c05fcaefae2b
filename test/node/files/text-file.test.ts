import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { UserError } from "../../../src/base/errors.ts";
import { readTextFile } from "../../../src/node/files/text-file.ts";

const folder = mkdtempSync(join(tmpdir(), "paraxis-text-"));

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

test("UTF-8 text is read by path and by URL, without its byte order mark", () => {
  const path = file("good.txt", "\ufeffQueequeg — 鯨\n");
  expect(readTextFile(path)).toBe("Queequeg — 鯨\n");
  expect(readTextFile(pathToFileURL(path))).toBe("Queequeg — 鯨\n");
});

test.each([
  ["empty.txt", "", "the file is empty"],
  ["blank.txt", " \n\t\n", "the file holds nothing but white space"],
  ["binary.txt", Uint8Array.from([72, 105, 0, 255]), "it is a binary file, not text: byte 2 is zero"],
  ["latin.txt", Uint8Array.from([65, 10, 0xe9, 66, 10]), "it is not UTF-8 text: line 2 has bytes"],
  ["cut.txt", Uint8Array.from([65, 0xe2, 0x80]), "it is not UTF-8 text: line 1 has bytes"],
])("%s is refused with its path and the reason", (name, content, reason) => {
  const path = file(name, content);
  expect(() => readTextFile(path)).toThrow(UserError);
  expect(() => readTextFile(path)).toThrow(`cannot read ${path}: ${reason}`);
});

test("missing files and folders are refused with their path", () => {
  expect(() => readTextFile(join(folder, "none.txt"))).toThrow(
    `cannot read ${join(folder, "none.txt")}: there is no such file`,
  );
  expect(() => readTextFile(folder)).toThrow(`cannot read ${folder}: it is a folder, not a file`);
  expect(() => readTextFile(join(file("plain.txt", "x"), "inside"))).toThrow(
    "a part of its path is not a folder",
  );
});
