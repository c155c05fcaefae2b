/** The thread of one device: carries out requests one after another. Started by `thread-cluster.ts`. */

import { parentPort, workerData } from "node:worker_threads";
import { invariant, UserError } from "../../base/errors.ts";
import { Device, type StepOutput } from "../../execute/device.ts";
import type { Engine } from "../../execute/engine.ts";
import { readTensors, writeTensors } from "../../execute/held-tensors.ts";
import { isEcho } from "../../execute/local-cluster.ts";
import { referenceEngine } from "../../execute/reference-engine.ts";
import type { Transport } from "../../execute/transport.ts";
import { joinThreadWorld } from "../transport/threads.ts";
import type { Answer, DeviceSetup, Fault, Request } from "./messages.ts";

const setup = workerData as DeviceSetup;
const port = parentPort;
invariant(port !== null, "a device worker runs in a worker thread");

let transport: Transport | undefined;
let device: Device | undefined;
/** By program the number by which the coordinator knows it, and how many instructions it has. */
const known = new Map<string, { readonly number: number; readonly length: number }>();

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
      return { kind: "ran", output: await run(request) };
    case "write":
      await loaded().settle();
      writeTensors(loaded().tensors, request.tensors);
      return { kind: "done" };
    case "read":
      await loaded().settle();
      return { kind: "tensors", tensors: readTensors(loaded().tensors) };
    default:
      return request satisfies never;
  }
}

/** Waits have no deadline of their own: the coordinator sees when nothing moves any more, and wakes everybody. */
async function load({ programs, world }: Extract<Request, { kind: "load" }>): Promise<void> {
  transport = joinThreadWorld(world, setup.device);
  for (const [key, { instructions }] of programs)
    known.set(key, { number: known.size, length: instructions.length });
  const now = () => Number(process.hrtime.bigint() - setup.epoch) * 1e-9;
  const deadline = Number.POSITIVE_INFINITY;
  device = new Device({ engine: await makeEngine(), transport, deadline, now, onInstruction });
  await device.load(programs);
}

async function run({ program, input }: Extract<Request, { kind: "run" }>): Promise<StepOutput> {
  const output = await loaded().run(program, input);
  mark(program, known.get(program)?.length ?? 0);
  return output;
}

/** Leaves a mark where the coordinator looks when this thread dies or stops. */
function mark(program: string, instruction: number): void {
  Atomics.store(setup.progress, 2 * setup.device, known.get(program)?.number ?? -1);
  Atomics.store(setup.progress, 2 * setup.device + 1, instruction);
}

function onInstruction(program: string, instruction: number): void | Promise<void> {
  mark(program, instruction);
  const { fault } = setup;
  if (fault?.device === setup.device && fault.instruction === instruction && fault.program === program)
    return fail(fault);
}

function fail({ kind }: Fault): void | Promise<void> {
  switch (kind) {
    case "throw":
      throw new Error("an error injected for a test");
    case "exit":
      return process.exit(3);
    case "die":
      return new Promise(() => {
        setTimeout(() => {
          throw new Error("an uncaught error injected for a test");
        }, 0);
      });
    case "hang":
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      return undefined;
    default:
      return kind satisfies never;
  }
}

/** ONNX Runtime is loaded only where it computes. */
async function makeEngine(): Promise<Engine> {
  switch (setup.engine) {
    case "onnxruntime": {
      const { onnxRuntimeEngine } = await import("../onnxruntime/engine.ts");
      return onnxRuntimeEngine({ threads: setup.threads });
    }
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

function failure(error: Error): Answer {
  const isUserError = [error, error.cause].some((cause) => cause instanceof UserError);
  return { kind: "failed", message: error.message, isEcho: isEcho(error), isUserError };
}
