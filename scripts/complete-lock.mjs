/**
 * Adds the platform packages to package-lock.json that npm left out because the registry in use does not carry them (a partial mirror):
 * without them `npm ci` refuses the lock file everywhere. They are recognised by their names, and are only installed on their platform.
 *
 *     node scripts/complete-lock.mjs        after every `npm install` against such a registry
 */
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../package-lock.json", import.meta.url);
const systems = [
  "aix",
  "android",
  "darwin",
  "freebsd",
  "linux",
  "netbsd",
  "openbsd",
  "openharmony",
  "sunos",
  "win32",
];
const processors = ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "x64"];

/** What the last words of a name such as `binding-linux-x64-musl` say. */
function platformOf(name) {
  const words = name.split("/").at(-1).split("-");
  const libc = words.some((word) => word.startsWith("musl")) ? "musl" : "glibc";
  const os = systems.find((system) => words.includes(system));
  const cpu = processors.find((processor) => words.includes(processor));
  if (os === undefined || cpu === undefined) return undefined;
  return { cpu: [cpu], ...(os === "linux" && { libc: [libc] }), os: [os] };
}

const lock = JSON.parse(readFileSync(file, "utf8"));
const added = [];
for (const { optionalDependencies = {}, dev } of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(optionalDependencies)) {
    const key = `node_modules/${name}`;
    const platform = platformOf(name);
    if (lock.packages[key] !== undefined || platform === undefined || !/^\d/.test(version)) continue;
    const { cpu, ...rest } = platform;
    lock.packages[key] = { version, cpu, ...(dev && { dev }), optional: true, ...rest };
    added.push(`${name} ${version}`);
  }
}
const sorted = Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en"));
lock.packages = Object.fromEntries(sorted);
if (added.length > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
process.stdout.write(added.length === 0 ? "nothing is missing\n" : `added ${added.join(", ")}\n`);
