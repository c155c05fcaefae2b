import { expect, test } from "vitest";
import { folderWith, metricsOf, paraxis } from "./command.ts";

const jobWith = (metrics: string): string => `
import { accuracy, adam, arrays, defineJob, nn } from "paraxis";

const samples = 40;
const x = Float32Array.from({ length: samples }, (_, i) => i - 19.5);

export default defineJob({
  model: nn.linear({ units: 2, group: "only" }),
  loss: "cross-entropy",
  metrics: ${metrics},
  optimizer: adam({ rate: 0.1 }),
  data: arrays(
    {
      x: { dtype: "f32", shape: [samples, 1], data: x },
      targets: { dtype: "i32", shape: [samples], data: Int32Array.from(x, (value) => (value > 0 ? 1 : 0)) },
    },
    { batch: 10, validationShare: 0.25 },
  ),
  epochs: 30,
});
`;

test("metrics of a job stand behind the validation loss, in progress, at the end, and in metrics.jsonl", async () => {
  const cwd = folderWith({ "job.ts": jobWith("{ accuracy }") });
  const { code, out, err } = await paraxis(["train", "job.ts"], { cwd });
  expect(code).toBe(0);
  expect(err).toMatch(
    /validation after step 90, epoch 30: loss [\d.]+, perplexity [\d.]+, accuracy 1\.000\n/,
  );
  expect(out).toMatch(/validation loss +[\d.]+, perplexity [\d.]+, accuracy 1\.000\n/);
  expect(metricsOf(cwd).at(-1)).toMatchObject({ kind: "evaluation", metrics: { accuracy: 1 } });
});

test("metrics that are no functions are refused", async () => {
  const cwd = folderWith({ "job.ts": jobWith('["accuracy", accuracy]') });
  const { code, err } = await paraxis(["train", "job.ts"], { cwd });
  expect(code).not.toBe(0);
  expect(err).toContain("metrics must be a record from name to function, such as { accuracy }");
});
