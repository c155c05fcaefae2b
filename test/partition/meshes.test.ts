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

const sequences = ["lstm", "gru", "tied", "transformer"];
const images = ["convolution", "batch-norm"];
/** Their smallest layers have two units or channels; in the images' half without them there are three. */
const narrow = ["lstm", "gru", ...images];

/** What a model is told whose layers cannot be split as the case asks. */
function refusalOf(name: string, title: string): string | undefined {
  if (title.startsWith("height") && !images.includes(name)) return "is split along height";
  if (title.startsWith("sequence") && !sequences.includes(name)) return "the data have no time dim";
  const isNarrow = title.startsWith("tensor 3") ? narrow.includes(name) : ["lstm", "gru"].includes(name);
  if (title.includes("tensor 3") && isNarrow) return "has no weight for 3 devices";
  if (title.includes("then one device") && name === "tied") return "tied parameters need the same mesh";
  return undefined;
}

for (const name of exampleNames) {
  for (const [title, [meshes, rest]] of Object.entries(cases)) {
    const refusal = refusalOf(name, title);
    test(`${name} on ${title}${refusal === undefined ? "" : " is refused"}`, async () => {
      const example = exampleOf(name, { dtype: "f64" });
      const layout = meshed(example.groups, meshes, rest);
      const { microBatches } = layout;
      const plain: Layout = { ...oneDevice(example.groups), microBatches, schedule: "gpipe" };
      if (refusal !== undefined) await expect(outcomeOf(example, layout)).rejects.toThrow(refusal);
      else expectSame(await outcomeOf(example, layout), await outcomeOf(example, plain), 1e-9, title);
    });
  }
}
