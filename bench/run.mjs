/** Runs a benchmark by name: `npm run bench -- NAME [options]`. Without a name it says which there are. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL(".", import.meta.url));

/** A benchmark is a file whose header says how to run it. */
const names = readdirSync(folder)
  .filter(
    (file) => file.endsWith(".ts") && readFileSync(`${folder}${file}`, "utf8").includes("npm run bench"),
  )
  .map((file) => file.slice(0, -3));

const [name, ...options] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  const problem = name === undefined ? "" : `there is no benchmark "${name}"; `;
  process.stderr.write(
    `${problem}npm run bench -- NAME [--json], where NAME is one of ${names.join(", ")}\n`,
  );
  process.exitCode = 1;
} else {
  const args = ["--import", "tsx", `${folder}${name}.ts`, ...options];
  process.exitCode = spawnSync(process.execPath, args, { stdio: "inherit" }).status ?? 1;
}
