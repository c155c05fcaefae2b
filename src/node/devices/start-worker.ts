/**
 * Starts the threads of devices from the built file or, where this file is TypeScript itself (tests, benchmarks), from a bundle of the
 * source: a thread starts in a tenth of the time that a hook for TypeScript in every thread would take.
 */

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { DeviceSetup } from "./messages.ts";

/** Starts the thread of one device. */
export type WorkerStarter = (setup: DeviceSetup) => Worker;

/** A starter for any number of threads; bundles at most once. */
export function workerStarter(): WorkerStarter {
  if (!import.meta.url.endsWith(".ts"))
    return (workerData) => new Worker(new URL("./device-worker.js", import.meta.url), { workerData });
  const code = bundle(new URL("./device-worker.ts", import.meta.url));
  return (workerData) => new Worker(code, { eval: true, workerData });
}

/** `source` and what it imports by path as one script; packages are found from where `source` is. */
function bundle(source: URL): string {
  const { buildSync } = createRequire(import.meta.url)("esbuild") as typeof import("esbuild");
  const place = JSON.stringify(source.href);
  const { outputFiles } = buildSync({
    entryPoints: [fileURLToPath(source)],
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    packages: "external",
    define: { "import.meta.url": place },
    banner: { js: `require = require("node:module").createRequire(${place});` },
    write: false,
  });
  return outputFiles.map(({ text }) => text).join("\n");
}
