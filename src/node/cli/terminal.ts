/** What a command may do with the process it runs in. */

import type { ProgressStream } from "./progress.ts";

/** Exit code of a run that Ctrl-C ended. */
export const stoppedByUser = 130;

export interface Terminal {
  /** The words after `paraxis`. */
  readonly args: readonly string[];
  readonly out: NodeJS.WritableStream;
  readonly err: ProgressStream;
  /** Calls `handle` at Ctrl-C and at a request to end, until disposed. */
  onInterrupt(handle: () => void): Disposable;
  /** Ends the process at once. */
  exit(code: number): void;
}

/** The process's own. */
export function processTerminal(args: readonly string[]): Terminal {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", ignoreClosedPipe);
  return {
    args,
    out: process.stdout,
    err: process.stderr,
    onInterrupt: (handle) => {
      process.on("SIGINT", handle);
      process.on("SIGTERM", handle);
      return {
        [Symbol.dispose]: () => {
          process.off("SIGINT", handle);
          process.off("SIGTERM", handle);
        },
      };
    },
    exit: (code) => process.exit(code),
  };
}

/** Whoever read the output is gone (`paraxis train ... | head -1`): the run goes on and is saved all the same. */
function ignoreClosedPipe(error: Error): void {
  if (!("code" in error && error.code === "EPIPE")) throw error;
}
