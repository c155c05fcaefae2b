/** The thread of one device: carries out requests one after another. Started by `thread-cluster.ts`. */

import { parentPort, workerData } from "node:worker_threads";
import { invariant, UserError } from "../../base/errors.ts";
import { Device } from "../../execute/device.ts";
import type { Engine } from "../../execute/engine.ts";
import { readTensors, writeTensors } from "../../execute/local-cluster.ts";
import { referenceEngine } from "../../execute/reference-engine.ts";
import { type Transport, TransportAborted } from "../../execute/transport.ts";
import { onnxRuntimeEngine } from "../onnxruntime/engine.ts";
import { joinThreadWorld } from "../transport/threads.ts";
import type { Answer, DeviceSetup, Fault, Request } from "./messages.ts";

const setup = workerData as DeviceSetup;
const port = parentPort;
invariant(port !== null, "a device worker runs in a worker thread");

let transport: Transport | undefined;
let device: Device | undefined;
const programs: string[] = [];

port.on("message", (request: Request) => {
  answer(request).then(
    (reply) => port.postMessage(reply),
    (error: Error) => {
      transport?.abort(error.message);
      port.postMessage(failure(error));
    },
  );
});

async function answer(request: Request): Promise<Answer> {
  switch (request.kind) {
    case "load":
      await load(request);
      return { kind: "done" };
    case "run":
      return { kind: "ran", output: await loaded().run(request.program, request.input) };
    case "write":
      writeTensors(loaded(), request.tensors);
      return { kind: "done" };
    case "read":
      return { kind: "tensors", tensors: readTensors(loaded()) };
    default:
      return request satisfies never;
  }
}

async function load({ programs: given, world }: Extract<Request, { kind: "load" }>): Promise<void> {
  transport = joinThreadWorld(world, setup.device);
  programs.push(...given.keys());
  const now = () => Number(process.hrtime.bigint() - setup.epoch) * 1e-9;
  device = new Device({ engine: makeEngine(), transport, deadline: setup.deadline, now, onInstruction });
  await device.load(given);
}

/** Leaves a mark where the coordinator looks when this thread dies or stops. */
function onInstruction(program: string, instruction: number): void {
  setup.progress[2 * setup.device] = programs.indexOf(program);
  setup.progress[2 * setup.device + 1] = instruction;
  const { fault } = setup;
  if (fault?.device === setup.device && fault.program === program && fault.instruction === instruction)
    fail(fault);
}

function fail({ kind }: Fault): void {
  switch (kind) {
    case "throw":
      throw new Error("an error injected for a test");
    case "exit":
      process.exit(3);
      break;
    case "die":
      setTimeout(() => {
        throw new Error("an uncaught error injected for a test");
      }, 0);
      break;
    case "hang":
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      break;
    default:
      kind satisfies never;
  }
}

function makeEngine(): Engine {
  switch (setup.engine) {
    case "onnxruntime":
      return onnxRuntimeEngine({ threads: setup.threads });
    case "reference":
      return referenceEngine();
    default:
      return setup.engine satisfies never;
  }
}

function loaded(): Device {
  invariant(device !== undefined, "a device is used before its programs are loaded");
  return device;
}

/** An error as a message; an echo is one that only passes on that another device ended the run. */
function failure(error: Error): Answer {
  const isEcho = [error, error.cause].some((cause) => cause instanceof TransportAborted);
  return { kind: "failed", message: error.message, isEcho, isUserError: error instanceof UserError };
}
