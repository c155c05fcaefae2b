/** What the pages say is true: programs compile and print what is shown, commands and layouts are accepted, links lead somewhere. */

import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { supportPage } from "../../scripts/support-table.ts";
import { parseLayout } from "../../src/layout/parse.ts";
import { paraxisProgram } from "../../src/node/cli/program.ts";
import { processTerminal } from "../../src/node/cli/terminal.ts";
import { paraxis } from "../node/cli/command.ts";
import { anchorsOf, type Block, blocksOf, pages, relativeLinks, root } from "./pages.ts";

const run = promisify(execFile);
const all = pages();
const blocks = all.flatMap(blocksOf);
let folder = "";

/** Inside the checkout, so that the packages of the programs are found. */
beforeAll(() => {
  mkdirSync(join(root, ".cache"), { recursive: true });
  folder = mkdtempSync(join(root, ".cache/docs-"));
});

afterAll(() => rmSync(folder, { recursive: true }));

function fileOf({ place }: Block): string {
  return `${place.replace(/[^a-z0-9]+/gi, "-")}.ts`;
}

const programs = blocks.filter(({ info }) => /^ts( |$)/.test(info));

test("every program on a page compiles", async () => {
  expect(programs.length).toBeGreaterThan(0);
  for (const block of programs) writeFileSync(join(folder, fileOf(block)), `${block.text}export {};\n`);
  const config = {
    extends: join(root, "tsconfig.json"),
    compilerOptions: {
      rootDir: root,
      noUnusedLocals: false,
      paths: {
        paraxis: [join(root, "src/index.ts")],
        "paraxis/node": [join(root, "src/node.ts")],
      },
    },
    include: [join(folder, "*.ts"), join(root, "src/globals.d.ts")],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = await run(process.execPath, [tsc, "-p", folder]).catch((error) => error);
  expect(stdout).toBe("");
});

describe("a program marked `ts run` prints what the next block shows", () => {
  const runnable = blocks.flatMap((block, i) =>
    block.info === "ts run" ? [{ block, next: blocks[i + 1] }] : [],
  );

  test.each(runnable.map(({ block, next }) => [block.place, block, next] as const))(
    "%s",
    async (_, block, next) => {
      const file = join(folder, fileOf(block).replace(/\.ts$/, ".mjs"));
      await build({
        stdin: { contents: block.text, loader: "ts", resolveDir: root },
        alias: { paraxis: join(root, "src/index.ts") },
        bundle: true,
        format: "esm",
        platform: "node",
        outfile: file,
        logLevel: "silent",
      });
      const { stdout } = await run(process.execPath, [file]);
      expect(next?.info).toBe("text");
      expect(stdout.trimEnd()).toBe(next?.text.trimEnd());
    },
  );
});

describe("commands marked `sh run` print what the next block shows", () => {
  const runnable = blocks.flatMap((block, i) =>
    block.info === "sh run" ? [{ block, next: blocks[i + 1] }] : [],
  );

  test.each(runnable.map(({ block, next }) => [block.place, block, next] as const))(
    "%s",
    async (_, block, next) => {
      const [command = "", ...words] = block.text.trim().split(/\s+/);
      expect(command).toBe("paraxis");
      const { code, out, err } = await paraxis(words, { cwd: root });
      expect(code, err).toBe(0);
      expect(next?.info).toBe("text");
      expect(out.trimEnd()).toBe(next?.text.trimEnd());
    },
  );
});

test("every command on a page has a command and options that exist", () => {
  const program = paraxisProgram(processTerminal([]), () => undefined);
  const known = new Map(
    program.commands.map((command) => [command.name(), command.options.map(({ long }) => long)]),
  );
  const lines = blocks
    .filter(({ info }) => /^sh( |$)/.test(info))
    .flatMap(({ place, text }) => text.split("\n").map((line) => ({ place, line })))
    .filter(({ line }) => /^\s*(npx )?paraxis /.test(line));
  const unknown = lines.flatMap(({ place, line }) => {
    const words = line.replace(/\s#.*/, "").trim().replace(/^npx /, "").split(/\s+/);
    const options = known.get(words[1] ?? "");
    if (options === undefined) return [`${place}: no command "${words[1]}"`];
    return words
      .filter((word) => word.startsWith("-") && !options.includes(word) && word !== "--help")
      .map((word) => `${place}: paraxis ${words[1]} has no option ${word}`);
  });
  expect(unknown).toEqual([]);
  expect(lines.length).toBeGreaterThan(0);
});

test("every layout on a page is one", () => {
  const layouts = blocks.filter(({ info, text }) => info === "json" && text.includes('"stages"'));
  for (const { place, text } of layouts) expect(() => parseLayout(text), place).not.toThrow();
  expect(layouts.length).toBeGreaterThan(0);
});

test("every link between pages leads to a file and a heading that exist", () => {
  const broken = all.flatMap((page) =>
    relativeLinks(page).flatMap((link) => {
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? page.path : normalize(join(dirname(page.path), path));
      if (!existsSync(join(root, target))) return [`${page.path}: ${link}: no such file`];
      if (anchor === undefined) return [];
      const anchors = anchorsOf({ path: target, text: readFileSync(join(root, target), "utf8") });
      return anchors.includes(anchor) ? [] : [`${page.path}: ${link}: no such heading`];
    }),
  );
  expect(broken).toEqual([]);
});

test("the table of what is supported is up to date (npx tsx scripts/support-table.ts)", async () => {
  expect(readFileSync(join(root, "docs/support.md"), "utf8")).toBe(await supportPage());
});
