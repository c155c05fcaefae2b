/**
 * A training program of another system, kept running so that it can take turns with ours. It says what it is when it is ready, then reads
 * "run K" and answers with K times.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface Peer {
  /** Runs `steps` training steps and returns the seconds of each, as the peer measured them. */
  run(steps: number): Promise<readonly number[]>;
  readonly facts: { readonly [name: string]: unknown };
  close(): void;
}

/** Starts a peer; the sentence why not where it cannot run here. */
export async function startPeer(
  command: string,
  args: readonly string[],
): Promise<Peer | { readonly skipped: string }> {
  const child = spawn(command, [...args, "--serve"], { stdio: ["pipe", "pipe", "ignore"] });
  const lines = createInterface({ input: child.stdout });
  const answers: string[] = [];
  let wake: (() => void) | undefined;
  let ended: string | undefined;
  const notice = (reason?: string) => {
    ended ??= reason;
    wake?.();
  };
  lines.on("line", (line) => {
    answers.push(line);
    notice();
  });
  child.on("error", (error) => notice(error.message));
  child.on("exit", (code) => notice(`${command} ended with exit code ${code}`));
  const next = async (): Promise<{ readonly [name: string]: unknown }> => {
    while (answers.length === 0 && ended === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return answers.length > 0 ? JSON.parse(answers.shift() as string) : { skipped: ended };
  };
  const first = await next();
  if (typeof first["skipped"] === "string") {
    child.kill();
    return { skipped: first["skipped"] };
  }
  return {
    facts: first,
    run: async (steps) => {
      const answer = await ask(child, `run ${steps}`, next);
      if (!Array.isArray(answer["stepSeconds"]))
        throw new Error(`${command} answered ${JSON.stringify(answer)}`);
      return answer["stepSeconds"];
    },
    close: () => {
      child.kill();
    },
  };
}

async function ask<T>(child: ChildProcess, line: string, next: () => Promise<T>): Promise<T> {
  child.stdin?.write(`${line}\n`);
  return next();
}
