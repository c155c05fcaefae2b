import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readSafetensors } from "../../../src/node/files/safetensors.ts";
import { folderWith, jsonLines, metricsOf, paraxis, sampleText, textJob, tinyJob } from "./command.ts";

const textFiles = {
  "job.ts": textJob,
  "sizes.ts": "export const units: number = 12;\n",
  "text.txt": sampleText,
};

function withoutTimes({
  seconds: _,
  tokensPerSecond: __,
  ...rest
}: {
  readonly [key: string]: unknown;
}): object {
  return rest;
}

test("a TypeScript job outside any project trains and leaves metrics, layout, run facts and parameters", async () => {
  const cwd = folderWith({ "curve.ts": tinyJob });
  const { code, out, err } = await paraxis(["train", "curve.ts", "--seed", "7", "--threads", "1"], { cwd });
  expect({ code, err }).toMatchObject({ code: 0, err: expect.stringContaining("step 18/18") });
  expect(out).toMatch(/33 parameters in 2 groups: hidden, output/);
  expect(out).toMatch(/seed 7; 18 steps, 3 epochs of 6/);
  expect(out).toMatch(/validation loss +\d/);
  const run = join(cwd, "runs/latest");
  const metrics = metricsOf(cwd);
  expect(metrics.filter(({ kind }) => kind === "step").map(({ step }) => step)).toEqual(
    Array.from({ length: 18 }, (_, i) => i + 1),
  );
  expect(metrics.filter(({ kind }) => kind === "evaluation").map(({ step }) => step)).toEqual([6, 12, 18]);
  expect(metrics[0]).not.toHaveProperty("perplexity");
  expect(JSON.parse(readFileSync(join(run, "layout.json"), "utf8"))).toMatchObject({
    version: 1,
    devices: [{ name: "cpu:0", threads: 1 }],
    stages: [{ device: "cpu:0", groups: ["hidden", "output"] }],
  });
  expect(JSON.parse(readFileSync(join(run, "run.json"), "utf8"))).toMatchObject({
    status: "finished",
    command: ["paraxis", "train", "curve.ts", "--seed", "7", "--threads", "1"],
    jobFile: "curve.ts",
    seed: 7,
    versions: { node: process.versions.node, onnxruntime: "1.30.0" },
    result: { reason: "finished", steps: 18 },
  });
  const { tensors, metadata } = await readSafetensors(join(run, "model.safetensors"));
  expect(Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, shape]))).toEqual({
    "hidden.weight": [2, 8],
    "hidden.bias": [8],
    "output.weight": [8, 1],
    "output.bias": [1],
  });
  expect(metadata).toEqual({ step: "18", seed: "7", job: "curve" });
});

test("with --json, stdout holds one object per line from start to end, equal to the metrics on disk", async () => {
  const cwd = folderWith(textFiles);
  const { code, out } = await paraxis(["train", "job.ts", "--steps", "3", "--json"], { cwd });
  expect(code).toBe(0);
  const events = jsonLines(out);
  expect(events.map(({ kind }) => kind)).toEqual(["start", "step", "step", "step", "evaluation", "end"]);
  expect(events.slice(1, -1)).toEqual(metricsOf(cwd));
  const [start, first] = events;
  expect(start).toMatchObject({ groups: ["embed", "layer0", "decode"], steps: 3, validation: true });
  expect(first?.["perplexity"]).toBeCloseTo(Math.exp(Number(first?.["loss"])), 9);
  expect(events.at(-1)).toMatchObject({
    reason: "finished",
    steps: 3,
    unigramPerplexity: expect.any(Number),
    validation: { perplexity: expect.any(Number) },
  });
});

test("the same seed gives the same losses to the last bit, dropout on and two threads, and another seed does not", async () => {
  const cwd = folderWith(textFiles);
  const lossesOf = async (seed: string): Promise<object[]> => {
    rmSync(join(cwd, "runs"), { recursive: true, force: true });
    const args = ["train", "job.ts", "--quiet", "--steps", "24", "--threads", "2", "--seed", seed];
    expect(await paraxis(args, { cwd })).toEqual({ code: 0, out: "", err: "" });
    return metricsOf(cwd).map(withoutTimes);
  };
  const first = await lossesOf("3");
  expect(await lossesOf("3")).toEqual(first);
  expect(await lossesOf("4")).not.toEqual(first);
});

test("Ctrl-C finishes the step, saves the parameters, says where, and exits with 130", async () => {
  const cwd = folderWith({ "curve.ts": tinyJob });
  let isAsked = false;
  const { code, out, err } = await paraxis(["train", "curve.ts", "--epochs", "1000000"], {
    cwd,
    onOutput: (process, _, text) => {
      if (isAsked || !text.includes("step ")) return;
      isAsked = true;
      process.kill("SIGINT");
    },
  });
  expect(code).toBe(130);
  expect(err).toContain("press Ctrl-C again to end at once");
  const metrics = metricsOf(cwd);
  const steps = metrics.filter(({ kind }) => kind === "step").length;
  expect(out).toContain(`Stopped after ${steps.toLocaleString("en-US")} step`);
  const path = /^ +parameters +(\S+)$/m.exec(out)?.[1] ?? "nowhere";
  const { metadata } = await readSafetensors(join(cwd, path));
  expect(metadata["step"]).toBe(`${steps}`);
  expect(JSON.parse(readFileSync(join(cwd, "runs/latest/run.json"), "utf8"))).toMatchObject({
    status: "stopped",
  });
});

test("a second Ctrl-C ends the run at once, without saving", async () => {
  const cwd = folderWith({ "curve.ts": tinyJob });
  let isAsked = false;
  const { code } = await paraxis(["train", "curve.ts", "--epochs", "1000000"], {
    cwd,
    onOutput: (process, _, text) => {
      if (isAsked || !text.includes("step ")) return;
      isAsked = true;
      process.kill("SIGINT");
      process.kill("SIGTERM");
    },
  });
  expect(code).toBe(130);
  expect(existsSync(join(cwd, "runs/latest/model.safetensors"))).toBe(false);
  expect(metricsOf(cwd).length).toBeGreaterThan(0);
});

test("--quiet prints nothing, --no-validation does not validate, and --run-folder says where", async () => {
  const cwd = folderWith({ "curve.mjs": tinyJob.replaceAll(" as number", "") });
  const args = ["train", "curve.mjs", "--quiet", "--no-validation", "--run-folder", "elsewhere/here"];
  expect(await paraxis([...args, "--engine", "reference"], { cwd })).toEqual({ code: 0, out: "", err: "" });
  const metrics = jsonLines(readFileSync(join(cwd, "elsewhere/here/latest/metrics.jsonl"), "utf8"));
  expect(metrics.map(({ kind }) => kind)).toEqual(Array.from({ length: 18 }, () => "step"));
  expect(existsSync(join(cwd, "runs"))).toBe(false);
});
