/** Medians, spreads, and whether targets are met. */
import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import type { BenchmarkResult } from "../../../src/bench/result.ts";
import { median, spread, verdicts } from "../../../src/bench/statistics.ts";
import { bulk, entry, growth } from "./fixtures/results.ts";

describe("median", () => {
  test("is the middle one, whatever the order", () => {
    expect(median([5])).toBe(5);
    expect(median([9, 1, 10])).toBe(9);
  });

  test("of an even number is the mean of the two in the middle", () => {
    expect(median([4, 1, 100, 2])).toBe(3);
  });

  test("of none is NaN", () => {
    expect(median([])).toBeNaN();
  });

  test("has as many values below it as above", () => {
    const values = fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1 });
    fc.assert(
      fc.property(values, (list) => {
        const middle = median(list);
        const below = list.filter((value) => value < middle).length;
        const above = list.filter((value) => value > middle).length;
        return Math.max(below, above) <= list.length / 2;
      }),
    );
  });

  test("leaves its values as they are", () => {
    const values = [3, 1, 2];
    median(values);
    expect(values).toEqual([3, 1, 2]);
  });
});

test("a spread has the ends as well; of none it is NaN throughout", () => {
  expect(spread([3, 1, 2, 8])).toEqual({ median: 2.5, least: 1, greatest: 8 });
  expect(spread([])).toEqual({ median: NaN, least: NaN, greatest: NaN });
});

describe("verdicts", () => {
  const seen = (benchmark: BenchmarkResult): [number | null, number, boolean][] =>
    verdicts(benchmark).map(({ at, ratio, met }) => [at, ratio, met]);

  test("are of the medians, on both sides of a bound", () => {
    const [rate, cpu] = seen(bulk);
    expect(rate).toEqual([null, 2, true]);
    expect(cpu?.[1]).toBeCloseTo(0.5 / 0.6);
    expect(cpu?.[2]).toBe(false);
  });

  test("of what was not measured are NaN, and not met", () => {
    expect(seen(bulk)[2]).toEqual([null, NaN, false]);
    const [target] = bulk.targets;
    if (target === undefined) throw new Error("there is no target");
    const nobody = { ...bulk, targets: [{ ...target, to: "nobody" }] };
    expect(seen(nobody)).toEqual([[null, NaN, false]]);
  });

  test("hold at their very bound", () => {
    const entries = [entry("a", { rate: [3] }), entry("b", { rate: [2] })];
    const target = { figure: "rate", of: "a", to: "b", ratio: 1.5 };
    const targets = [
      { ...target, bound: "at least" as const },
      { ...target, bound: "at most" as const },
    ];
    expect(seen({ ...bulk, entries, targets }).map(([, , met]) => met)).toEqual([true, true]);
  });

  test("compare the same point of an axis", () => {
    expect(seen(growth)).toEqual([
      [1, 30 / 200, true],
      [4, 30 / 800, true],
      [16, NaN, false],
    ]);
  });
});
