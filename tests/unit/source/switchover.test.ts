import { describe, expect, test } from "bun:test";
import { decideAfterRound } from "../../../src/source/switchover.ts";
import type { Decision, RoundResult, SwitchoverPolicy } from "../../../src/source/switchover.ts";

const PAGE = 4096;
const DOWNTIME_MS = 300;
const AGAIN: Decision = { action: "another round" };

/** A round of 10 ms at 100 pages a millisecond, after which so many pages are dirty. */
function round(dirtyPagesAfter: number, changes: Partial<RoundResult> = {}): RoundResult {
  return {
    round: 2,
    pagesNormal: 1000,
    pagesZero: 0,
    bytes: 1000 * PAGE,
    durationMs: 10,
    dirtyPagesAfter,
    ...changes,
  };
}

/** At the rate of `round` this many pages take as long as the limit. */
const FITTING = 100 * DOWNTIME_MS;

function decide(
  policy: SwitchoverPolicy,
  result: RoundResult,
  previous?: RoundResult,
  elapsedMs = 0,
  canComplete = true,
): Decision {
  return decideAfterRound(policy, result, previous, elapsedMs, DOWNTIME_MS, canComplete);
}

describe("--switchover auto", () => {
  const auto: SwitchoverPolicy = { kind: "auto" };

  test("completes in precopy as soon as what is left fits into the downtime limit", () => {
    const reason = `${FITTING} dirty pages fit into the downtime limit`;
    expect(decide(auto, round(FITTING))).toEqual({ action: "complete", reason });
    expect(decide(auto, round(FITTING + 1))).toEqual(AGAIN);
    expect(decide(auto, round(0))).toMatchObject({ action: "complete" });
  });

  test("never completes in precopy what can only travel in a package", () => {
    expect(decide(auto, round(5), undefined, 0, false)).toEqual(AGAIN);
    const done = { action: "postcopy", reason: "nothing is dirty any more" } as const;
    expect(decide(auto, round(0), undefined, 0, false)).toEqual(done);
  });

  test("goes on while the dirty set shrinks by a tenth a round, and not for less", () => {
    const previous = round(1_000_000);
    expect(decide(auto, round(899_999), previous)).toEqual(AGAIN);
    const reason = "the set of dirty pages stopped shrinking";
    expect(decide(auto, round(900_000), previous)).toEqual({ action: "postcopy", reason });
    expect(decide(auto, round(2_000_000), previous)).toEqual({ action: "postcopy", reason });
  });

  test("learns nothing from the first round alone", () => {
    expect(decide(auto, round(1_000_000))).toEqual(AGAIN);
  });

  test("is not misled by a round that sent nothing or took no time", () => {
    const nothing = round(50, { bytes: 0, pagesNormal: 0 });
    expect(decide(auto, nothing, round(1000))).toEqual(AGAIN);
    expect(decide(auto, nothing, round(50))).toMatchObject({ action: "postcopy" });
    const instant = round(50, { durationMs: 0 });
    expect(decide(auto, instant)).toMatchObject({ action: "complete" });
    expect(decide(auto, round(0, { bytes: 0, durationMs: 0 }))).toMatchObject({
      action: "complete",
    });
  });

  test("comes to an end, even for a guest that slows down just enough each round", () => {
    let previous: RoundResult | undefined;
    let rounds = 0;
    // 128 TiB of dirty pages, and a tenth less after each round: the longest there can be.
    for (let dirty = 2 ** 35; ; dirty = Math.floor(dirty * 0.899)) {
      const result = round(dirty);
      rounds++;
      if (decide(auto, result, previous, 0, false).action !== "another round") break;
      previous = result;
    }
    expect(rounds).toBeGreaterThan(100);
    expect(rounds).toBeLessThan(300);
  });
});

describe("--switchover", () => {
  test("rounds=3 switches after the third round, fitting or not", () => {
    const policy: SwitchoverPolicy = { kind: "rounds", rounds: 3 };
    const decisions = [1, 2, 3, 4].map((n) => decide(policy, round(1, { round: n })));
    const reason = "asked to switch after 3 rounds";
    const switched: Decision = { action: "postcopy", reason };
    expect(decisions).toEqual([AGAIN, AGAIN, switched, switched]);
  });

  test("rounds=3 switches before that when no page is dirty", () => {
    const policy: SwitchoverPolicy = { kind: "rounds", rounds: 3 };
    const reason = "nothing is dirty any more";
    expect(decide(policy, round(0, { round: 1 }))).toEqual({ action: "postcopy", reason });
  });

  test("after=500ms switches when the time is over", () => {
    const policy: SwitchoverPolicy = { kind: "after", ms: 500 };
    const at = (elapsedMs: number): Decision => decide(policy, round(9), undefined, elapsedMs);
    expect(at(499.9)).toEqual(AGAIN);
    expect(at(500)).toEqual({ action: "postcopy", reason: "asked to switch after 500 ms" });
  });

  test("now switches at once", () => {
    expect(decide({ kind: "now" }, round(1))).toEqual({
      action: "postcopy",
      reason: "asked to switch at once",
    });
  });
});
