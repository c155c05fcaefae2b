import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readSafetensors } from "../../../src/node/files/safetensors.ts";
import { type Finished, folderWith, jsonLines, metricsOf, paraxis, sampleText, tinyJob } from "./command.ts";

/** A job over a text, with the options of its words. */
function textJobWith(options: string, file = "text.txt"): string {
  return `import { adam, defineJob, nn } from "paraxis";
import { words } from "paraxis/node";

const data = words(new URL("${file}", import.meta.url), ${options});

export default defineJob({
  model: nn.sequential([nn.embedding({ vocabulary: 50, dim: 4 }), nn.linear({ units: 50 })]),
  loss: "cross-entropy",
  optimizer: adam({ rate: 0.01 }),
  data,
});
`;
}

const options = "{ batch: 4, buckets: [8, 16], vocabulary: 50 }";

const files = {
  "tiny.ts": tinyJob,
  "text.txt": sampleText,
  "empty.txt": "",
  "binary.txt": Uint8Array.from([72, 101, 0, 1, 2]),
  "empty.ts": textJobWith(options, "empty.txt"),
  "binary.ts": textJobWith(options, "binary.txt"),
  "no-vocabulary.ts": textJobWith("{ batch: 4, buckets: [8, 16], vocabulary: 0 }"),
  "long.ts": textJobWith("{ batch: 4, buckets: [8, 12], vocabulary: 50 }"),
  "syntax.ts": 'import { nn } from "paraxis";\n\nexport default { model: ;\n',
  "import-syntax.ts": 'import "./syntax.ts";\nexport default {};\n',
  "throws.ts":
    'import { nn } from "paraxis";\n\ninterface Gone {\n  readonly a: number;\n}\n\nexport default nn.lstm({ units: -1 });\n',
  "reference.js": 'import { nn } from "paraxis";\nexport default missing;\n',
  "no-module.ts": 'import { nn } from "paraxis";\nimport { x } from "no-such-package";\nexport default x;\n',
  "no-export.ts": 'import {\n  nn,\n  adamm,\n} from "paraxis";\nexport default adamm({ rate: 1 });\n',
  "no-default.ts": "export const job = 1;\n",
  "number.ts": "export default 5;\n",
  "fields.ts":
    'export default { modell: 1, loss: "mse", optimizer: 5, data: [], epochs: 0, seed: "one", recompute: 3 };\n',
  "promise.ts": tinyJob.replace("data: arrays(", "data: Promise.resolve(5) as never, name: String("),
  "residual.ts": tinyJob.replace(
    'nn.tanh({ group: "hidden" })',
    'nn.residual(nn.linear({ units: 5, group: "inner" }), { group: "sum" })',
  ),
  "loss-shape.ts": tinyJob.replace("units: 1,", "units: 3,"),
  "function-model.ts": tinyJob
    .replace("import { adam,", "import { ops, adam,")
    .replace(
      "nn.sequential([",
      '({ features }) => nn.linear({ units: 4, group: "first" })(ops.matmul(features, ops.constant(features.scope, "f32", [3, 4], 1))), name: String([',
    ),
};

async function failing(args: readonly string[], cwd: string): Promise<Finished> {
  const finished = await paraxis(args, { cwd });
  expect(finished.code, finished.err + finished.out).toBe(1);
  expect(finished.err, "no stack trace").not.toMatch(/^\s+at /m);
  expect(finished.out).toBe("");
  return finished;
}

test.for([
  ["missing.ts", /^error: cannot read the job missing\.ts: there is no such file\n$/],
  [".", /^error: cannot read the job \.: it is a folder; name the job file in it\n$/],
  [
    "text.txt",
    /^error: cannot read the job text\.txt: a job is a file that ends in \.ts, \.mts, \.js, \.mjs\n$/,
  ],
  ["syntax.ts", /^error: cannot load the job: syntax\.ts:3:25: Unexpected ";"\n$/],
  ["import-syntax.ts", /^error: cannot load the job: syntax\.ts:3:25: Unexpected ";"\n$/],
  [
    "throws.ts",
    /^error: cannot load the job: throws\.ts:7:19: cannot make a layer "lstm": units .* got -1\n$/,
  ],
  [
    "reference.js",
    /^error: cannot load the job: reference\.js:2:16: ReferenceError: missing is not defined\n$/,
  ],
  [
    "no-module.ts",
    /^error: cannot load the job: no-module\.ts:2:20: Cannot find package 'no-such-package'\n$/,
  ],
  ["no-export.ts", /^error: cannot load the job: no-export\.ts:3:3: .*'paraxis'.* export named 'adamm'\n$/],
  ["no-default.ts", /^error: the job no-default\.ts has no default export: it exports only job; write: /],
  ["number.ts", /^error: this is not a job: expected defineJob\(\{ \.\.\. \}\), got a number\n$/],
  ["promise.ts", /^error: the job is not valid: data must be a data set.*, got a promise of a number\n$/],
  ["empty.ts", /^error: cannot load the job: empty\.ts:4:14: cannot read .*empty\.txt: the file is empty\n$/],
  [
    "binary.ts",
    /^error: .*binary\.ts:4:14: cannot read .*binary\.txt: it is a binary file, not text: byte 2 is/,
  ],
  ["no-vocabulary.ts", /^error: .*no-vocabulary\.ts:4:14: .*vocabulary.* 0/s],
  ["long.ts", /^error: .*long\.ts:4:14: .*longer than the longest bucket of 12 tokens.* the longest has 16;/],
  ["residual.ts", /^error: residual "sum" cannot add its input \[16,8\] to the output \[16,5\] of linear/],
  ["loss-shape.ts", /^error: mean-squared-error: the output \[16,3\] and the targets \[16,1\]/],
  ["function-model.ts", /^error: matmul .*\[16,2\].*\[3,4\]/],
] as const)("the job %s is refused in one message", async ([job, message]) => {
  const cwd = folderWith(files);
  const { err } = await failing(["train", job], cwd);
  expect(err).toMatch(message);
});

test("a job with many mistakes is told all of them at once", async () => {
  const { err } = await failing(["train", "fields.ts"], folderWith(files));
  const problems = err.split("\n").filter((line) => line.startsWith("  - "));
  expect(problems.map((line) => line.split(/ (?:must|"modell")/)[0])).toEqual([
    "  - model",
    "  - loss",
    "  - optimizer",
    "  - data",
    "  - recompute",
    "  - epochs",
    "  - seed",
    "  - unknown field",
  ]);
});

test.for([
  [["trian", "tiny.ts"], /unknown command 'trian'\n\(Did you mean train\?\)/],
  [["train", "tiny.ts", "--stepz", "4"], /unknown option '--stepz'\n\(Did you mean --steps\?\)/],
  [["train"], /missing required argument 'job'/],
  [
    ["train", "tiny.ts", "--steps", "0"],
    /'--steps <n>' argument '0' is invalid\. It must be a positive whole/,
  ],
  [["train", "tiny.ts", "--seed", "x"], /'--seed <n>' argument 'x' is invalid\. It must be a whole number/],
  [["train", "tiny.ts", "--engine", "gpu"], /Allowed choices are onnxruntime, reference/],
] as const)("the command line %j is refused", async ([args, message]) => {
  const { err } = await failing(args, folderWith(files));
  expect(err).toMatch(message);
});

test("a loss that is not finite ends the run, names step and tensor, and keeps the parameters from before that step", async () => {
  const job = tinyJob.replace("adam({ rate: 0.01 })", "sgd({ rate: 1e25 })").replace("{ adam,", "{ sgd,");
  const cwd = folderWith({ "explodes.ts": job, "calm.ts": job });
  const { code, out, err } = await paraxis(["train", "explodes.ts", "--json"], { cwd });
  expect(code).toBe(1);
  const failure = jsonLines(out).at(-1);
  expect(failure).toMatchObject({ kind: "failed", steps: expect.any(Number) });
  const steps = Number(failure?.["steps"]);
  expect(err).toMatch(new RegExp(`error: step ${steps + 1}: the loss is (NaN|Infinity)`));
  expect(err).toMatch(
    /the first tensor that is not finite is the result of \S+ f32\[.*\] in group "\w+" \(forward\)/,
  );
  expect(err).toMatch(/The metrics of \d+ steps? are in runs\/.*\/metrics\.jsonl\./);
  expect(err).toMatch(/The last good parameters are in runs\/.*\/model\.safetensors\./);
  expect(metricsOf(cwd)).toHaveLength(steps);
  expect(JSON.parse(readFileSync(join(cwd, "runs/latest/run.json"), "utf8"))).toMatchObject({
    status: "failed",
  });
  const kept = await readSafetensors(join(cwd, "runs/latest/model.safetensors"));
  const args = ["train", "calm.ts", "--quiet", "--no-validation", "--run-folder", "calm"];
  expect((await paraxis([...args, "--steps", `${steps}`], { cwd })).code).toBe(0);
  const before = await readSafetensors(join(cwd, "calm/latest/model.safetensors"));
  expect(kept.tensors).toEqual(before.tensors);
  expect(kept.metadata["step"]).toBe(`${steps}`);
});
