import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  abortThreadWorld,
  createThreadWorld,
  joinThreadWorld,
  threadWorldAbort,
} from "../../../src/node/transport/threads.ts";
import { transportConformance } from "../../execute/transport-conformance.ts";
import { DeviceWorkers } from "./device-workers.ts";

let workers: DeviceWorkers;

beforeAll(async () => {
  workers = await DeviceWorkers.start(6);
});

afterAll(async () => {
  await workers[Symbol.asyncDispose]();
});

transportConformance(
  "thread",
  (plan, name, input) => workers.runAll(createThreadWorld(plan), name, input),
  15,
);

transportConformance(
  "thread (no alias, no spin)",
  (plan, name, input) =>
    workers.runAll(createThreadWorld(plan, { direct: false, spinMicroseconds: 0 }), name, input),
  5,
);

const oneChannel = { size: 2, channels: [{ from: 0, to: 1, tag: 3, bytes: 64_000 }] };

/** An ONNX model with one node, y = -x, for float vectors of any length. */
const negate = "CAg6NAoLCgF4EgF5IgNOZWcSAWdaEAoBeBILCgkIARIFCgMSAW5iEAoBeRILCgkIARIFCgMSAW5CBAoAEA0=";

describe("thread world", () => {
  test("ONNX Runtime reads an arrived slot and writes an acquired one without a copy", async () => {
    const world = createThreadWorld({ size: 1, channels: [{ from: 0, to: 0, tag: 0, bytes: 16 }] });
    using transport = joinThreadWorld(world, 0);
    const outlet = transport.outlet(0, 0);
    const inlet = transport.inlet(0, 0);
    const session = await InferenceSession.create(Buffer.from(negate, "base64"));
    const tensorOn = (bytes: Uint8Array): Tensor =>
      new Tensor("float32", new Float32Array(bytes.buffer, bytes.byteOffset, 4), [4]);

    await outlet.acquire().wait(1);
    await session.run({ x: new Tensor("float32", [1, -2, 3, 4], [4]) }, { y: tensorOn(outlet.buffer(0)) });
    outlet.publish(0, 16);
    await inlet.arrive(16).wait(1);
    const { y } = await session.run({ x: tensorOn(inlet.buffer(0)) });
    inlet.release(0);

    expect([...new Float32Array(world.blocks[0] as SharedArrayBuffer, 0, 4)]).toEqual([-1, 2, -3, -4]);
    expect([...((y?.data ?? []) as Float32Array)]).toEqual([1, -2, 3, 4]);
  });

  test("a coordinator can end the run for a device that died", async () => {
    const world = createThreadWorld(oneChannel);
    const waiting = workers.run(world, 1, "neverComes", 20);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const started = performance.now();
    abortThreadWorld(world, 0, "its worker exited with code 9");
    abortThreadWorld(world, 1, "a later reason does not count");
    expect(await waiting).toEqual({
      error: {
        name: "TransportAborted",
        message: "device 0 ended the run: its worker exited with code 9",
      },
    });
    expect(performance.now() - started).toBeLessThan(1000);
    expect(threadWorldAbort(world)).toEqual({ culprit: 0, reason: "its worker exited with code 9" });
  });

  test("a worker that exits is reported by its coordinator to whoever waits for it", async () => {
    await using own = await DeviceWorkers.start(2);
    const world = createThreadWorld(oneChannel);
    own.worker(0).on("exit", (code) => abortThreadWorld(world, 0, `its worker exited with code ${code}`));
    const waiting = own.run(world, 1, "neverComes", 20);
    own.worker(0).postMessage({ name: "die", input: 9 });
    expect(await waiting).toHaveProperty(
      "error.message",
      "device 0 ended the run: its worker exited with code 9",
    );
  });

  test("an abort that its writer did not live to finish is written by the next one", () => {
    const world = createThreadWorld(oneChannel);
    new Int32Array(world.control)[0] = -1;
    expect(threadWorldAbort(world)).toBeUndefined();
    abortThreadWorld(world, 1, "its worker was terminated");
    expect(threadWorldAbort(world)).toEqual({ culprit: 1, reason: "its worker was terminated" });
  });

  test("a message leaves no garbage behind", async () => {
    const world = createThreadWorld({ size: 1, channels: [{ from: 0, to: 0, tag: 0, bytes: 64 }] });
    // In a thread of its own: what other tests do to this one's heap and compiled code is not measured.
    await using own = await DeviceWorkers.start(1);
    const { value } = (await own.run(world, 0, "garbage", 20_000)) as { readonly value: number };
    expect(value).toBeLessThan(40);
  });

  test("a waiting worker can be terminated", async () => {
    await using own = await DeviceWorkers.start(2);
    const world = createThreadWorld(oneChannel, { spinMicroseconds: 1e9 });
    own.run(world, 1, "neverComes", 20).catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const started = performance.now();
    await own.worker(1).terminate();
    expect(performance.now() - started).toBeLessThan(2000);
  });

  test("an alias keeps its shared memory alive and shows what other threads write", () => {
    const world = createThreadWorld({ size: 2, channels: [{ from: 0, to: 1, tag: 0, bytes: 1 << 20 }] });
    const block = world.blocks[0] as SharedArrayBuffer;
    const sender = joinThreadWorld(world, 0);
    const slot = sender.outlet(1, 0).buffer(1);
    new Uint8Array(block)[(1 << 20) + 5] = 77;
    expect(world.direct).toBe(true);
    expect(slot[5]).toBe(77);
    expect(slot.buffer).toBeInstanceOf(ArrayBuffer);
  });
});
