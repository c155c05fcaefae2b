/** Imports point down one list of folders, and only `src/node` knows Node. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { expect, test } from "vitest";

/** From the bottom up; a folder may import itself and what stands before it. */
const layers = [
  "base",
  "graph",
  "data",
  "trace",
  "model",
  "autodiff",
  "cost",
  "layout",
  "schedule",
  "shard",
  "program",
  "partition",
  "plan",
  "onnx",
  "execute",
  "node",
];
const root = "src";
/** The entries, and the files whose exports they show as `nn` and `ops`, stand above everything. */
const entries = ["index.ts", "node.ts", "nn.ts", "ops.ts", "globals.d.ts"];

const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
const imports = files.flatMap((file) =>
  [...readFileSync(join(root, file), "utf8").matchAll(/from "([^"]+)"/g)].map(([, target = ""]) => ({
    file,
    target,
  })),
);

function folderOf(file: string): string {
  return file.split("/")[0] ?? "";
}

test("every folder has its place in the order", () => {
  const folders = new Set(files.filter((file) => !entries.includes(file)).map(folderOf));
  expect([...folders].toSorted()).toEqual(layers.filter((layer) => folders.has(layer)).toSorted());
});

test("imports only point downwards", () => {
  const upward = imports.flatMap(({ file, target }) => {
    if (!target.startsWith(".") || entries.includes(file)) return [];
    const imported = relative(root, normalize(join(root, dirname(file), target)));
    const isUpward = layers.indexOf(folderOf(imported)) > layers.indexOf(folderOf(file));
    return isUpward ? [`${file} imports ${imported}`] : [];
  });
  expect(upward).toEqual([]);
});

test("no files import each other in a circle, types included", () => {
  const targets = new Map(
    files.map((file) => [
      file,
      imports.flatMap((one) =>
        one.file === file && one.target.startsWith(".")
          ? [relative(root, normalize(join(root, dirname(file), one.target)))]
          : [],
      ),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
    if (path.includes(file) || done.has(file)) return;
    for (const target of targets.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  expect(circles).toEqual([]);
});

test("only src/node imports Node's modules", () => {
  const strays = imports.filter(
    ({ file, target }) => target.startsWith("node:") && !file.startsWith("node/"),
  );
  expect(strays).toEqual([]);
});
