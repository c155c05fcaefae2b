import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { RunFolder, resolveRunFolder } from "../../../src/node/files/run-folder.ts";

const now = new Date("2026-11-20T23:07:12.345Z");

function makeRoot(): string {
  return join(mkdtempSync(join(tmpdir(), "paraxis-runs-")), "runs");
}

test("a run's folder is named by time and job, and latest points at the newest", async () => {
  const root = makeRoot();
  await using first = await RunFolder.create(root, "examples/mxnet lstm.ts", now);
  expect(basename(first.path)).toBe("2026-11-20_23-07-12-examples-mxnet-lstm.ts");
  await using second = await RunFolder.create(root, "examples/mxnet lstm.ts", now);
  expect(basename(second.path)).toBe("2026-11-20_23-07-12-examples-mxnet-lstm.ts-2");
  expect(readlinkSync(join(root, "latest"))).toBe(basename(second.path));
  expect(await resolveRunFolder(second.path)).toBe(second.path);
});

test("job names that are no file names become harmless ones", async () => {
  const root = makeRoot();
  await using run = await RunFolder.create(root, "../..", now);
  expect(basename(run.path)).toBe("2026-11-20_23-07-12-job");
});

test("each metrics line is in the file at once, with names for numbers that JSON lacks", async () => {
  const run = await RunFolder.create(makeRoot(), "job", now);
  const lines = (): unknown[] =>
    readFileSync(run.file("metrics.jsonl"), "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line));
  expect(lines()).toEqual([]);
  run.appendMetrics({ step: 1, loss: 9.21 });
  expect(lines()).toEqual([{ step: 1, loss: 9.21 }]);
  run.appendMetrics({ step: 2, loss: Number.NaN, norm: Number.POSITIVE_INFINITY });
  expect(lines()[1]).toEqual({ step: 2, loss: "NaN", norm: "Infinity" });
  run.sync();
  await run[Symbol.asyncDispose]();
  await run[Symbol.asyncDispose]();
  expect(lines()).toHaveLength(2);
});

test("JSON documents replace their older version", async () => {
  await using run = await RunFolder.create(makeRoot(), "job", now);
  await run.writeJson("layout.json", { stages: 1 });
  await run.writeJson("layout.json", { stages: 2 });
  expect(JSON.parse(readFileSync(run.file("layout.json"), "utf8"))).toEqual({ stages: 2 });
});

test("latest may also be a text file", async () => {
  const root = makeRoot();
  await using run = await RunFolder.create(root, "job", now);
  rmSync(join(root, "latest"));
  writeFileSync(join(root, "latest"), `${basename(run.path)}\n`);
  expect(await resolveRunFolder(join(root, "latest"))).toBe(run.path);
});

test("runs that do not exist are refused", async () => {
  const root = makeRoot();
  await expect(resolveRunFolder(join(root, "latest"))).rejects.toThrow(
    `cannot find the run ${join(root, "latest")}: there is no such file`,
  );
  mkdirSync(root);
  writeFileSync(join(root, "note.txt"), "x");
  await expect(resolveRunFolder(join(root, "note.txt"))).rejects.toThrow("it is not a run folder");
});

test("a root that is a file is refused", async () => {
  const root = makeRoot();
  writeFileSync(root, "x");
  await expect(RunFolder.create(root, "job", now)).rejects.toThrow(`cannot make a run folder in ${root}`);
  expect(existsSync(root)).toBe(true);
});
