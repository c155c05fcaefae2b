/** Layers split over meshes of devices: training gives what one device gives. */

import { expect, test } from "vitest";
import { type Layout, type Mesh, meshSize, oneDevice } from "../../src/layout/layout.ts";
import { exampleNames, exampleOf } from "./models.ts";
import { expectSame, outcomeOf } from "./train.ts";

/** Stages with equal shares of the groups, each on a mesh of its own devices. */
function meshed(groups: readonly string[], meshes: readonly Mesh[], rest: Partial<Layout> = {}): Layout {
  const share = Math.ceil(groups.length / meshes.length);
  let next = 0;
  const stages = meshes.map((mesh, i) => {
    const count = meshSize({ mesh });
    const devices = Array.from({ length: count }, () => `cpu:${next++}`);
    return { devices, mesh, groups: groups.slice(i * share, (i + 1) * share) };
  });
  const devices = Array.from({ length: next }, (_, i) => ({ name: `cpu:${i}`, threads: 1 }));
  return { ...oneDevice(groups), devices, stages, ...rest };
}

const cases: { readonly [name: string]: readonly [readonly Mesh[], Partial<Layout>?] } = {
  "tensor 2": [[{ tensor: 2 }]],
  "tensor 3, micro-batches": [[{ tensor: 3 }], { microBatches: 3, schedule: "gpipe" }],
  "tensor 2, then tensor 2, 1F1B": [[{ tensor: 2 }, { tensor: 2 }], { microBatches: 2, schedule: "1f1b" }],
  "tensor 2, then one device, W per item": [
    [{ tensor: 2 }, {}],
    { microBatches: 2, schedule: "1f1b", weights: "per-item" },
  ],
  "one device, then tensor 3, W deferred": [
    [{}, { tensor: 3 }],
    { microBatches: 4, schedule: "gpipe", weights: "deferred" },
  ],
  "tensor 2, W delayed into bubbles": [
    [{ tensor: 2 }, { tensor: 2 }],
    { microBatches: 4, schedule: "zero-bubble-h1", weights: "per-item" },
  ],
  "sequence 2": [[{ sequence: 2 }]],
  "sequence 2 x tensor 2": [[{ sequence: 2, tensor: 2 }], { microBatches: 2, schedule: "gpipe" }],
  "height 2": [[{ height: 2 }]],
  "height 2 x width 2, then tensor 2": [[{ height: 2, width: 2 }, { tensor: 2 }], { schedule: "gpipe" }],
};

for (const name of exampleNames) {
  for (const [title, [meshes, rest]] of Object.entries(cases)) {
    const isRefused = name === "tied" && title.includes("then one device");
    test(`${name} on ${title}${isRefused ? " is refused" : ""}`, async () => {
      const example = exampleOf(name, { dtype: "f64" });
      const layout = meshed(example.groups, meshes, rest);
      const { microBatches } = layout;
      const plain: Layout = { ...oneDevice(example.groups), microBatches, schedule: "gpipe" };
      if (isRefused)
        await expect(outcomeOf(example, layout)).rejects.toThrow("tied parameters need the same mesh");
      else expectSame(await outcomeOf(example, layout), await outcomeOf(example, plain), 1e-9, title);
    });
  }
}
