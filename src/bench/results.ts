/** All that was measured on a machine, benchmark by benchmark, also when a run measured only some. */
import { VERSION } from "../util/version.ts";
import { thisMachine } from "./machine.ts";
import { BENCH_VERSION, benchResultsSchema } from "./result.ts";
import type { BenchmarkResult, BenchResults } from "./result.ts";

/** Results of this program on this machine, of a run that begins now. */
export function newResults(benchmarks: readonly BenchmarkResult[] = []): BenchResults {
  return {
    version: BENCH_VERSION,
    program: VERSION,
    startedAt: new Date().toISOString(),
    machine: thisMachine(),
    benchmarks: [...benchmarks],
  };
}

/** Results from their JSON; undefined if it is not that of this version of the schema. */
export function parseResults(text: string): BenchResults | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return benchResultsSchema.safeParse(value).data;
}

/** Results as their JSON. */
export function formatResults(results: BenchResults): string {
  return `${JSON.stringify(results, null, 2)}\n`;
}

/**
 * The later results, and of the earlier ones what was not measured anew; in the order of `ids`, those
 * that it does not name behind. Earlier ones of another machine or version are not comparable, and go.
 */
export function mergeResults(
  earlier: BenchResults | undefined,
  later: BenchResults,
  ids: readonly string[],
): BenchResults {
  const benchmarks = new Map(later.benchmarks.map((benchmark) => [benchmark.id, benchmark]));
  for (const benchmark of comparable(earlier, later) ? (earlier?.benchmarks ?? []) : []) {
    if (!benchmarks.has(benchmark.id)) benchmarks.set(benchmark.id, benchmark);
  }
  const rank = ({ id }: BenchmarkResult): number => {
    const index = ids.indexOf(id);
    return index === -1 ? ids.length : index;
  };
  const ordered = [...benchmarks.values()].toSorted((a, b) => rank(a) - rank(b));
  return { ...later, benchmarks: ordered };
}

function comparable(earlier: BenchResults | undefined, later: BenchResults): boolean {
  return earlier?.program === later.program && Bun.deepEquals(earlier.machine, later.machine);
}
