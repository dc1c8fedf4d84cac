import { describe, expect, test } from "bun:test";
import { SpinBudget, spinShare } from "../../../src/sync/spin-budget.ts";

const MS = 1e6;
/** What comes to nothing is given up after this long. */
const LONGEST = 50_000;

/** Waits once at `now`: for so long awake, or not at all where it may not be; when it is over. */
function wait(budget: SpinBudget, now: number, spinNs: number, came: boolean): number {
  if (!budget.begin(now)) return now;
  const end = now + spinNs;
  budget.end(end, came);
  return end;
}

describe("a thread that may wait awake", () => {
  test("does so for no longer than its share of a processor, and what it has saved up", () => {
    const budget = new SpinBudget(0.25);
    // It has slept for a second, and is asked without pause for the next one.
    let now = 1000 * MS;
    const end = 2000 * MS;
    let spun = 0;
    while (now < end) {
      const over = wait(budget, now, 30_000, true);
      spun += over - now;
      now = over + 1000;
    }
    expect(spun).toBeGreaterThan(0.249 * 1000 * MS);
    expect(spun).toBeLessThan(0.25 * 1000 * MS + MS + LONGEST);
    expect(budget.takeSpent()).toBeCloseTo(spun, 0);
    expect(budget.takeSpent()).toBe(0);
  });

  test("gives one wait up after a moment", () => {
    const budget = new SpinBudget(1);
    expect(budget.begin(1000 * MS)).toBe(true);
    expect(budget.mayGoOn(1000 * MS + LONGEST - 1)).toBe(true);
    expect(budget.mayGoOn(1000 * MS + LONGEST)).toBe(false);
  });

  test("hardly tries where nothing ever comes in time, and at once again where it does", () => {
    const budget = new SpinBudget(0.5);
    const tries: number[] = [];
    let now = 1000 * MS;
    const ask = (came: boolean): void => {
      now += MS;
      const over = wait(budget, now, LONGEST, came);
      if (over !== now) tries.push(asked);
      asked++;
    };
    let asked = 0;
    for (let i = 0; i < 400; i++) ask(false);
    // After each one that came to nothing it sleeps through twice as many waits, 64 at most.
    expect(tries).toEqual([0, 2, 5, 10, 19, 36, 69, 134, 199, 264, 329, 394]);
    while (tries.length === 12) ask(true);
    tries.length = 0;
    const since = asked;
    for (let i = 0; i < 3; i++) ask(true);
    expect(tries).toEqual([since, since + 1, since + 2]);
  });

  test("never does where it would keep the only processor from whoever it waits for", () => {
    expect(spinShare(1)).toBe(0);
    expect([2, 3, 4, 64].map(spinShare)).toEqual([0.25, 0.375, 0.5, 0.5]);
    const budget = new SpinBudget(spinShare(1));
    expect(budget.begin(1e15)).toBe(false);
  });
});
