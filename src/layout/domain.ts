/** The domain axes of a mesh as the command line spells them: `--domain height=2,width=2`. */

import { UserError } from "../base/errors.ts";
import { type Mesh, meshAxisNames } from "./layout.ts";

const domainAxes = meshAxisNames.filter((axis) => axis !== "tensor");

/** The mesh of `axis=size,axis=size,...`. Throws a `UserError` that lists every part that is no such axis, or has no size. */
export function parseDomain(text: string): Mesh {
  const parts = text.split(",").map((part) => part.trim());
  const read = parts.map((part) => {
    const at = part.indexOf("=");
    const [name, size] = [part.slice(0, Math.max(at, 0)).trim(), part.slice(at + 1).trim()];
    return { part, name, size: /^\d+$/.test(size) ? Number(size) : 0 };
  });
  const names = read.map(({ name }) => name);
  const problems = read.flatMap(({ part, name, size }, i) => {
    const problem = partProblem(part, name, size);
    if (problem !== undefined) return [problem];
    return names.indexOf(name) < i ? [`axis "${name}" is given twice`] : [];
  });
  if (problems.length > 0) throw new UserError(`cannot read the domain axes "${text}"`, problems);
  return Object.fromEntries(read.map(({ name, size }) => [name, size]));
}

function partProblem(part: string, name: string, size: number): string | undefined {
  if (name === "")
    return /^\d+$/.test(part)
      ? `"${part}" does not say what is split: give the axis, such as height=${part} (rows of images), width=${part} (columns) or sequence=${part} (time steps)`
      : `expected axis=size, such as height=2, got "${part}"`;
  if (name === "tensor") return `"${part}": the tensor axis splits weights, not positions: use --tensor`;
  if (!domainAxes.some((axis) => axis === name))
    return `"${part}": unknown axis "${name}"; the domain axes are ${domainAxes.join(", ")}`;
  if (!Number.isSafeInteger(size) || size < 1)
    return `"${part}": a size must be a positive whole number, such as ${name}=2`;
  return undefined;
}
