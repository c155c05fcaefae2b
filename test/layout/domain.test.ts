import { expect, test } from "vitest";
import { parseDomain } from "../../src/layout/domain.ts";

test("domain axes are given by name, in any order", () => {
  expect(parseDomain("height=2")).toEqual({ height: 2 });
  expect(parseDomain("width=2, height=3")).toEqual({ height: 3, width: 2 });
  expect(parseDomain("sequence=4")).toEqual({ sequence: 4 });
});

test("a text that names no domain axes is refused with every fault", () => {
  expect(() => parseDomain("2,tensor=2,rows=2,height,width=0,width=2")).toThrow(
    'cannot read the domain axes "2,tensor=2,rows=2,height,width=0,width=2":\n' +
      '  - "2" does not say what is split: give the axis, such as height=2 (rows of images), width=2 (columns) or sequence=2 (time steps)\n' +
      '  - "tensor=2": the tensor axis splits weights, not positions: use --tensor\n' +
      '  - "rows=2": unknown axis "rows"; the domain axes are height, width, sequence\n' +
      '  - expected axis=size, such as height=2, got "height"\n' +
      '  - "width=0": a size must be a positive whole number, such as width=2\n' +
      '  - axis "width" is given twice',
  );
});
