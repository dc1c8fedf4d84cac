/** One benchmark of a list, from looking for what it needs to its result. */
import type { Terminal } from "../util/terminal.ts";
import { hold } from "./contest.ts";
import type { ListedBenchmark } from "./contest.ts";
import type { BenchmarkResult } from "./result.ts";

/** Runs of each contender where nobody asks for another number. */
const RUNS_DEFAULT = 5;
/** Between two lines about whose turn it is. */
const LINES_APART_MS = 2000;

export interface RunOptions {
  /** Runs of each contender that count; the benchmark's own number if absent. */
  runs?: number | undefined;
  /** One run of little, to see that it works. */
  quick: boolean;
  /** Where it is shown who has a turn. */
  terminal?: Terminal | undefined;
}

/** Runs a benchmark; undefined where the machine lacks what it needs. */
export async function measure(
  listed: ListedBenchmark,
  { runs, quick, terminal }: RunOptions,
): Promise<BenchmarkResult | undefined> {
  const benchmark = await listed.make({ quick });
  if (benchmark === undefined) return undefined;
  if (benchmark.id !== listed.id) throw new Error(`${listed.id} calls itself ${benchmark.id}`);
  try {
    return await hold(benchmark, {
      runs: runs ?? (quick ? 1 : (listed.runs ?? RUNS_DEFAULT)),
      warmups: quick ? 0 : 1,
      progress: terminal === undefined ? () => undefined : turnTeller(terminal),
    });
  } finally {
    terminal?.clearStatus();
  }
}

/** Shows whose turn it is; where lines cannot be rewritten, only of turns that last. */
function turnTeller(terminal: Terminal): (text: string) => void {
  let toldMs = performance.now();
  return (text) => {
    if (terminal.interactive) terminal.setStatus(text.slice(0, terminal.columns - 1));
    else if (performance.now() - toldMs >= LINES_APART_MS) {
      terminal.writeLines(text);
      toldMs = performance.now();
    }
  };
}
