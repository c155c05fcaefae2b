/** Any console output of the library during a test is a defect: people's terminals and `--json` pipes depend on it. */
import { afterEach, beforeEach, expect, vi } from "vitest";

const methods = ["log", "info", "warn", "error", "debug"] as const;
let printed: string[] = [];

beforeEach(() => {
  printed = [];
  for (const method of methods) {
    vi.spyOn(console, method).mockImplementation((...values) => {
      printed.push(values.join(" "));
    });
  }
});

afterEach(() => {
  vi.restoreAllMocks();
  expect(printed, "a test printed to the console").toEqual([]);
});
