/** The values of the whole graph while it is being split: how each lies on its mesh, and its parts in any other sharding asked for. */

import { invariant } from "../base/errors.ts";
import { add, constant } from "../graph/functions.ts";
import type { Phase, ValueId } from "../graph/graph.ts";
import type { Shape, TensorType } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Mesh, rankCount, ranksWith, sameMesh, showMesh } from "./mesh.ts";
import { cutOut, reshard } from "./reshard.ts";
import { onEach, onRank, type Place, type Sharded } from "./sharded.ts";
import { isSplit, localShape, type Sharding, sameSharding, showSharding, whole } from "./sharding.ts";
import type { SplitSource } from "./split-source.ts";

/** Where a value is made or used. */
export interface StagePlace extends Place {
  readonly stage: number;
}

/** How a value comes to be. */
export type Entry =
  /** Parts that exist; `input` is the name of one that every device has without a message. */
  | {
      readonly kind: "made";
      readonly place: StagePlace;
      readonly value: Sharded;
      readonly input?: string;
    }
  /** Made in whatever sharding is asked for, at no cost in messages: at its place, or `anywhere`. */
  | {
      readonly kind: "free";
      readonly place: StagePlace;
      readonly type: TensorType;
      readonly make: (place: StagePlace, sharding: Sharding) => Sharded;
      readonly anywhere?: boolean;
      /** A sharding that it has on a mesh before anybody asks, and that spreads to what is computed from it. */
      readonly wishAt?: (mesh: Mesh) => Sharding | undefined;
    }
  /** An input that gets the sharding of its first use. */
  | {
      readonly kind: "open";
      readonly name: string;
      readonly type: TensorType;
      readonly isParameter: boolean;
      readonly declare: (place: StagePlace, sharding: Sharding) => Sharded;
    };

const phaseOrder: readonly Phase[] = ["F", "B", "W", "U"];

interface Made<T> {
  readonly phase: Phase;
  readonly value: T;
}

/** What the values of a graph need to know of the graph's split. */
interface Wishes {
  /** Parameters that every rank is to have whole, by name. */
  readonly chosen: SplitSource["chosen"];
  /** Gets why a value cannot lie as it is needed. */
  readonly problems: Set<string>;
}

export class Values {
  readonly #wishes: Wishes;
  readonly #entries = new Map<ValueId, Entry>();
  /** Other shardings of values, with the phase in which they were made. */
  readonly #made = new Map<string, readonly Made<Sharded>[]>();
  readonly #cuts = new Map<string, readonly Made<readonly Tensor[]>[]>();

  constructor(wishes: Wishes) {
    this.#wishes = wishes;
  }

  set(value: ValueId, entry: Entry): void {
    this.#entries.set(value, entry);
  }

  entry(value: ValueId): Entry {
    const entry = this.#entries.get(value);
    invariant(entry !== undefined, `value %${value} is split after its use`);
    return entry;
  }

  /** The sharding that a value has, or wishes for; `undefined` when it has none of its own. Other stages get sums that are added up. */
  shardingOf(value: ValueId, { stage, mesh }: StagePlace): Sharding | undefined {
    const entry = this.entry(value);
    if (entry.kind === "open") return undefined;
    if (entry.kind === "free") return entry.wishAt?.(mesh);
    if (stage === entry.place.stage) return entry.value.sharding;
    return sameMesh(mesh, entry.place.mesh) ? { ...entry.value.sharding, partial: [] } : undefined;
  }

  shapeOf(value: ValueId): Shape {
    const entry = this.entry(value);
    return entry.kind === "made" ? entry.value.shape : entry.type.shape;
  }

  /** The parts of a value for the ranks of `place`, in the sharding `target`. */
  get(value: ValueId, place: StagePlace, target: Sharding): Sharded {
    const entry = this.entry(value);
    switch (entry.kind) {
      case "open": {
        const isWhole = this.#wishes.chosen.get(entry.name) === "whole";
        const declared = entry.declare(place, isWhole ? whole(entry.type.shape) : target);
        this.set(value, { kind: "made", place, value: declared, input: entry.name });
        return this.get(value, place, target);
      }
      case "free":
        if (entry.anywhere === true) return entry.make(place, target);
        if (entry.place.stage === place.stage)
          return this.#keep(value, entry.place, target, () => entry.make(entry.place, target));
        this.set(value, {
          kind: "made",
          place: entry.place,
          value: entry.make(entry.place, whole(entry.type.shape)),
        });
        return this.get(value, place, target);
      case "made":
        return this.#reshard(value, entry, place, target);
      default:
        return entry satisfies never;
    }
  }

  /** The whole of a value on every rank. */
  whole(value: ValueId, place: StagePlace): Sharded {
    return this.get(value, place, whole(this.shapeOf(value)));
  }

  /** Parts by rank that no sharding describes (rows that overlap): made once for this phase and those after it; `what` tells them apart. */
  keepParts(id: ValueId, place: StagePlace, what: string, make: () => readonly Tensor[]): readonly Tensor[] {
    return madeOnce(this.#cuts, `${id} ${place.stage} ${what}`, place.phase, make);
  }

  #reshard(
    id: ValueId,
    { place: home, value, input }: Entry & { readonly kind: "made" },
    place: StagePlace,
    target: Sharding,
  ): Sharded {
    if (home.stage === place.stage) {
      if (sameSharding(value.sharding, target)) return value;
      return this.#keep(id, place, target, () => reshard(place, value, target));
    }
    return this.#keep(id, place, target, () =>
      input !== undefined
        ? this.#takeInput(input, place, value, target)
        : this.#fetch(id, home, value, place, target),
    );
  }

  /** A value of another stage. Both ends do what makes the messages small: the source cuts, the user gathers. */
  #fetch(id: ValueId, home: StagePlace, value: Sharded, place: StagePlace, target: Sharding): Sharded {
    if (!sameMesh(home.mesh, place.mesh)) {
      if (rankCount(place.mesh) === 1 && isSum(value)) return addThere(home, value, place);
      const all = this.whole(id, home);
      return moveWhole(home, all, place, target);
    }
    const dims = value.sharding.dims.map((own, dim) => (isSplit(own) ? own : (target.dims[dim] ?? own)));
    const cut = this.get(id, home, { dims: fitting(value.sharding.dims, dims), partial: [] });
    return reshard(place, cut, target);
  }

  /** An input that another stage has declared: its devices hold the same parts, or all hold it whole. */
  #takeInput(name: string, place: StagePlace, value: Sharded, target: Sharding): Sharded {
    const isWhole = !value.sharding.dims.some(isSplit);
    if (!isWhole && !sameMesh(value.mesh, place.mesh)) {
      this.#wishes.problems.add(
        `"${name}" lies as ${showSharding(value.sharding)} on ${showMesh(value.mesh)} and is used by group "${place.group}" on ${showMesh(place.mesh)}: tied parameters need the same mesh in all their stages, or "shardings": {"${name}": "whole"}`,
      );
      return standIn(place, value, target);
    }
    const ranks = rankCount(place.mesh);
    const parts = Array.from(
      { length: ranks },
      (_, rank) => value.parts[rank % value.parts.length] as Tensor,
    );
    return reshard(place, { ...value, mesh: place.mesh, parts }, target);
  }

  #keep(id: ValueId, place: StagePlace, target: Sharding, make: () => Sharded): Sharded {
    return madeOnce(this.#made, `${id} ${place.stage} ${showSharding(target)}`, place.phase, make);
  }
}

/** What is there already in this phase, or is made now. */
function madeOnce<T>(made: Map<string, readonly Made<T>[]>, key: string, now: Phase, make: () => T): T {
  const order = phaseOrder.indexOf(now);
  const known = made.get(key) ?? [];
  const usable = known.find(({ phase }) => phaseOrder.indexOf(phase) <= order);
  if (usable !== undefined) return usable.value;
  const value = make();
  made.set(key, [...known, { phase: now, value }]);
  return value;
}

/** `wanted`, or the dims as they are where an axis would split two of them. */
function fitting(own: Sharding["dims"], wanted: Sharding["dims"]): Sharding["dims"] {
  const axes = wanted.flat().flatMap(({ along }) => along?.axis ?? []);
  return new Set(axes).size === axes.length ? wanted : own;
}

/** A value in the place of one that cannot be had, so that all other problems are found too. */
function standIn(place: StagePlace, { dtype, shape }: Sharded, sharding: Sharding): Sharded {
  const parts = onEach(place, (rank) =>
    constant(place.builder, dtype, localShape(sharding, place.mesh, rank), 0),
  );
  return { dtype, shape, mesh: place.mesh, sharding, parts };
}

/** Whether a value is whole once it is added up. */
function isSum({ sharding: { dims, partial } }: Sharded): boolean {
  return partial.length > 0 && !dims.some(isSplit);
}

/** A sum over ranks that one device of another stage needs: it gets what they have and adds it up, and they need not meet for that. */
function addThere(home: StagePlace, value: Sharded, place: StagePlace): Sharded {
  const ranks = ranksWith(home.mesh, 0, value.sharding.partial);
  const whole = onRank(place, 0, () => ranks.map((rank) => value.parts[rank] as Tensor).reduce(add));
  const sharding = { dims: value.sharding.dims, partial: [] };
  return { ...value, mesh: place.mesh, sharding, parts: [whole] };
}

/** From a mesh on which the value is whole to any other one; each target rank gets its part from one source rank. */
function moveWhole(home: StagePlace, value: Sharded, place: StagePlace, target: Sharding): Sharded {
  const sources = rankCount(home.mesh);
  const parts = Array.from({ length: rankCount(place.mesh) }, (_, rank) => {
    const source = rank % sources;
    return onRank(home, source, () =>
      target.dims.reduce(
        (x, factors, dim) => (isSplit(factors) ? cutOut(x, dim, factors, place.mesh, rank) : x),
        value.parts[source] as Tensor,
      ),
    );
  });
  return { ...value, mesh: place.mesh, sharding: target, parts };
}
