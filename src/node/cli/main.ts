/** The `paraxis` command: from the words of the command line to an exit code. */

import { CommanderError } from "commander";
import { UserError } from "../../base/errors.ts";
import { placeInStack } from "./load-job.ts";
import { paraxisProgram } from "./program.ts";
import { processTerminal, type Terminal } from "./terminal.ts";

/** Runs the command of `args` (without `node` and the script) and returns the exit code. Mistakes are told on stderr without a stack trace. */
export async function main(
  args: readonly string[],
  terminal: Terminal = processTerminal(args),
): Promise<number> {
  let code = 0;
  const program = paraxisProgram(terminal, (result) => {
    code = result;
  });
  try {
    await program.parseAsync([...args], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    terminal.err.write(`${describeError(error)}\n`);
    return 1;
  }
}

/** A mistake of the user in one message; a defect with where it happened. */
function describeError(error: unknown): string {
  if (error instanceof UserError) return `error: ${error.message}`;
  const place = placeInStack(error);
  if (error instanceof Error && place !== undefined)
    return `error: ${place}: ${error.name}: ${error.message}`;
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `error: ${text}\nThis looks like a defect of paraxis; please report it with the job file.`;
}
