import { defineConfig } from "vitest/config";

/** A file for a report that programs can read, beside the one for people. */
const results = process.env["PARAXIS_TEST_RESULTS"];

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/setup.ts"],
    testTimeout: 20_000,
    ...(results !== undefined && { reporters: ["default", ["json", { outputFile: results }]] }),
  },
});
