/**
 * The core of the package: everything that needs neither Node nor a browser. From the top: what a job file is written with; the data
 * flow from model to programs; what executes programs; what describes how they ran.
 */

export { type Derivative, differentiate, type GradientOutput, type Seed } from "./autodiff/differentiate.ts";
export { recompute } from "./autodiff/recompute.ts";
export { sliceWeightGradients } from "./autodiff/slice.ts";
export { type StepOptions, type TrainingStep, trainingStep } from "./autodiff/training-step.ts";
export { UserError } from "./base/errors.ts";
export { type ArraysOptions, arrays } from "./data/arrays.ts";
export { type CharactersOptions, charactersFromText } from "./data/characters.ts";
export {
  type Batch,
  type BatchShape,
  type DataSet,
  type DimSpec,
  type InputSpec,
  ignoredTarget,
  shapeKey,
  type TensorData,
} from "./data/dataset.ts";
export {
  type ColumnScale,
  type SeriesDataSet,
  type SeriesOptions,
  seriesFromTable,
} from "./data/series.ts";
export type { Table } from "./data/table.ts";
export { decodeTokens, encodeTokens, parseVocabulary, type Vocabulary } from "./data/vocabulary.ts";
export { type WordsOptions, wordsFromText } from "./data/words.ts";
export type { Cluster } from "./execute/cluster.ts";
export type { StepOutput } from "./execute/device.ts";
export type { BoundKernel, Engine, Kernel, TensorBuffer } from "./execute/engine.ts";
export type { StepInput } from "./execute/feed.ts";
export { type LocalClusterOptions, localCluster } from "./execute/local-cluster.ts";
export { NonFiniteError } from "./execute/non-finite.ts";
export { nullEngine } from "./execute/null-engine.ts";
export { referenceEngine } from "./execute/reference-engine.ts";
export { type StepResult, Trainer, type TrainerOptions } from "./execute/trainer.ts";
export { GraphBuilder } from "./graph/builder.ts";
export type { DType, TypedArray } from "./graph/dtype.ts";
export type { Graph, GraphInput, GraphOutput, InputRole, Node, Phase } from "./graph/graph.ts";
export type { Op, OpKind } from "./graph/op.ts";
export type { Dense } from "./graph/op-rules.ts";
export { evaluateGraph } from "./graph/reference.ts";
export type { Shape, TensorType } from "./graph/shape.ts";
export type { Scope, Tensor } from "./graph/tensor.ts";
export { parseGraph, printGraph } from "./graph/text.ts";
export { verifyGraph } from "./graph/verify.ts";
export type { LayoutModel } from "./layout/check.ts";
export {
  type Layout,
  type LayoutDevice,
  type LayoutStage,
  type Mesh,
  type MeshAxis,
  oneDevice,
  type ScheduleName,
  type WeightTiming,
} from "./layout/layout.ts";
export { type LayoutCheck, parseLayout, printLayout } from "./layout/parse.ts";
export { type HandPlacement, type PlaceRule, parseDevices, parsePlace, placeByHand } from "./layout/place.ts";
export { buildForward, type ForwardGraph, type ModelSource } from "./model/forward.ts";
export {
  gaussian,
  type Initializer,
  initialize,
  kaiming,
  ones,
  uniformWithin,
  xavier,
  zeros,
} from "./model/initializer.ts";
export { defineJob, type Job } from "./model/job.ts";
export { defineLayer, type Layer, type LayerOptions, type Model } from "./model/layer.ts";
export type { Loss, LossFunction } from "./model/loss.ts";
export { accuracy, type Metric } from "./model/metric.ts";
export type { ModelBuilder, ModelOptions, ParameterSpec, StateSpec } from "./model/model-builder.ts";
export {
  type AdamOptions,
  adam,
  adamW,
  type Optimizer,
  type SgdOptions,
  sgd,
  type Update,
} from "./model/optimizer.ts";
export { cosineRate, type Rate, rateAt, stepRate, warmUp } from "./model/rate.ts";
export * as nn from "./nn.ts";
export * as ops from "./ops.ts";
export {
  type CompiledStep,
  type CompileSource,
  compileEvaluation,
  compileTraining,
  groupsOf,
} from "./partition/compile.ts";
export type { PlanDevice } from "./plan/balance.ts";
export { checkLayout, layoutChecks, layoutModel } from "./plan/check-layout.ts";
export { choosePipeline, type PipelineChoice, type PipelineRequest } from "./plan/pipeline.ts";
export type { ProgramFault } from "./program/fault.ts";
export { type MemoryPlan, planMemory } from "./program/memory.ts";
export { parsePrograms } from "./program/parse.ts";
export type { BufferKind, BufferSpec, Instruction, ItemId, Program } from "./program/program.ts";
export { type ProgramCosts, type ProgramReplay, replayPrograms } from "./program/replay.ts";
export { printPrograms } from "./program/text.ts";
export { assertPrograms, verifyPrograms } from "./program/verify.ts";
export type { Action, Schedule, Work } from "./schedule/action.ts";
export { type Replay, type ReplayCosts, replay as replaySchedule, uniformCosts } from "./schedule/replay.ts";
export { type ScheduleKind, type ScheduleSpec, schedule, scheduleKinds } from "./schedule/schedule.ts";
export { parseSchedule, printSchedule, renderTimeline } from "./schedule/text.ts";
export { peakItems, type ScheduleProblem, verifySchedule } from "./schedule/verify.ts";
export { type NamedTrace, printChromeTrace, toChromeTrace } from "./trace/chrome.ts";
export { parseChromeTrace } from "./trace/chrome-import.ts";
export { describeStatistics } from "./trace/describe.ts";
export { describePairs } from "./trace/describe-pairs.ts";
export { classifyPairs, type DevicePair, type PairKind } from "./trace/pairs.ts";
export { type TraceStatistics, traceStatistics } from "./trace/statistics.ts";
export { renderStep, type TimelineOptions } from "./trace/timeline.ts";
export { type Trace, type TraceEvent, traceProblems } from "./trace/trace.ts";
