/** Results of several runs in one file, and what is taken for results at all. */
import { describe, expect, test } from "bun:test";
import {
  formatResults,
  mergeResults,
  newResults,
  parseResults,
} from "../../../src/bench/results.ts";
import { bulk, faults, growth, sampleResults } from "./fixtures/results.ts";

const IDS = ["faults", "bulk", "restore"];

describe("mergeResults", () => {
  const later = { ...sampleResults, startedAt: "2026-02-02T03:04:05.678Z" };

  test("keeps what was not measured anew, in the order of the list", () => {
    const anew = { ...bulk, title: "Bulk, again" };
    const merged = mergeResults(sampleResults, { ...later, benchmarks: [anew] }, IDS);
    expect(merged.benchmarks).toEqual([faults, anew, growth]);
    expect(merged.startedAt).toBe(later.startedAt);
  });

  test("puts behind all others what the list no longer has", () => {
    const merged = mergeResults(sampleResults, { ...later, benchmarks: [growth] }, ["restore"]);
    expect(merged.benchmarks.map(({ id }) => id)).toEqual(["restore", "bulk", "faults"]);
  });

  test("does not mix machines or versions", () => {
    const benchmarks = [bulk];
    const machine = { ...later.machine, cores: 64 };
    for (const other of [
      { ...later, machine },
      { ...later, program: "2.0.0" },
    ]) {
      expect(mergeResults(sampleResults, { ...other, benchmarks }, IDS)).toEqual({
        ...other,
        benchmarks,
      });
    }
  });

  test("begins with nothing", () => {
    expect(mergeResults(undefined, sampleResults, IDS).benchmarks).toHaveLength(3);
  });
});

describe("parseResults", () => {
  test("reads what was written", () => {
    expect(parseResults(formatResults(sampleResults))).toEqual(sampleResults);
    const mine = newResults([bulk]);
    expect(parseResults(formatResults(mine))).toEqual(mine);
  });

  test("takes neither other JSON nor none", () => {
    expect(parseResults("{}")).toBeUndefined();
    expect(parseResults(formatResults({ ...sampleResults, version: 2 as 1 }))).toBeUndefined();
    expect(parseResults("half a fi")).toBeUndefined();
  });
});
