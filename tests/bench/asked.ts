/**
 * How the benchmarks are asked for. They lie beside the tests, so that `bun test bench` finds them,
 * and a plain `bun test`, or `npm test`, finds the file as well: so it looks at the words of the
 * command that runs it, and registers nothing unless one of them names it.
 */
import { readFileSync } from "node:fs";

/** Flags of `bun test` whose value is the next word, which then names no file. */
const FLAGS_WITH_VALUE = new Set(["-t", "--test-name-pattern", "--timeout", "--reporter-outfile"]);

/**
 * Whether one of the words behind `bun test` asks for the file: as Bun selects, by a part of its path,
 * but for one that would select all others as well.
 */
export function selects(words: readonly string[], path: string): boolean {
  return words.some((word, index) => {
    const isValue = FLAGS_WITH_VALUE.has(words[index - 1] ?? "");
    const part = word.replace(/^\.\//, "");
    return !isValue && part.includes("bench") && path.includes(part);
  });
}

/** The words behind `bun test` of this process; Bun takes them out of process.argv. */
export function testWords(): string[] {
  const words = readFileSync("/proc/self/cmdline", "utf8").split("\0");
  return words.slice(words.indexOf("test") + 1);
}

/** How the benchmarks are to be run: POSTCOPY_BENCH_RUNS=N, and POSTCOPY_BENCH_QUICK=1. */
export function benchSettings(environment: Readonly<Record<string, string | undefined>>): {
  runs: number | undefined;
  quick: boolean;
} {
  const { POSTCOPY_BENCH_RUNS: runs = "", POSTCOPY_BENCH_QUICK: quick = "" } = environment;
  if (!/^([1-9]\d{0,3})?$/.test(runs)) throw new Error(`POSTCOPY_BENCH_RUNS is "${runs}"`);
  return { runs: runs === "" ? undefined : Number(runs), quick: quick !== "" && quick !== "0" };
}
