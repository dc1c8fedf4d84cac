/** `postcopy bench`: what this machine and this program can do, as far as no QEMU is needed. */
import * as z from "zod";
import { OWN_BENCHMARKS } from "../bench/all.ts";
import { benchPage } from "../bench/page.ts";
import type { BenchmarkResult } from "../bench/result.ts";
import { formatResults, newResults } from "../bench/results.ts";
import { measure } from "../bench/run.ts";
import { describeMachine, renderBenchmark } from "../bench/table.ts";
import { EXIT } from "../util/errors.ts";
import { choiceSchema, integerSchema } from "../util/schemas.ts";
import { stderrTerminal } from "../util/terminal.ts";
import { checkCommon, COMMON_FLAGS, isPage, openOutput, writeReportFile } from "./common.ts";
import { defineStrictCommand, optionalFlag, repeatedFlag, switchFlag } from "./strict.ts";

const RUNS_MAX = 1000;

export const bench = defineStrictCommand({
  name: "bench",
  description: "Measure this program on this machine",
  flags: {
    only: repeatedFlag(choiceSchema(OWN_BENCHMARKS.map(({ id }) => id)), {
      valueHint: "ID",
      description: "Only this benchmark; may be given several times",
    }),
    runs: optionalFlag(integerSchema(1, RUNS_MAX), {
      valueHint: "N",
      description: "Runs of each that count, instead of each benchmark's own number",
    }),
    quick: switchFlag("One short run of each, to see that it works"),
    report: optionalFlag(z.string(), {
      valueHint: "FILE",
      description: "Write the results there: as a page with plots for .html, else as JSON",
    }),
    ...COMMON_FLAGS,
  },
  notes: `Benchmarks: ${OWN_BENCHMARKS.map(({ id }) => id).join(", ")}.`,
  example: ["postcopy bench", "postcopy bench --only primitives --runs 9"].join("\n"),
  check: checkCommon,
  run: async (options) => {
    const { only, quick, runs, report } = options;
    const output = await openOutput(options);
    const started = newResults();
    const { paint } = stderrTerminal;
    const say = (text: string): void => {
      if (!options.quiet) stderrTerminal.writeLines(text);
    };
    say(describeMachine(started.machine));
    const benchmarks: BenchmarkResult[] = [];
    for (const listed of OWN_BENCHMARKS) {
      if (only.length > 0 && !only.includes(listed.id)) continue;
      const terminal = options.quiet ? undefined : stderrTerminal;
      const result = await measure(listed, { runs, quick, terminal });
      if (result === undefined) continue;
      benchmarks.push(result);
      say(`\n${renderBenchmark(result, paint)}`);
    }
    const results = { ...started, benchmarks };
    output.events.emit({ event: "bench", results });
    if (report !== undefined) {
      const text = isPage(report) ? benchPage : formatResults;
      writeReportFile(
        report,
        () => text(results),
        (...warning) => output.warn(...warning),
      );
    }
    return EXIT.ok;
  },
});
