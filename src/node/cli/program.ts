/** The command line: commands, options, help and exit codes; commander parses it. */

import { Command, InvalidArgumentError, Option } from "commander";
import { scheduleNames, weightTimings, type ZeroStage, zeroStages } from "../../layout/layout.ts";
import { versions } from "../train/run-record.ts";
import { type LayoutCommandOptions, layoutCommand } from "./layout-command.ts";
import type { Terminal } from "./terminal.ts";
import { type TrainCommandOptions, trainCommand } from "./train-command.ts";

/** The program with all commands; `finish` is told the exit code of the command that ran. */
export function paraxisProgram(terminal: Terminal, finish: (code: number) => void): Command {
  const program = new Command("paraxis")
    .description("Train neural networks split across devices, and be told the truth about it.")
    .version(versions().paraxis, "-V, --version", "print the version")
    .helpOption("-h, --help", "show this help")
    .helpCommand(false)
    .showHelpAfterError("(paraxis --help shows what there is)")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out.write(text),
      writeErr: (text) => terminal.err.write(text),
    })
    .addHelpText("after", programHelp);
  addTrain(program, terminal, finish);
  addLayout(program, terminal, finish);
  return program;
}

function addTrain(program: Command, terminal: Terminal, finish: (code: number) => void): void {
  const command = program
    .command("train")
    .summary("train the model of a job file")
    .description("Train the model of a job file and save its parameters.")
    .argument("<job>", "job file in TypeScript or JavaScript")
    .option("--steps <n>", "updates to do (default: what the job says, or one epoch)", positiveInteger)
    .option("--epochs <n>", "passes over the training data", positiveInteger)
    .option(
      "--seed <n>",
      "seed of parameters, order of data and dropout (default: the job's, or 1)",
      integer,
    );
  addLayoutOptions(command, "devices to train on, such as cpu:2, cpu:2x4 (threads each), cpu:0,cpu:1")
    .option(
      "--compare <n>",
      "train the first n steps placed by count, one item at a time; show both",
      positiveInteger,
    )
    .addOption(
      new Option("--engine <name>", "what computes; the reference engine is exact, and very slow")
        .choices(["onnxruntime", "reference"])
        .default("onnxruntime"),
    )
    .option("--run-folder <dir>", "where the folder of this run is made", "runs")
    .option("--no-validation", "do not validate after each epoch and at the end")
    .option("--json", "print one JSON object per line on stdout: start, step, evaluation, end")
    .option("--quiet", "print nothing but errors")
    .helpOption("-h, --help", "show this help")
    .addHelpText("after", trainHelp)
    .action(async (job: string, options: TrainCommandOptions) => {
      finish(await trainCommand(job, options, terminal));
    });
}

function addLayout(program: Command, terminal: Terminal, finish: (code: number) => void): void {
  const command = program
    .command("layout")
    .summary("show how every layer would be split")
    .description("Show how every layer of a job's model is split over devices, and what moves in one step.")
    .argument("<job>", "job file in TypeScript or JavaScript");
  addLayoutOptions(command, "devices to split over, such as cpu:2, cpu:2x4 (threads each), cpu:0,cpu:1")
    .option("--json", "print one JSON object on stdout")
    .helpOption("-h, --help", "show this help")
    .addHelpText("after", layoutHelp)
    .action(async (job: string, options: LayoutCommandOptions) => {
      finish(await layoutCommand(job, options, terminal));
    });
}

/** What a user may say about the split; `devices` describes the option of that name. */
function addLayoutOptions(command: Command, devices: string): Command {
  return command
    .option("--threads <n>", "threads that one operation may use (default: 1)", positiveInteger)
    .option("--devices <list>", devices)
    .option("--place <rules>", "place groups by hand, such as embed=cpu:0,layer*=cpu:1 (default: balanced)")
    .option(
      "--data <n>",
      "copies of the pipeline that share the samples of a mini-batch (default: 1)",
      positiveInteger,
    )
    .option(
      "--zero <stage>",
      "replicas share 1: the optimizer's state and the update, 2: gradients too (default: 0, nothing)",
      zeroStage,
    )
    .option("--tensor <n>", "devices that share the weights of every layer (default: 1)", positiveInteger)
    .option(
      "--domain <axes>",
      "devices that share positions: height=2, width=2,height=2 (images), sequence=2 (default: none)",
    )
    .option("--layout <file>", "run exactly this layout document")
    .option("--micro-batches <n>", "parts of the samples of a mini-batch (default: 1)", positiveInteger)
    .option(
      "--chunks <n>",
      "parts of the time steps, for recurrent models (default: chosen)",
      positiveInteger,
    )
    .addOption(
      new Option("--schedule <name>", "order of work on the devices (default: chosen)").choices(
        scheduleNames,
      ),
    )
    .addOption(
      new Option("--weights <when>", "when gradients of weights are computed (default: chosen)").choices(
        weightTimings,
      ),
    );
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0 && text.trim() !== "") return value;
  throw new InvalidArgumentError("It must be a positive whole number.");
}

function zeroStage(text: string): ZeroStage {
  const stage = zeroStages.find((known) => `${known}` === text);
  if (stage !== undefined) return stage;
  throw new InvalidArgumentError("It must be 0, 1 or 2.");
}

function integer(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && text.trim() !== "") return value;
  throw new InvalidArgumentError("It must be a whole number.");
}

const programHelp = `
A job file says what to train; paraxis trains it and leaves a folder in runs/ with
metrics.jsonl (one line per step), model.safetensors, layout.json, run.json and
trace.json (who computed when; open it in ui.perfetto.dev).

Examples:
  paraxis train job.ts                       train for as long as the job says
  paraxis train job.ts --steps 100           only 100 steps
  paraxis train job.ts --devices cpu:2       split over two devices, pipelined
  paraxis layout job.ts --devices cpu:2 --tensor 2
                                             show the split, train nothing
  paraxis train --help                       all options of the command`;

const layoutHelp = `
For every layer: how its parameters lie on the devices of its stage, how many bytes each device
holds, and what moves in each phase of one step. Nothing is trained and nothing is written.

Examples:
  paraxis layout job.ts --devices cpu:2 --tensor 2     every layer on both, half of the weights each
  paraxis layout job.ts --layout layout.json           what this document would do
  paraxis layout job.ts --layout layout.json --json    for programs`;

const trainHelp = `
The smallest job file (job.ts):

  import { adam, defineJob, nn } from "paraxis";
  import { characters } from "paraxis/node";

  export default defineJob({
    model: nn.sequential([
      nn.embedding({ vocabulary: 1_000, dim: 64, group: "embed" }),
      nn.lstm({ units: 128, group: "layer0" }),
      nn.linear({ units: 1_000, group: "decode" }),
    ]),
    loss: "cross-entropy",
    optimizer: adam({ rate: 0.003, clipNorm: 5 }),
    data: characters("moby-dick"),
  });

Ctrl-C finishes the step, saves the parameters and says where; a second Ctrl-C ends at once.
Exit codes: 0 trained, 1 something was wrong, 130 ended by Ctrl-C.

Examples:
  paraxis train job.ts --epochs 2 --seed 7       two epochs with another seed
  paraxis train job.ts --threads 4               large layers, on four idle cores
  paraxis train job.ts --json --quiet > log      for programs
  paraxis train job.ts --run-folder /tmp/runs    leave the files elsewhere
  paraxis train job.ts --devices cpu:2 --compare 50
                                                 is the pipeline worth it? show both
  paraxis train job.ts --devices cpu:2 --data 2  the same model on both, half of the samples each
  paraxis train job.ts --devices cpu:2 --tensor 2
                                                 every layer on both, half of the weights each
  paraxis train job.ts --devices cpu:2 --place "embed=cpu:0,layer*=cpu:0,decode=cpu:1"
  paraxis train job.ts --layout runs/latest/layout.json
                                                 the same split as the last run`;
