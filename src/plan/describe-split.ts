/** How every layer of a model is split under a layout, read from the programs that will run: what each device holds, and what moves. */

import { bytesOfType, type Shape, sizeOf } from "../graph/shape.ts";
import { deviceAt, type Layout, type Mesh, ranksAt, replicaCount } from "../layout/layout.ts";
import type { CompiledStep } from "../partition/compile.ts";
import type { BufferKind, Program } from "../program/program.ts";
import { splitGroup } from "../shard/sharded.ts";
import { isSplit, showSharding } from "../shard/sharding.ts";
import { addAlike, type GroupMove, type Move, movesOf } from "./moves.ts";

/** A parameter on the devices of its stage. */
export interface ParameterSplit {
  readonly name: string;
  readonly shape: Shape;
  /** `[4 x 512/tensor, 512]`: dims as factors, with the axis along which a factor is dealt out. */
  readonly lies: string;
  /** Whether every device of the mesh has all of it. */
  readonly isWhole: boolean;
  /** By rank of the mesh. */
  readonly elements: readonly number[];
  readonly bytes: readonly number[];
}

export interface GroupSplit {
  readonly group: string;
  readonly parameters: readonly ParameterSplit[];
  /** What moves because of values that the group makes, phase by phase. */
  readonly moves: readonly Move[];
  /** Recurrent layers on the axis `sequence`: every device along it computes all time steps. */
  readonly isSequenceWhole: boolean;
}

export interface StageSplit {
  readonly stage: number;
  /** Names of the devices by replica and rank. */
  readonly devices: readonly (readonly string[])[];
  readonly mesh: Mesh;
  readonly shares?: readonly number[] | undefined;
  readonly groups: readonly GroupSplit[];
  /** Parameters of other stages that its layers use too: copies of what those stages update. */
  readonly copies: readonly string[];
}

/** Bytes on one device. */
export interface DeviceSplit {
  readonly device: string;
  readonly parameters: number;
  readonly gradients: number;
  readonly optimizer: number;
  readonly statistics: number;
  /** In one step. */
  readonly sent: number;
}

export interface SplitReport {
  readonly stages: readonly StageSplit[];
  readonly devices: readonly DeviceSplit[];
}

/** How `compiled`, which was compiled for `layout`, is split over its devices. */
export function describeSplit(compiled: CompiledStep, layout: Layout): SplitReport {
  const moves = compiled.programs.flatMap((program) => movesOf(program, nameOf(layout, program.device)));
  return {
    stages: layout.stages.map((_, stage) => describeStage(compiled, layout, stage, moves)),
    devices: compiled.programs.map((program): DeviceSplit => {
      const device = nameOf(layout, program.device);
      const own = moves.filter((move) => move.device === device);
      return {
        device,
        parameters: bytesOfKind(program, "parameter"),
        gradients: bytesOfKind(program, "gradient"),
        optimizer: bytesOfKind(program, "optimizer"),
        statistics: bytesOfKind(program, "statistic"),
        sent: own.reduce((sum, { sent }) => sum + sent, 0),
      };
    }),
  };
}

function nameOf({ devices }: Layout, device: number): string {
  return devices[device]?.name ?? `device ${device}`;
}

function bytesOfKind({ buffers }: Program, kind: BufferKind): number {
  return buffers.reduce((sum, buffer) => sum + (buffer.kind === kind ? bytesOfType(buffer.type) : 0), 0);
}

function describeStage(
  compiled: CompiledStep,
  layout: Layout,
  stage: number,
  moves: readonly GroupMove[],
): StageSplit {
  const { groups, mesh = {}, shares } = layout.stages[stage] as Layout["stages"][number];
  const ranks = ranksAt(layout, stage);
  const names = (replica: number) => ranksAt(layout, stage, replica).map((device) => nameOf(layout, device));
  const devices = Array.from({ length: replicaCount(layout) }, (_, replica) => names(replica));
  const all = devices.flat();
  return {
    stage,
    devices,
    mesh,
    ...(shares && { shares }),
    copies: copiesOn(compiled, layout, stage),
    groups: groups.map(
      (group): GroupSplit => ({
        group,
        parameters: compiled.parameters
          .filter((parameter) => parameter.group === group)
          .map(({ name, type }) => describeParameter(compiled, name, type.shape, ranks)),
        moves: addAlike(moves.filter((move) => move.group === group && all.includes(move.device))),
        isSequenceWhole: (mesh.sequence ?? 1) > 1 && isRecurrent(compiled, group),
      }),
    ),
  };
}

function describeParameter(
  { split, programs }: CompiledStep,
  name: string,
  shape: Shape,
  ranks: readonly number[],
): ParameterSplit {
  const sharding = split.inputs.get(name)?.sharding;
  const buffers = ranks.map((device) =>
    programs[device]?.buffers.find((buffer) => buffer.kind === "parameter" && buffer.name === name),
  );
  return {
    name,
    shape,
    lies: sharding === undefined ? `[${shape.join(", ")}]` : showSharding(sharding),
    isWhole: sharding === undefined || !sharding.dims.some(isSplit),
    elements: buffers.map((buffer) => (buffer === undefined ? 0 : sizeOf(buffer.type.shape))),
    bytes: buffers.map((buffer) => (buffer === undefined ? 0 : bytesOfType(buffer.type))),
  };
}

/** Parameters that a stage's devices have because its layers use what another stage's layers own. */
function copiesOn(compiled: CompiledStep, layout: Layout, stage: number): readonly string[] {
  const at = deviceAt(layout, stage);
  const held = layout.stages.flatMap(({ groups }, other) => (deviceAt(layout, other) === at ? groups : []));
  const foreign = compiled.parameters.filter(({ group }) => !held.includes(group));
  return (compiled.programs[at]?.buffers ?? []).flatMap(({ kind, name }) =>
    kind === "parameter" && foreign.some((parameter) => parameter.name === name) ? [name] : [],
  );
}

function isRecurrent({ split: { graph } }: CompiledStep, group: string): boolean {
  return graph.nodes.some(
    (node) => /^(lstm|gru)(-step)?$/.test(node.op.kind) && splitGroup(node.group).group === group,
  );
}
