import { expect, test } from "vitest";
import { displayWidth, textTable } from "../../src/base/text-table.ts";

test("a table is aligned under underlined headers", () => {
  const columns = [{ header: "device" }, { header: "busy", align: "right" as const }, { header: "note" }];
  const rows = [
    ["cpu:0", "93%", "first"],
    ["cpu:10", "5%", ""],
  ];
  expect(textTable(columns, rows)).toBe(
    ["device  busy  note", "------  ----  -----", "cpu:0    93%  first", "cpu:10    5%"].join("\n"),
  );
});

test("combining marks and joined emoji take one place, East Asian characters two", () => {
  expect(displayWidth("e\u0301a")).toBe(2);
  expect(displayWidth("鯨")).toBe(2);
  expect(displayWidth("👩‍🔬")).toBe(2);
  expect(displayWidth("…")).toBe(1);
});

test("columns stay aligned under wide characters", () => {
  expect(
    textTable(
      [{ header: "word" }, { header: "n" }],
      [
        ["鯨", "1"],
        ["whale", "2"],
      ],
    ),
  ).toBe(["word   n", "-----  -", "鯨     1", "whale  2"].join("\n"));
});

test("a table without rows is its header", () => {
  expect(textTable([{ header: "a" }], [])).toBe("a\n-");
});

test("a row of the wrong length is our mistake", () => {
  expect(() => textTable([{ header: "a" }], [["1", "2"]])).toThrow("internal: a row of 2 cells");
});
