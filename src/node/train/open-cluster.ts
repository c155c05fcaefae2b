/** The devices of a layout, on this machine. */

import type { Cluster } from "../../execute/cluster.ts";
import type { Engine } from "../../execute/engine.ts";
import { localCluster } from "../../execute/local-cluster.ts";
import { referenceEngine } from "../../execute/reference-engine.ts";
import type { Layout } from "../../layout/layout.ts";
import type { EngineName } from "../devices/messages.ts";
import { threadCluster } from "../devices/thread-cluster.ts";
import { onnxRuntimeEngine } from "../onnxruntime/engine.ts";

/** Seconds after which a device that waits for another gives up. */
const deadline = 120;

/** An engine by name. */
export function openEngine(name: EngineName, threads: number): Engine {
  switch (name) {
    case "onnxruntime":
      return onnxRuntimeEngine({ threads });
    case "reference":
      return referenceEngine();
    default:
      return name satisfies never;
  }
}

/** One device runs in this thread, on `engine`; several run in threads of their own, with engines of their own. */
export function openCluster(layout: Layout, name: EngineName, engine: Engine): Cluster {
  return layout.devices.length === 1
    ? localCluster({ engine, deadline, now: () => performance.now() / 1000 })
    : threadCluster({ devices: layout.devices, engine: name, deadline });
}
