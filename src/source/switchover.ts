/** When the source stops precopying and switches over, and why. Pure decisions, no clock. */
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";

/** `--switchover`: what the operator asked for. */
export type SwitchoverPolicy =
  | { kind: "auto" }
  | { kind: "rounds"; rounds: number }
  | { kind: "after"; ms: number }
  | { kind: "now" };

/** What one precopy round came to. */
export interface RoundResult {
  /** From 1. */
  round: number;
  pagesNormal: number;
  pagesZero: number;
  bytes: number;
  /** Pages that the guest wrote meanwhile: what the next round would send. */
  dirtyPagesAfter: number;
  durationMs: number;
}

/** What to do after a round. */
export type Decision =
  { action: "another round" } | { action: "postcopy" | "complete"; reason: string };

/** A round that leaves more than this share of what the last one left does not converge. */
const SHRINK_MIN = 0.9;

/** The guest's last pages can be sent within `downtimeMs` at the rate of the round just done. */
function fits(result: RoundResult, downtimeMs: number): boolean {
  const rate = result.bytes / Math.max(result.durationMs, 0.001);
  return (result.dirtyPagesAfter * TARGET_PAGE_SIZE) / Math.max(rate, 1e-9) <= downtimeMs;
}

/**
 * Decides after a round. `previous` is the round before, `elapsedMs` the time since precopy began,
 * `canComplete` whether the guest's device state may travel outside of a package.
 */
export function decideAfterRound(
  policy: SwitchoverPolicy,
  result: RoundResult,
  previous: RoundResult | undefined,
  elapsedMs: number,
  downtimeMs: number,
  canComplete: boolean,
): Decision {
  switch (policy.kind) {
    case "now":
      return { action: "postcopy", reason: "asked to switch at once" };
    case "rounds":
      if (result.dirtyPagesAfter === 0) {
        return { action: "postcopy", reason: "nothing is dirty any more" };
      }
      if (result.round < policy.rounds) return { action: "another round" };
      return { action: "postcopy", reason: `asked to switch after ${policy.rounds} rounds` };
    case "after":
      if (elapsedMs < policy.ms) return { action: "another round" };
      return { action: "postcopy", reason: `asked to switch after ${policy.ms} ms` };
    case "auto":
      return decideAuto(result, previous, downtimeMs, canComplete);
  }
}

function decideAuto(
  result: RoundResult,
  previous: RoundResult | undefined,
  downtimeMs: number,
  canComplete: boolean,
): Decision {
  if (canComplete && fits(result, downtimeMs)) {
    const left = `${result.dirtyPagesAfter} dirty pages fit into the downtime limit`;
    return { action: "complete", reason: left };
  }
  if (result.dirtyPagesAfter === 0) {
    return { action: "postcopy", reason: "nothing is dirty any more" };
  }
  // The first round sends everything, so only later ones tell whether the dirty set shrinks.
  if (previous === undefined) return { action: "another round" };
  if (result.dirtyPagesAfter < previous.dirtyPagesAfter * SHRINK_MIN) {
    return { action: "another round" };
  }
  return { action: "postcopy", reason: "the set of dirty pages stopped shrinking" };
}
