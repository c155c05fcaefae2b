/** What needs Node: data from files, the engine, training runs, and the files that they leave. */

export { characters, csv, words } from "./node/data.ts";
export type { EngineName } from "./node/devices/messages.ts";
export { DeviceError, type ThreadClusterOptions, threadCluster } from "./node/devices/thread-cluster.ts";
export type { CsvOptions } from "./node/files/csv.ts";
export { resolveRunFolder } from "./node/files/run-folder.ts";
export { readSafetensors, type TensorFile, writeSafetensors } from "./node/files/safetensors.ts";
export { readTextFile } from "./node/files/text-file.ts";
export {
  type OnnxRuntimeEngine,
  type OnnxRuntimeOptions,
  onnxRuntimeEngine,
} from "./node/onnxruntime/engine.ts";
export type {
  EndEvent,
  EvaluationEvent,
  LossSummary,
  StartEvent,
  StepEvent,
  TrainEvent,
  TrainListener,
  TrainSummary,
} from "./node/train/events.ts";
export type { TrainOptions } from "./node/train/plan-run.ts";
export { TrainError, trainJob } from "./node/train/train-job.ts";
