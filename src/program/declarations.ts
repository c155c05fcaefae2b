/** Checks what a program declares: that numbers name what is there, that views lie in their owners, that kernels fit their buffers. */

import type { DType } from "../graph/dtype.ts";
import type { Graph } from "../graph/graph.ts";
import { sameShape, sameType, showType, sizeOf, type TensorType } from "../graph/shape.ts";
import { verifyGraph } from "../graph/verify.ts";
import { faultAt, faultOf, type ProgramFault } from "./fault.ts";
import {
  type BufferSpec,
  type Collective,
  type Instruction,
  isCollective,
  type Program,
  type Run,
  readsOf,
  writesOf,
} from "./program.ts";
import { bufferKinds } from "./text.ts";

/** Element types that transports reduce. */
const reducible: readonly DType[] = ["f32", "f64", "i32"];

/** Numbers of buffers, kernels, devices and tags that name nothing; while there are any, no other check makes sense. */
export function referenceFaults(program: Program, position: number, devices: number): ProgramFault[] {
  const { buffers, feeds, instructions, device } = program;
  if (device !== position)
    return [
      faultOf(
        { ...program, device: position },
        `expected the program of device ${position}, got that of device ${device}`,
      ),
    ];
  const isBuffer = (id: number) => isIndex(id, buffers.length);
  const unknown = (id: number) =>
    `names buffer ${id}, but the buffers of this device are 0 to ${buffers.length - 1}`;
  return [
    ...buffers.flatMap(({ name, view }) =>
      view === undefined || isBuffer(view.of) ? [] : [faultOf(program, `view "${name}" ${unknown(view.of)}`)],
    ),
    ...feeds.flatMap(({ buffer, input }) =>
      isBuffer(buffer) ? [] : [faultOf(program, `the feed of "${input}" ${unknown(buffer)}`)],
    ),
    ...instructions.flatMap((instruction, index) => {
      const used =
        instruction.kind === "free"
          ? [instruction.buffer]
          : [...readsOf(instruction), ...writesOf(instruction)];
      const faults = [
        ...used.filter((id) => !isBuffer(id)).map(unknown),
        ...strayNumbers(instruction, program, devices),
      ];
      return faults.map((message) => faultAt(program, index, message));
    }),
  ];
}

function strayNumbers(instruction: Instruction, { kernels, device }: Program, devices: number): string[] {
  switch (instruction.kind) {
    case "run":
      return isIndex(instruction.kernel, kernels.length)
        ? []
        : [`runs kernel k${instruction.kernel}, but the program has ${kernels.length} kernels`];
    case "send":
    case "receive": {
      const peer = instruction.kind === "send" ? instruction.to : instruction.from;
      const { tag } = instruction;
      return [
        ...(isIndex(peer, devices) ? [] : [`names device ${peer}, but the devices are 0 to ${devices - 1}`]),
        ...(peer === device ? ["exchanges a message with its own device"] : []),
        ...(isIndex(tag, Number.POSITIVE_INFINITY)
          ? []
          : [`the tag must be a whole number of at least 0, got ${tag}`]),
      ];
    }
    case "all-reduce":
    case "all-gather":
    case "reduce-scatter":
      return [...strayRanks(instruction, device, devices), ...straySizes(instruction)];
    case "free":
    case "guard":
      return [];
    default:
      return instruction satisfies never;
  }
}

function strayRanks({ group, ranks }: Collective, device: number, devices: number): string[] {
  const strangers = ranks.filter((rank) => !isIndex(rank, devices));
  return [
    ...strangers.map((rank) => `names device ${rank}, but the devices are 0 to ${devices - 1}`),
    ...(ranks.includes(device) ? [] : [`meets devices ${ranks.join(", ")}, but its own is not among them`]),
    ...(new Set(ranks).size < ranks.length ? ["names a device twice"] : []),
    ...(isIndex(group, Number.POSITIVE_INFINITY)
      ? []
      : [`the group must be a whole number of at least 0, got ${group}`]),
  ];
}

function straySizes(instruction: Collective): string[] {
  if (instruction.kind === "all-reduce") return [];
  const { sizes, ranks } = instruction;
  return [
    ...(sizes.length === ranks.length
      ? []
      : [`names ${sizes.length} parts, expected one for each of ${ranks.length} devices`]),
    ...sizes
      .filter((size) => !isIndex(size, Number.POSITIVE_INFINITY))
      .map((size) => `the elements of a part must be a whole number of at least 0, got ${size}`),
  ];
}

/** Faults of buffers, views, feeds and kernels, and of the types that instructions bring together. */
export function declarationFaults(program: Program): ProgramFault[] {
  const { buffers, kernels, instructions } = program;
  const names = new Set<string>();
  return [
    ...buffers.flatMap((spec, id) => {
      const faults = [...bufferFaults(spec), ...viewFaults(spec, buffers)];
      if (names.has(spec.name)) faults.push("another buffer of the program has the same name");
      names.add(spec.name);
      return faults.map((message) => faultOf(program, `buffer ${id} "${spec.name}": ${message}`));
    }),
    ...overlappingViews(buffers).map((message) => faultOf(program, message)),
    ...feedFaults(program).map((message) => faultOf(program, message)),
    ...kernels.flatMap((kernel, k) =>
      verifyGraph(kernel).map((message) => faultOf(program, `kernel k${k}: ${message}`)),
    ),
    ...instructions.flatMap((instruction, index) => {
      const faults =
        instruction.kind === "run"
          ? typeFaults(instruction, kernels[instruction.kernel] as Graph, buffers)
          : [];
      if (instruction.kind === "guard")
        faults.push(...guardFaults(buffers[instruction.buffer] as BufferSpec));
      if (isCollective(instruction)) faults.push(...collectiveTypeFaults(instruction, program));
      return faults.map((message) => faultAt(program, index, message));
    }),
  ];
}

function bufferFaults({ kind, value }: BufferSpec): string[] {
  if (!bufferKinds.includes(kind)) return [`there is no kind "${kind}"`];
  if (kind === "constant" && value === undefined) return ["a constant needs a value"];
  return kind !== "constant" && value !== undefined ? [`only constants have a value, this is ${kind}`] : [];
}

function viewFaults({ type, kind, view }: BufferSpec, buffers: readonly BufferSpec[]): string[] {
  if (view === undefined) return [];
  const owner = buffers[view.of] as BufferSpec;
  if (owner.view !== undefined) return [`is a view of "${owner.name}", which is itself a view`];
  const [rows = 0, ...rest] = owner.type.shape;
  const [own = 0, ...ownRest] = type.shape;
  const faults: string[] = [];
  if (kind !== owner.kind) faults.push(`is ${kind}, but its owner "${owner.name}" is ${owner.kind}`);
  if (type.dtype !== owner.type.dtype || type.shape.length === 0 || !sameShape(rest, ownRest))
    faults.push(`${showType(type)} cannot be rows of "${owner.name}", which is ${showType(owner.type)}`);
  else if (!isIndex(view.row, rows + 1) || view.row + own > rows)
    faults.push(`rows ${view.row} to ${view.row + own - 1} are not in "${owner.name}", which has ${rows}`);
  return faults;
}

function overlappingViews(buffers: readonly BufferSpec[]): string[] {
  const views = buffers.flatMap(({ name, type, view }) =>
    view === undefined ? [] : [{ name, of: view.of, from: view.row, to: view.row + (type.shape[0] ?? 0) }],
  );
  const sorted = views.sort((a, b) => a.of - b.of || a.from - b.from);
  return sorted.flatMap((view, i) => {
    const before = sorted[i - 1];
    return before !== undefined && before.of === view.of && view.from < before.to
      ? [
          `views "${before.name}" and "${view.name}" share rows ${view.from} to ${Math.min(view.to, before.to) - 1} of "${buffers[view.of]?.name}"`,
        ]
      : [];
  });
}

function feedFaults({ buffers, feeds }: Program): string[] {
  return feeds.flatMap(({ buffer, input, start }) => {
    const { name, kind, type } = buffers[buffer] as BufferSpec;
    const where = `the feed of "${input}" into "${name}"`;
    if (kind !== "data") return [`${where}: expected a data buffer, got ${kind}`];
    return start.length === type.shape.length &&
      start.every((index) => isIndex(index, Number.POSITIVE_INFINITY))
      ? []
      : [`${where}: expected one index for each dim of ${showType(type)}, got [${start.join(",")}]`];
  });
}

function guardFaults({ name, type }: BufferSpec): string[] {
  return type.shape.length === 0 ? [] : [`guards "${name}", expected a scalar, got ${showType(type)}`];
}

/** Element types that can be reduced, and buffers that hold as many elements as the parts say. */
function collectiveTypeFaults(instruction: Collective, { buffers, device }: Program): string[] {
  const { name, type } = buffers[instruction.buffer] as BufferSpec;
  const faults: string[] = [];
  if (instruction.kind !== "all-gather" && !reducible.includes(type.dtype))
    faults.push(`reduces "${name}", which is ${showType(type)}: expected ${reducible.join(", ")}`);
  if (instruction.kind === "all-reduce") return faults;
  const { sizes, ranks, into } = instruction;
  const { name: target, type: result } = buffers[into] as BufferSpec;
  if (result.dtype !== type.dtype)
    faults.push(
      `makes "${target}" (${showType(result)}) of "${name}" (${showType(type)}), expected one element type`,
    );
  const own = sizes[ranks.indexOf(device)] ?? 0;
  const all = sizes.reduce((sum, size) => sum + size, 0);
  const [before, after] = instruction.kind === "all-gather" ? [own, all] : [all, own];
  const check = (named: string, { shape }: TensorType, expected: number) =>
    sizeOf(shape) === expected
      ? []
      : [
          `"${named}" has ${sizeOf(shape)} elements, expected ${expected} of parts of ${sizes.join(", ")} elements`,
        ];
  return [...faults, ...check(name, type, before), ...check(target, result, after)];
}

/** The kernel's inputs and outputs against the buffers they are given. */
function typeFaults(
  { kernel, inputs, outputs }: Run,
  graph: Graph,
  buffers: readonly BufferSpec[],
): string[] {
  const compare = (
    what: "input" | "output",
    wanted: readonly { readonly name: string; readonly value: number }[],
    given: readonly number[],
  ): string[] => {
    if (wanted.length !== given.length)
      return [`kernel k${kernel} has ${wanted.length} ${what}s, ${given.length} buffers are given`];
    return wanted.flatMap(({ name, value }, i) => {
      const type = graph.types[value] as TensorType;
      const spec = buffers[given[i] as number] as BufferSpec;
      return sameType(type, spec.type)
        ? []
        : [
            `${what} "${name}" of kernel k${kernel} is ${showType(type)}, but buffer "${spec.name}" is ${showType(spec.type)}`,
          ];
    });
  };
  return [
    ...compare(
      "input",
      graph.inputs.map(({ name }, value) => ({ name, value })),
      inputs,
    ),
    ...compare("output", graph.outputs, outputs),
  ];
}

function isIndex(value: number, count: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < count;
}
