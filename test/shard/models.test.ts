/** Whole models split over meshes compute what one device computes, before there is any program. */

import { expect, test } from "vitest";
import type { Axis, Mesh } from "../../src/shard/mesh.ts";
import { splitItem, splitUpdate } from "../../src/shard/step.ts";
import { exampleNames, exampleOf, stepOf } from "../partition/models.ts";
import { expectSameOutputs } from "./evaluate-split.ts";

const axis = (name: Axis["axis"], size: number): Axis => ({ axis: name, size });
const tensorAs = (...shares: number[]): Axis => ({ axis: "tensor", size: shares.length, shares });
const meshes: { readonly [name: string]: readonly Mesh[] } = {
  "tensor 2": [{ axes: [axis("tensor", 2)] }],
  "tensor 3": [{ axes: [axis("tensor", 3)] }],
  "tensor 2 as 3 : 1": [{ axes: [tensorAs(3, 1)] }],
  "tensor 3 as 1 : 2 : 4": [{ axes: [tensorAs(1, 2, 4)] }],
  "tensor 2 as 3 : 1, then tensor 2 as 1 : 2": [{ axes: [tensorAs(3, 1)] }, { axes: [tensorAs(1, 2)] }],
  "sequence 2": [{ axes: [axis("sequence", 2)] }],
  "height 2": [{ axes: [axis("height", 2)] }],
  "height 2 x tensor 2": [{ axes: [axis("height", 2), axis("tensor", 2)] }],
  "width 3": [{ axes: [axis("width", 3)] }],
  "one device, then height 2": [{ axes: [] }, { axes: [axis("height", 2)] }],
  "height 2, then width 2": [{ axes: [axis("height", 2)] }, { axes: [axis("width", 2)] }],
  "height 2, then height 2": [{ axes: [axis("height", 2)] }, { axes: [axis("height", 2)] }],
  "height 2 x width 2": [{ axes: [axis("height", 2), axis("width", 2)] }],
  "sequence 2 x tensor 2": [{ axes: [axis("sequence", 2), axis("tensor", 2)] }],
  "tensor 2, then one device": [{ axes: [axis("tensor", 2)] }, { axes: [] }],
  "one device, then tensor 3": [{ axes: [] }, { axes: [axis("tensor", 3)] }],
  "tensor 2, then tensor 2": [{ axes: [axis("tensor", 2)] }, { axes: [axis("tensor", 2)] }],
  "tensor 2, then sequence 2": [{ axes: [axis("tensor", 2)] }, { axes: [axis("sequence", 2)] }],
};

for (const name of exampleNames) {
  for (const [title, stages] of Object.entries(meshes)) {
    test(`${name} on ${title}`, () => {
      const example = exampleOf(name, { dtype: "f64" });
      const { source, groups, vocabulary } = example;
      const step = stepOf(example);
      const half = Math.ceil(groups.length / stages.length);
      const stageOf = (group: string) => Math.max(0, Math.floor(groups.indexOf(group) / half));
      const meshOf = (group: string) => ({ stage: stageOf(group), mesh: stages[stageOf(group)] as Mesh });
      const common = {
        meshOf,
        chosen: new Map(),
        timeDims: (input: string) =>
          (source.inputs.find((spec) => spec.name === input)?.dims ?? []).flatMap((dim, i) =>
            dim === "time" ? [i] : [],
          ),
      };
      if (name === "tied" && /tensor 2, then (one device|sequence)|3 : 1, then/.test(title)) {
        expect(() => splitItem(step, common)).toThrow(
          "tied parameters need the same mesh in all their stages",
        );
        return;
      }
      const item = splitItem(step, common);
      expectSameOutputs(step.item, item, vocabulary);
      expectSameOutputs(step.update, splitUpdate(step, item, common), vocabulary);
    });
  }
}
