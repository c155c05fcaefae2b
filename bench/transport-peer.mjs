/** The other thread of the transport benchmark: does what the main thread does, as device 1. */
import { parentPort, workerData } from "node:worker_threads";
import { register } from "tsx/esm/api";

register();
const { playDevice } = await import("./transport-rounds.ts");

parentPort.on("message", ({ world, name, rounds }) => {
  playDevice(world, 1, name, rounds);
  parentPort.postMessage("done");
});
parentPort.postMessage(workerData ?? "ready");
