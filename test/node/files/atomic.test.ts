import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { writeAtomically } from "../../../src/node/files/atomic.ts";

function makePath(): { folder: string; path: string } {
  const folder = mkdtempSync(join(tmpdir(), "paraxis-atomic-"));
  return { folder, path: join(folder, "file") };
}

test("the old content stays until all of the new content is there", async () => {
  const { folder, path } = makePath();
  await writeAtomically(path, async (file) => file.writeFile("old"));
  await writeAtomically(path, async (file) => {
    await file.write("half");
    expect(readFileSync(path, "utf8")).toBe("old");
    await file.write(" and half");
  });
  expect(readFileSync(path, "utf8")).toBe("half and half");
  expect(readdirSync(folder)).toEqual(["file"]);
});

test("a write that fails leaves the old content and no other file", async () => {
  const { folder, path } = makePath();
  await writeAtomically(path, async (file) => file.writeFile("old"));
  const failing = writeAtomically(path, async (file) => {
    await file.write("half");
    throw new Error("disk full");
  });
  await expect(failing).rejects.toThrow("disk full");
  expect(readFileSync(path, "utf8")).toBe("old");
  expect(readdirSync(folder)).toEqual(["file"]);
});

test("several writers at once leave one whole version", async () => {
  const { folder, path } = makePath();
  const versions = ["a", "b", "c", "d"].map((letter) => letter.repeat(10_000));
  await Promise.all(versions.map((text) => writeAtomically(path, async (file) => file.writeFile(text))));
  expect(versions).toContain(readFileSync(path, "utf8"));
  expect(readdirSync(folder)).toEqual(["file"]);
});
