#!/usr/bin/env node
/**
 * Trains the benchmark's three models with TensorFlow.js and times the steps; the other side of `versus`.
 *
 *   node tfjs_train.mjs lstm --threads 1 --steps 5 --json
 *   node tfjs_train.mjs lstm --serve        reads lines "run K", answers each with one line of JSON
 *
 * Backends, best first: `tensorflow` (tfjs-node, native), `wasm` (XNNPACK with SIMD; one thread in Node), `cpu` (plain JavaScript).
 */
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import * as models from "./tfjs_models.mjs";
import { plainOperations, tunedOperations } from "./tfjs_operations.mjs";

const WORKLOADS = { lstm: models.lstm, transformer: models.transformer, conv: models.conv };

const HELP = `Usage: node tfjs_train.mjs <${Object.keys(WORKLOADS).join(" | ")}> [options]
  --threads N        threads, where the backend can choose them (default 1)
  --steps N          timed steps (default 10)
  --warm-up N        steps before timing (default 2)
  --backend NAME     tensorflow, wasm or cpu (default: the first of these that loads)
  --tfjs-node PATH   folder of an installed @tensorflow/tfjs-node, if it is not in node_modules
  --plain            on wasm, the built-in derivatives instead of the tuned ones
  --time N           length of the LSTM's sequences (default 32, on the cpu backend 2)
  --json             one line of JSON (otherwise a sentence)
  --serve            read "run K" from standard input`;

async function loadTensorflow({ threads, path }) {
  for (const name of ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"]) process.env[name] = String(threads);
  process.env.TF_NUM_INTEROP_THREADS = "1";
  process.env.TF_CPP_MIN_LOG_LEVEL ??= "2";
  const { default: tf } = await import(path ? `${path}/dist/index.js` : "@tensorflow/tfjs-node");
  return { tf, threads, versions: { tfjs: tf.version.tfjs, tensorflow: tf.backend().binding?.TF_Version } };
}

async function loadWasm() {
  const { default: tf } = await import("@tensorflow/tfjs");
  await import("@tensorflow/tfjs-backend-wasm");
  if (!(await tf.setBackend("wasm"))) throw new Error("the wasm backend did not start");
  return { tf, threads: 1, versions: { tfjs: tf.version.tfjs } };
}

async function loadCpu() {
  const { default: tf } = await import("@tensorflow/tfjs");
  await tf.setBackend("cpu");
  return { tf, threads: 1, versions: { tfjs: tf.version.tfjs } };
}

const BACKENDS = { tensorflow: loadTensorflow, wasm: loadWasm, cpu: loadCpu };

/** The first backend that loads, and why the ones before it did not. */
async function load(names, options) {
  const refused = {};
  for (const name of names) {
    try {
      return { name, refused, ...(await BACKENDS[name](options)) };
    } catch (error) {
      refused[name] = String(error.message).split("\n")[0];
    }
  }
  console.log(
    JSON.stringify({ skipped: "no TensorFlow.js backend loads; run npm ci in bench/peers", refused }),
  );
  return process.exit(0);
}

function clipped(tf, grads, limit) {
  const norm = tf.sqrt(tf.addN(Object.values(grads).map((g) => tf.sum(tf.square(g)))));
  const scale = tf.minimum(tf.div(limit, tf.add(norm, 1e-6)), 1);
  return Object.fromEntries(Object.entries(grads).map(([key, g]) => [key, tf.mul(g, scale)]));
}

/** One whole training step; returns the loss, which also waits until everything is computed. */
function trainStep(tf, workload, batch) {
  return tf.tidy(() => {
    const { value, grads } = tf.variableGrads(() => workload.loss(batch));
    if (workload.decay > 0) {
      for (const key of Object.keys(grads)) {
        const v = tf.engine().registeredVariables[key];
        v.assign(tf.mul(v, 1 - workload.decay));
      }
    }
    workload.optimizer.applyGradients(workload.clip > 0 ? clipped(tf, grads, workload.clip) : grads);
    return value.dataSync()[0];
  });
}

function trainer(tf, workload) {
  let done = 0;
  return () => {
    const [start, cpu] = [performance.now(), process.cpuUsage()];
    const loss = trainStep(tf, workload, workload.batches[done++ % workload.batches.length]);
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    return { seconds, cpuSeconds: (user + system) / 1e6, loss };
  };
}

async function serve(step, description) {
  console.log(JSON.stringify({ ready: true, ...description }));
  for await (const line of createInterface({ input: process.stdin })) {
    const count = /^\s*run\s+(\d+)\s*$/.exec(line)?.[1];
    if (count !== undefined) {
      const runs = Array.from({ length: Number(count) }, step);
      console.log(JSON.stringify({ stepSeconds: runs.map((r) => r.seconds), loss: runs.at(-1)?.loss }));
    } else if (line.trim() !== "") {
      console.log(JSON.stringify({ error: `expected "run K", got ${JSON.stringify(line)}` }));
    }
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function measure(step, steps, description) {
  const runs = Array.from({ length: steps }, step);
  const seconds = runs.map((r) => r.seconds);
  const typical = median(seconds);
  return {
    ...description,
    cpuSeconds: median(runs.map((r) => r.cpuSeconds)),
    stepSeconds: { median: typical, min: Math.min(...seconds), max: Math.max(...seconds) },
    tokensOrSamplesPerSecond: description.unitsPerStep / typical,
    loss: runs.at(-1).loss,
  };
}

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      threads: { type: "string", default: "1" },
      steps: { type: "string", default: "10" },
      "warm-up": { type: "string", default: "2" },
      backend: { type: "string" },
      "tfjs-node": { type: "string" },
      time: { type: "string" },
      plain: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      serve: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const [workload] = positionals;
  const known = Object.hasOwn(WORKLOADS, workload ?? "") && (!values.backend || values.backend in BACKENDS);
  if (values.help || !known) {
    console.error(HELP);
    process.exit(values.help ? 0 : 1);
  }
  return { ...values, workload };
}

async function main() {
  const options = readArguments();
  const names = options.backend ? [options.backend] : Object.keys(BACKENDS);
  const { tf, ...backend } = await load(names, {
    threads: Number(options.threads),
    path: options["tfjs-node"],
  });
  await tf.ready();
  const steps = Number(options.time ?? (backend.name === "cpu" ? 2 : 32));
  const tuned = backend.name === "wasm" && !options.plain;
  const ops = tuned ? tunedOperations(tf) : plainOperations(tf);
  const workload = WORKLOADS[options.workload](tf, ops, models.generator(1), { steps });
  const description = {
    workload: options.workload,
    model: workload.model,
    backend: backend.name,
    variant: tuned ? "tuned derivatives" : "built-in derivatives",
    ...backend.versions,
    threads: backend.threads,
    threadsAsked: Number(options.threads),
    unit: workload.unit,
    unitsPerStep: workload.unitsPerStep,
    refused: backend.refused,
  };
  const step = trainer(tf, workload);
  for (let k = 0; k < Number(options["warm-up"]); k++) step();
  if (options.serve) return serve(step, description);
  const result = measure(step, Number(options.steps), description);
  const rate = result.tokensOrSamplesPerSecond.toFixed(0);
  console.log(
    options.json
      ? JSON.stringify(result)
      : `${result.workload}, TensorFlow.js ${result.tfjs} (${result.backend}), ${result.threads} threads: ` +
          `${(1000 * result.stepSeconds.median).toFixed(1)} ms per step, ${rate} ${result.unit}/s, loss ${result.loss.toFixed(4)}`,
  );
  return undefined;
}

await main();
