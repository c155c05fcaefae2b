import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

/** A file for a report that programs can read, beside the one for people. */
const results = process.env["PARAXIS_TEST_RESULTS"];

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/setup.ts"],
    testTimeout: 20_000,
    // Vitest leaves one core to itself, which is half of a machine with two. Files share what they import, as none keeps state in it.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    isolate: false,
    ...(results !== undefined && { reporters: ["default", ["json", { outputFile: results }]] }),
  },
});
