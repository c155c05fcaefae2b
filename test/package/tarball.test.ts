import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const script = fileURLToPath(new URL("../../scripts/package-check.mjs", import.meta.url));

// Installing the tarball asks the registry, which only continuous integration may rely on; by hand: npm run package-check.
test.runIf(process.env["CI"] !== undefined)(
  "the packed package installs into an empty folder, imports, and trains",
  () => {
    const output = execFileSync(process.execPath, [script], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });
    expect(output).toContain("the installed command trains: 5 steps");
  },
  120_000,
);
