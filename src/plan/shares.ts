/** How much of a stage each device gets that splits it by tensor. */

import type { LayoutStage } from "../layout/layout.ts";

/** Parts that shares are counted in, for each device. */
export const partsEach = 16;

/** `stage` with such shares; without any where they are all equal. */
export function withShares(stage: LayoutStage, shares: readonly number[]): LayoutStage {
  const { shares: _, ...rest } = stage;
  return shares.every((one) => one === shares[0]) ? rest : { ...rest, shares };
}

/** `stage`, which one device each shares along its tensor axis, dealt out by their speeds. */
export function sharedOut(stage: LayoutStage, speeds: readonly number[]): LayoutStage {
  const total = speeds.reduce((sum, speed) => sum + speed, 0);
  const parts = speeds.map((speed) => Math.round((partsEach * speeds.length * speed) / total));
  return withShares(
    stage,
    parts.map((count) => Math.max(1, count)),
  );
}
