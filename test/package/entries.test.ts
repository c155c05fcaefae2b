/** The names that people build on: adding or removing one is a decision, made by changing this file. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as core from "../../src/index.ts";
import { paraxisProgram } from "../../src/node/cli/program.ts";
import { processTerminal } from "../../src/node/cli/terminal.ts";
import * as node from "../../src/node.ts";

const names = (text: string): string[] => text.trim().split(/\s+/).toSorted();

/** The types that an entry exports, read from its text. */
function typesOf(entry: string): string[] {
  const text = readFileSync(new URL(`../../src/${entry}`, import.meta.url), "utf8");
  const inline = [...text.matchAll(/\btype (\w+)/g)].map(([, name]) => name as string);
  const lists = [...text.matchAll(/export type \{([^}]*)\}/g)].flatMap(([, list]) =>
    (list as string).split(",").map((name) => name.trim()),
  );
  return [...new Set([...inline, ...lists])].filter((name) => name !== "").toSorted();
}

test("the core exports exactly these values", () => {
  expect(Object.keys(core).toSorted()).toEqual(
    names(`
      GraphBuilder NonFiniteError Trainer UserError accuracy adam adamW arrays assertPrograms buildForward
      charactersFromText checkLayout choosePipeline classifyPairs compileEvaluation compileTraining cosineRate decodeTokens
      defineJob defineLayer describePairs describeStatistics differentiate encodeTokens evaluateGraph gaussian groupsOf
      ignoredTarget initialize kaiming layoutChecks layoutModel localCluster nn nullEngine oneDevice ones ops
      parseChromeTrace parseDevices parseGraph parseLayout parsePlace parsePrograms parseSchedule
      parseVocabulary peakItems placeByHand planMemory printChromeTrace printGraph printLayout printPrograms
      printSchedule rateAt recompute referenceEngine renderStep renderTimeline replayPrograms replaySchedule
      schedule scheduleKinds seriesFromTable sgd shapeKey sliceWeightGradients stepRate toChromeTrace
      traceProblems traceStatistics trainingStep uniformCosts uniformWithin verifyGraph verifyPrograms
      verifySchedule warmUp wordsFromText xavier zeros
    `),
  );
});

test("nn and ops export exactly these layers and functions", () => {
  expect(Object.keys(core.nn).toSorted()).toEqual(
    names(`
      activation attention avgPool batchNorm convolution dropout embedding flatten gelu gru layerNorm linear
      lstm maxPool positionEmbedding relu residual sequential sigmoid tanh transformerBlock
    `),
  );
  expect(Object.keys(core.ops).toSorted()).toEqual(
    names(`
      abs add and avgPool batchNorm broadcast cast concat constant conv2d cos crossEntropy div equal erf exp
      gather gelu geluTanh greater greaterEqual gru iota layerNorm less lessEqual log logSoftmax lstm matmul
      maxPool maximum mean minimum mul neg not or pad pow reciprocal reduceMax relu reshape scalar scatterAdd
      sigmoid sign silu sin slice sliceDim softmax softplus split sqrt square sub sum take tanh transpose where
    `),
  );
});

test("the Node entry exports exactly these values", () => {
  expect(Object.keys(node).toSorted()).toEqual(
    names(`
      DeviceError TrainError characters csv onnxRuntimeEngine readSafetensors readTextFile resolveRunFolder
      threadCluster trainJob words writeSafetensors
    `),
  );
});

test("the entries export exactly these types", () => {
  expect(typesOf("index.ts")).toEqual(
    names(`
      Action AdamOptions ArraysOptions Batch BatchShape BoundKernel BufferKind BufferSpec CharactersOptions
      Cluster ColumnScale CompileSource CompiledStep DType DataSet Dense Derivative DevicePair DimSpec Engine ForwardGraph
      GradientOutput Graph GraphInput GraphOutput HandPlacement Initializer InputRole InputSpec Instruction
      ItemId Job Kernel Layer LayerOptions Layout LayoutCheck LayoutDevice LayoutModel LayoutStage
      LocalClusterOptions Loss LossFunction MemoryPlan Mesh MeshAxis Model ModelBuilder ModelOptions ModelSource NamedTrace
      Metric Node Op OpKind Optimizer PairKind ParameterSpec Phase PipelineChoice PipelineRequest PlaceRule PlanDevice Program
      ProgramCosts ProgramFault ProgramReplay Rate Replay ReplayCosts Schedule ScheduleKind ScheduleName
      ScheduleProblem ScheduleSpec Scope Seed SeriesDataSet SeriesOptions SgdOptions Shape StateSpec StepInput
      StepOptions StepOutput StepResult Table Tensor TensorBuffer TensorData TensorType TimelineOptions Trace
      TraceEvent TraceStatistics TrainerOptions TrainingStep TypedArray Update Vocabulary WeightTiming
      WordsOptions Work
    `),
  );
  expect(typesOf("node.ts")).toEqual(
    names(`
      CsvOptions EndEvent EngineName EvaluationEvent LossSummary OnnxRuntimeEngine OnnxRuntimeOptions StartEvent
      StepEvent TensorFile ThreadClusterOptions TrainEvent TrainListener TrainOptions TrainSummary
    `),
  );
});

test("the command has exactly these commands and options", () => {
  const program = paraxisProgram(processTerminal([]), () => undefined);
  const commands = program.commands.map((command) => [
    `${command.name()} ${command.registeredArguments.map((argument) => argument.name()).join(" ")}`,
    command.options.map(({ flags }) => flags).toSorted(),
  ]);
  expect(program.options.map(({ flags }) => flags)).toEqual(["-V, --version"]);
  const layout = names(`
    threads|<n> devices|<list> place|<rules> data|<n> zero|<stage> tensor|<n> domain|<axes> layout|<file>
    micro-batches|<n> chunks|<n> schedule|<name> weights|<when>
  `);
  const flags = (text: string) => names(text).map((name) => `--${name.replace("|", " ")}`);
  expect(commands).toEqual([
    [
      "train job",
      flags(`
        steps|<n> epochs|<n> seed|<n> ${layout.join(" ")} compare|<n> engine|<name> run-folder|<dir>
        no-validation json quiet
      `),
    ],
    ["layout job", flags(`${layout.join(" ")} json`)],
  ]);
});
