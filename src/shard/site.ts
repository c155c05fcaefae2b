/** What the rules that split an operation work with. */

import type { GraphBuilder } from "../graph/builder.ts";
import type { Node, ValueId } from "../graph/graph.ts";
import type { OpKind } from "../graph/op.ts";
import type { TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Axis } from "./mesh.ts";
import type { Sharded } from "./sharded.ts";
import type { Factors, Sharding } from "./sharding.ts";
import type { SplitSource } from "./split-source.ts";
import type { StagePlace, Values } from "./values.ts";

/** A weight, or an image, that has fewer pieces along a dim than there are devices. */
export interface Limit {
  readonly group: string;
  readonly axis: Axis["axis"];
  /** The name of the weight; none for images. */
  readonly parameter?: string;
  readonly dim: number;
  /** As many devices could share it. */
  readonly pieces: number;
  /** What the pieces are: `heads of 16`, `units`, `rows`. */
  readonly unit: string;
}

export interface SplitContext {
  readonly source: SplitSource;
  readonly builder: GraphBuilder;
  readonly values: Values;
  /** Number of uses of each value of the whole graph, as an operand or output. */
  readonly uses: ReadonlyMap<ValueId, number>;
  /** How the last value of each shape lies whose positions are split, by stage and shape. */
  readonly positions: Map<string, Sharding["dims"]>;
  /** How the rows are split of the tables that each value indexes. */
  readonly tables: Map<ValueId, Factors>;
  /** The steps that tensors over all steps of a recurrent layer were put together from, by the tensor's id. */
  readonly stacks: Map<ValueId, readonly Tensor[]>;
  /** By the id of a tensor of a rank, what each of its rows [..., 1] has yet to be multiplied by. */
  readonly factors: Map<ValueId, Tensor>;
  /** Why the graph cannot be split as asked, one sentence each; all are found before the graph is refused. */
  readonly problems: Set<string>;
  /** What was too small to be split. */
  readonly limits: Limit[];
  /** The axes along which the operations of each stage give split or partial results. */
  readonly carried: Map<number, Set<Axis["axis"]>>;
}

/** A node of the whole graph, and where it is to be done. */
export interface Site extends SplitContext {
  readonly node: Node;
  readonly place: StagePlace;
  readonly operands: readonly TensorType[];
  readonly results: readonly TensorType[];
}

/** The results of the operation, split; `undefined` where its loops say all there is to say. */
export type SplitRule = (site: Site) => readonly Sharded[] | undefined;

export type SplitRules = { readonly [K in OpKind]?: SplitRule };
