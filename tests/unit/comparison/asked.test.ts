/** The benchmarks run when they are asked for, and in no other run of the tests. */
import { describe, expect, test } from "bun:test";
import { benchSettings, selects } from "../../bench/asked.ts";

const FILE = "checkout/tests/bench/bench.test.ts";
const by = (...words: string[]): boolean => selects(words, FILE);

describe("selects", () => {
  test("a word that names the file, as Bun takes it", () => {
    expect(by("bench")).toBe(true);
    expect(by("./tests/bench/bench.test.ts")).toBe(true);
    expect(by("--timeout=20000", "unit", "tests/bench", "-t", "bulk")).toBe(true);
  });

  test("not a plain run, nor one of other files, nor one by names alone", () => {
    expect(by()).toBe(false);
    expect(by("")).toBe(false);
    expect(by("tests")).toBe(false);
    expect(by(".")).toBe(false);
    expect(by("--parallel=2", "--no-isolate", "tests/unit")).toBe(false);
    expect(by("-t", "bench")).toBe(false);
    expect(by("--reporter-outfile", "bench", "unit")).toBe(false);
    expect(by("--reporter-outfile=bench")).toBe(false);
  });
});

describe("benchSettings", () => {
  test("without variables each benchmark has its own number of runs", () => {
    expect(benchSettings({})).toEqual({ runs: undefined, quick: false });
  });

  test("are taken from the environment", () => {
    const environment = { POSTCOPY_BENCH_RUNS: "9", POSTCOPY_BENCH_QUICK: "1" };
    expect(benchSettings(environment)).toEqual({ runs: 9, quick: true });
    expect(benchSettings({ POSTCOPY_BENCH_QUICK: "0" }).quick).toBe(false);
  });

  test("refuse what is no number of runs", () => {
    for (const runs of ["0", "-1", "many", "1.5"]) {
      expect(() => benchSettings({ POSTCOPY_BENCH_RUNS: runs })).toThrow("POSTCOPY_BENCH_RUNS");
    }
  });
});
