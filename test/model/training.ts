/** Runs training steps on the reference engine, one item for each step. */

import { type TrainingStep, trainingStep } from "../../src/autodiff/training-step.ts";
import type { Dense } from "../../src/graph/op-rules.ts";
import { evaluateGraph } from "../../src/graph/reference.ts";
import { sizeOf } from "../../src/graph/shape.ts";
import type { ForwardGraph } from "../../src/model/forward.ts";
import type { Optimizer } from "../../src/model/optimizer.ts";
import { dense } from "../graph/shapes.ts";

export interface StepResult {
  /** Outputs of the item graph: loss, gradients, state. */
  readonly item: ReadonlyMap<string, Dense>;
  /** Outputs of the update graph: parameters, optimizer state, norm. */
  readonly update: ReadonlyMap<string, Dense>;
}

/**
 * The results of `steps` steps from the given values of parameters and other inputs of the item graph; `dataOf` gives what changes
 * from step to step, counted from 0.
 */
export function train(
  forward: ForwardGraph,
  optimizer: Optimizer,
  initial: ReadonlyMap<string, Dense>,
  steps: number,
  dataOf: (step: number) => ReadonlyMap<string, Dense> = () => new Map(),
): readonly StepResult[] {
  const step: TrainingStep = trainingStep(forward, { optimizer });
  const values = new Map(initial);
  for (const { name, type } of step.optimizerStates)
    values.set(name, { shape: type.shape, data: new Float64Array(sizeOf(type.shape)) });
  return Array.from({ length: steps }, (_, at) => {
    const item = evaluateGraph(step.item, new Map([...values, ...dataOf(at)]));
    const scalars = Object.entries(optimizer.scalars(at)).map(
      ([name, value]) => [name, dense([], value)] as const,
    );
    const update = evaluateGraph(step.update, new Map([...values, ...item, ...scalars]));
    for (const [name, value] of update) values.set(name, value);
    return { item, update };
  });
}
