import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { digits } from "../../examples/mnist-domain/digits.ts";
import { folderWith, metricsOf, paraxis } from "../node/cli/command.ts";

const examples = fileURLToPath(new URL("../../examples/", import.meta.url));

/** Words of the command line that let each example run in seconds. */
const briefly: { readonly [example: string]: readonly string[] } = {
  "first-run": ["--steps", "2", "--no-validation"],
  "four-machines": ["--epochs", "1"],
  "mnist-domain": ["--epochs", "1"],
  "mxnet-lstm": ["--steps", "1", "--no-validation"],
  regression: [],
  "tied-language-model": ["--steps", "60"],
  transformer: ["--steps", "40", "--no-validation"],
};

async function train(example: string): Promise<{ readonly [key: string]: unknown }[]> {
  const cwd = folderWith({});
  const args = ["train", `${examples}${example}/job.ts`, "--quiet", ...(briefly[example] ?? [])];
  expect(await paraxis(args, { cwd })).toEqual({ code: 0, out: "", err: "" });
  return metricsOf(cwd);
}

test("every example has a job, a README, and a test that runs it", () => {
  expect(readdirSync(examples).toSorted()).toEqual(Object.keys(briefly).toSorted());
  for (const example of Object.keys(briefly)) {
    expect(readFileSync(`${examples}${example}/README.md`, "utf8")).toContain(
      example === "first-run" ? "npm start" : `examples/${example}/job.ts`,
    );
  }
});

test("MXNet's example starts at the loss of a uniform guess, with MXNet's rate", async () => {
  const [step] = await train("mxnet-lstm");
  expect(step).toMatchObject({ step: 1, rate: 0.1 });
  expect(Math.abs(Number(step?.["loss"]) - Math.log(10_000))).toBeLessThan(0.05);
}, 60_000);

test("the first run starts", async () => {
  expect((await train("first-run")).map(({ step }) => step)).toEqual([1, 2]);
}, 60_000);

test("the regression learns its curve", async () => {
  expect(Number((await train("regression")).at(-1)?.["loss"])).toBeLessThan(0.01);
});

test.each([
  ["mnist-domain", 0.92],
  ["four-machines", 0.85],
])(
  "%s tells most digits apart after one epoch",
  async (example, least) => {
    const evaluation = (await train(example)).at(-1);
    expect(evaluation).toMatchObject({ kind: "evaluation", targets: 2_000 });
    const metrics = evaluation?.["metrics"] as { readonly [name: string]: number } | undefined;
    expect(metrics?.["accuracy"]).toBeGreaterThan(least);
  },
  60_000,
);

test.each(["four-machines", "mnist-domain", "transformer"])(
  "%s learns the same under the layout beside it as under one item on one device",
  async (example) => {
    const lossesUnder = async (...words: readonly string[]) => {
      const cwd = folderWith({});
      const job = `${examples}${example}/job.ts`;
      const args = ["train", job, "--quiet", "--no-validation", "--steps", "4", ...words];
      expect(await paraxis(args, { cwd })).toEqual({ code: 0, out: "", err: "" });
      return metricsOf(cwd).map(({ loss }) => Number(loss));
    };
    const expected = await lossesUnder();
    const losses = await lossesUnder("--layout", `${examples}${example}/layout.json`);
    expect(losses).toHaveLength(4);
    losses.forEach((loss, i) => {
      expect(Math.abs(loss / (expected[i] as number) - 1)).toBeLessThan(1e-4);
    });
  },
  60_000,
);

test("the digits are all that the package has, each class as often as its file has it", async () => {
  const data = digits(50);
  const counts = Array<number>(10).fill(0);
  for (const batches of [data.training(1, 0), data.validation()]) {
    for await (const { inputs } of batches) {
      for (const digit of (inputs["targets"]?.data ?? []) as Int32Array)
        counts[digit] = (counts[digit] ?? 0) + 1;
    }
  }
  expect(counts).toEqual([1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]);
});

test("the transformer starts at a uniform guess over its characters and falls quickly", async () => {
  const losses = (await train("transformer")).map(({ loss }) => Number(loss));
  expect(Math.abs((losses[0] as number) - Math.log(84))).toBeLessThan(0.5);
  expect(losses.at(-1)).toBeLessThan(2.9);
}, 60_000);

test("the tied language model comes close to its unigram baseline in 60 steps", async () => {
  const evaluation = (await train("tied-language-model")).at(-1);
  expect(evaluation).toMatchObject({ kind: "evaluation" });
  expect(Number(evaluation?.["perplexity"])).toBeLessThan(115);
});
