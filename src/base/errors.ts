/**
 * Two kinds of failure. A `UserError` is a mistake in what we were given: it lists every problem found and
 * is shown without a stack trace. An `invariant` guards our own code; its message starts with `internal:`.
 */

/** Bad input from the user: job, layout, file or option. `problems` holds one sentence for each fault found. */
export class UserError extends Error {
  override readonly name: string = "UserError";
  readonly problems: readonly string[];

  /** `summary` says what could not be done; a single problem is put on the same line. */
  constructor(summary: string, problems: readonly string[] = []) {
    super(formatProblems(summary, problems));
    this.problems = problems;
  }
}

function formatProblems(summary: string, problems: readonly string[]): string {
  if (problems.length === 0) return summary;
  if (problems.length === 1) return `${summary}: ${problems[0]}`;
  return `${summary}:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`;
}

/** Throws when our own reasoning is broken; never used for checking what a user gave. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal: ${message}`);
}
