/**
 * Every comparison, side by side, in one run:
 *
 *     bun test bench                                   all of them, an hour or so
 *     bun test bench -t bulk                           those whose name has "bulk" in it
 *     POSTCOPY_BENCH_RUNS=9 bun test bench             more runs of each
 *     POSTCOPY_BENCH_QUICK=1 bun test bench            one run of little, to see that they work
 *
 * What came out is a table on the terminal, and .cache/bench/results.json and results.html, where
 * what was not measured anew stays. A benchmark passes when it could be measured: whether its targets are met is
 * said in the table, as no two machines are alike.
 */
import { afterAll, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { benchPage } from "../../src/bench/page.ts";
import type { BenchmarkResult } from "../../src/bench/result.ts";
import { formatResults, mergeResults, newResults, parseResults } from "../../src/bench/results.ts";
import { measure } from "../../src/bench/run.ts";
import { describeMachine, renderBenchmark } from "../../src/bench/table.ts";
import { stderrTerminal } from "../../src/util/terminal.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";
import { BENCHMARKS } from "./all.ts";
import { benchSettings, selects, testWords } from "./asked.ts";

const PLACE = join(PROJECT_ROOT, ".cache", "bench");
const RESULTS = join(PLACE, "results.json");
const PAGE = join(PLACE, "results.html");
/** No benchmark takes longer, also with many runs. */
const LIMIT_MS = 3_600_000;

if (selects(testWords(), import.meta.path)) register();

function register(): void {
  const { runs, quick } = benchSettings(process.env);
  const started = newResults();
  const measured: BenchmarkResult[] = [];
  for (const listed of BENCHMARKS) {
    const run = async (): Promise<void> => {
      const result = await measure(listed, { runs, quick, terminal: stderrTerminal });
      if (result === undefined) return;
      measured.push(result);
      stderrTerminal.writeLines(`\n${renderBenchmark(result, stderrTerminal.paint)}\n`);
      // At once: a later one that fails, or is interrupted, must not take this one with it.
      if (!quick) await keep({ ...started, benchmarks: measured });
    };
    test(listed.id, run, LIMIT_MS);
  }
  afterAll(() => {
    stderrTerminal.writeLines(describeMachine(started.machine));
    if (!quick && measured.length > 0) stderrTerminal.writeLines(`${RESULTS}\n${PAGE}`);
  });
}

/** Writes the results beside what was measured earlier, and the page of all of them. */
async function keep(results: ReturnType<typeof newResults>): Promise<void> {
  mkdirSync(PLACE, { recursive: true });
  const file = Bun.file(RESULTS);
  const earlier = (await file.exists()) ? parseResults(await file.text()) : undefined;
  const ids = BENCHMARKS.map(({ id }) => id);
  const merged = mergeResults(earlier, results, ids);
  await Bun.write(RESULTS, formatResults(merged));
  await Bun.write(PAGE, benchPage(merged));
}
