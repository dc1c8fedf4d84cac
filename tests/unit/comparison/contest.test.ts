/** Contenders take turns, and what they give is kept as it was, run by run. */
import { describe, expect, test } from "bun:test";
import { hold } from "../../../src/bench/contest.ts";
import type { Benchmark, Contender, Run } from "../../../src/bench/contest.ts";

/** A contender that notes its turns and gives the number of its run. */
function counting(name: string, turns: string[], more: Partial<Contender> = {}): Contender {
  let runs = 0;
  const run = (): Promise<Run> => {
    turns.push(name);
    return Promise.resolve({ values: { count: runs++ } });
  };
  return { name, program: name, run, ...more };
}

function benchmarkOf(...contenders: Contender[]): Benchmark {
  return {
    ...{ id: "count", title: "Counting", setting: "They count.", axis: null, targets: [] },
    figures: [{ id: "count", title: "count", unit: "count", better: "more" }],
    ...{ contenders, notes: ["a note"] },
  };
}

describe("hold", () => {
  test("lets contenders take turns, every second round backwards", async () => {
    const turns: string[] = [];
    const contenders = ["a", "b", "c"].map((name) => counting(name, turns));
    await hold(benchmarkOf(...contenders), { runs: 3 });
    expect(turns.join("")).toBe("abccbaabc");
  });

  test("keeps each run that counts, in order, and none of the warm-ups", async () => {
    const turns: string[] = [];
    const { entries } = await hold(benchmarkOf(counting("a", turns)), { runs: 3, warmups: 2 });
    expect(turns).toHaveLength(5);
    expect(entries.map(({ values }) => values)).toEqual([{ count: [2, 3, 4] }]);
  });

  test("hands on what the benchmark says of itself, and nothing that could run", async () => {
    const benchmark = benchmarkOf(counting("a", [], { at: 4 }));
    const { contenders: _, ...described } = benchmark;
    const result = await hold(benchmark, { runs: 1 });
    const values = { count: [0] };
    const entry = { name: "a", program: "a", at: 4, values, latencyBuckets: null };
    const { measuredAt } = result;
    expect(measuredAt).toBe(new Date(measuredAt).toISOString());
    expect(result).toEqual({ ...described, entries: [entry], measuredAt });
  });

  test("a figure that a contender cannot tell is not there, also where one run has it", async () => {
    const without = counting("b", [], { run: () => Promise.resolve({ values: {} }) });
    const { entries } = await hold(benchmarkOf(counting("a", []), without), { runs: 2 });
    expect(entries.map(({ values }) => values)).toEqual([{ count: [0, 1] }, {}]);
  });

  test("adds latencies up over the runs that count", async () => {
    const latencyBuckets = Array.from({ length: 24 }, (_, bucket) => bucket);
    const timing = counting("a", [], {
      run: () => Promise.resolve({ values: {}, latencyBuckets }),
    });
    const { entries } = await hold(benchmarkOf(timing), { runs: 3, warmups: 1 });
    expect(entries[0]?.latencyBuckets).toEqual(latencyBuckets.map((count) => 3 * count));
  });

  test("says whose turn it is, where on the axis, and whether it counts", async () => {
    const told: string[] = [];
    const contenders = [counting("a", [], { at: 8 }), counting("b", [])];
    const progress = (text: string): unknown => told.push(text);
    await hold(benchmarkOf(...contenders), { runs: 1, warmups: 1, progress });
    expect(told).toEqual([
      ...["count: b, warming up", "count: a (8), warming up"],
      ...["count: a (8), run 1 of 1", "count: b, run 1 of 1"],
    ]);
  });

  test("fails with the run that fails", async () => {
    const failing = counting("a", [], { run: () => Promise.reject(new Error("out of breath")) });
    await expect(hold(benchmarkOf(failing), { runs: 1 })).rejects.toThrow("out of breath");
  });
});
