import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, test } from "vitest";

/** Bytes of the minified core; a place to notice that something large came in. */
const ceiling = 430_000;

test("the core bundles for a browser, without anything of Node, below its size ceiling", async () => {
  const { outputFiles, metafile, warnings } = await build({
    entryPoints: [fileURLToPath(new URL("../../src/index.ts", import.meta.url))],
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    minify: true,
    write: false,
    metafile: true,
    logLevel: "silent",
  });
  const imports = Object.values(metafile.outputs).flatMap((output) => output.imports);
  expect({ warnings, imports }).toEqual({ warnings: [], imports: [] });
  const [bundle] = outputFiles;
  expect(bundle?.text).not.toMatch(/["']node:|\bprocess\.|\brequire\(/);
  expect(bundle?.contents.byteLength).toBeLessThan(ceiling);
});
