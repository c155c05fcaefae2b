/** A worker thread that plays a device: loads the TypeScript cases and runs those that it is told to. */
import { parentPort, workerData } from "node:worker_threads";
import { register } from "tsx/esm/api";

register();
const { runDevice } = await import("../../execute/transport-cases.ts");
const { joinThreadWorld } = await import("../../../src/node/transport/threads.ts");

parentPort.on("message", async ({ world, rank, name, input, answer }) => {
  if (name === "die") process.exit(input);
  const transport = joinThreadWorld(world, rank);
  answer.postMessage(await runDevice(transport, name, input));
});
parentPort.postMessage({ ready: workerData });
