/**
 * Does the packed package install and run in an empty folder? Packs it, lints the tarball, installs it without install scripts, imports
 * both entries, and trains a tiny job with the installed command.
 *
 *     npm run package-check
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "paraxis-package-"));

function run(command, args, cwd) {
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

function say(text) {
  process.stdout.write(`${text}\n`);
}

function pack() {
  const [packed] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", folder], root));
  const paths = packed.files.map(({ path }) => path);
  const unwanted = paths.filter((path) => /(^|\/)(test|bench|runs|node_modules)\/|tsbuildinfo$/.test(path));
  if (unwanted.length > 0) throw new Error(`the tarball holds ${unwanted.join(", ")}`);
  for (const needed of ["LICENSE", "README.md", "bin/paraxis.js", "dist/index.d.ts", "dist/node.js"]) {
    if (!paths.includes(needed)) throw new Error(`the tarball lacks ${needed}`);
  }
  say(`packed ${packed.filename}: ${paths.length} files, ${(packed.size / 1024).toFixed(0)} KiB`);
  return join(folder, packed.filename);
}

async function lint(tarball) {
  const { messages, pkg } = await publint({
    pack: { tarball: new Uint8Array(readFileSync(tarball)).buffer },
  });
  for (const message of messages) say(`publint ${message.type}: ${formatMessage(message, pkg)}`);
  if (messages.some(({ type }) => type !== "suggestion")) throw new Error("publint found problems");
  say("publint: nothing to complain about");
}

function install(tarball) {
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ name: "empty", private: true, type: "module" }),
  );
  run("npm", ["install", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", tarball], folder);
  say("installed into an empty folder");
}

const imports = `
import * as core from "paraxis";
import * as node from "paraxis/node";
for (const [entry, name] of [[core, "defineJob"], [core, "nn"], [node, "words"], [node, "trainJob"]]) {
  if (!(name in entry)) throw new Error("the installed package does not export " + name);
}
console.log(Object.keys(core).length + " and " + Object.keys(node).length + " names");
`;

const job = `
import { adam, arrays, defineJob, nn } from "paraxis";
import type { Job } from "paraxis";
import { csv } from "paraxis/node";

const x: Float32Array = Float32Array.from({ length: 64 }, (_, i) => i / 64);
const tensor = { dtype: "f32" as const, shape: [64, 1], data: x };
const job: Job = defineJob({
  model: nn.sequential([nn.linear({ units: 4 }), nn.tanh(), nn.linear({ units: 1 })]),
  loss: "mean-squared-error",
  optimizer: adam({ rate: 0.01 }),
  data: arrays({ features: tensor, targets: tensor }, { batch: 8, validationShare: 0.25 }),
});
if (typeof csv !== "function") throw new Error("paraxis/node does not resolve");
export default job;
`;

function useIt() {
  writeFileSync(join(folder, "imports.mjs"), imports);
  writeFileSync(join(folder, "job.ts"), job);
  say(`both entries import: ${run(process.execPath, ["imports.mjs"], folder).trim()}`);
  const out = run(
    "npx",
    ["--no-install", "paraxis", "train", "job.ts", "--steps", "5", "--json", "--quiet"],
    folder,
  );
  const last = JSON.parse(out.trim().split("\n").at(-1));
  if (last.kind !== "end" || last.steps !== 5) throw new Error(`the installed command did not train: ${out}`);
  say(`the installed command trains: ${last.steps} steps, validation loss ${last.validation.loss}`);
}

try {
  const tarball = pack();
  await lint(tarball);
  install(tarball);
  useIt();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
