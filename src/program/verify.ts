/**
 * Proof that the programs of a step do what they should, before they run. Partitioned programs pass by construction; a refusal shows
 * all faults and the programs side by side, with arrows.
 *
 *     declarations    numbers name what is there; views lie in their owners; kernels fit their buffers
 *     buffers         written before read, freed once after the last use, written by those who may
 *     messages        one receive for each send, of the same value; no deadlock; guards end all devices at once
 *     collectives     all devices of a group come to the same meetings in the same order
 *     work            every stage (each rank of its mesh) on one device of each replica, every item once, every parameter with one
 *                     owner in each, or several with the same gradient
 */

import { UserError } from "../base/errors.ts";
import { bufferFaults } from "./buffer-states.ts";
import { declarationFaults, referenceFaults } from "./declarations.ts";
import type { ProgramFault } from "./fault.ts";
import { messageFaults } from "./messages.ts";
import type { Program } from "./program.ts";
import { printTable } from "./table.ts";
import { workFaults } from "./work.ts";

/** All faults of the programs of one step, one for each device in order; none where they are correct. */
export function verifyPrograms(programs: readonly Program[]): readonly ProgramFault[] {
  const references = programs.flatMap((program, position) =>
    referenceFaults(program, position, programs.length),
  );
  if (references.length > 0) return references;
  return [
    ...programs.flatMap(declarationFaults),
    ...programs.flatMap(bufferFaults),
    ...messageFaults(programs),
    ...workFaults(programs),
  ];
}

/** Throws a `UserError` with all faults, and the rows of the table around them with an arrow at each; else does nothing. */
export function assertPrograms(programs: readonly Program[]): void {
  const faults = verifyPrograms(programs);
  if (faults.length === 0) return;
  throw new UserError(`the programs cannot run:\n${showFaults(programs, faults)}`);
}

const mostShown = 30;
const context = 4;

/** The faults as lines, then the table. */
function showFaults(programs: readonly Program[], faults: readonly ProgramFault[]): string {
  const shown = faults.slice(0, mostShown);
  const rest = faults.length - shown.length;
  return [
    ...shown.map(({ message }) => `  - ${message}`),
    ...(rest > 0 ? [`  - and ${rest} more`] : []),
    "",
    printTable(programs, shown, context),
  ].join("\n");
}
