/**
 * How programs are compared: they take turns, run by run, so that a machine whose speed drifts is
 * the same for all; every second round goes backwards, so that none always follows the same other.
 */
import { MICROSECOND_BUCKETS } from "../report/histogram.ts";
import type { BenchmarkResult, Entry } from "./result.ts";

/** What one run of one contender gave. */
export interface Run {
  /** By figure of the benchmark; one that this contender cannot tell is left out. */
  values: Record<string, number>;
  /** Counts of [2^N, 2^(N+1)) µs, where it measures latencies. */
  latencyBuckets?: readonly number[];
}

export interface Contender {
  name: string;
  /** What is run, with its version: "QEMU 11.1.0". */
  program: string;
  /** Where on the benchmark's axis it stands, if it has one. */
  at?: number;
  run: () => Promise<Run>;
}

/** A benchmark: what is compared, of whom, and what the comparison should come to. */
export interface Benchmark extends Omit<BenchmarkResult, "entries" | "measuredAt"> {
  /** Those that can be run here. What they need beyond a run is theirs to prepare and give back. */
  contenders: readonly Contender[];
}

/** Makes a benchmark ready; undefined where the machine lacks what it needs, after saying so. */
export type MakeBenchmark = (options: { quick: boolean }) => Promise<Benchmark | undefined>;

/** A benchmark as a list has it: what it needs is looked for only when it is its turn. */
export interface ListedBenchmark {
  id: string;
  make: MakeBenchmark;
  /** Runs that count, of one that takes much longer than others, or much less long. */
  runs?: number;
}

export interface ContestOptions {
  /** Runs of each contender that count. */
  runs: number;
  /** Runs of each before them that do not: caches are filled. */
  warmups?: number;
  /** Told before each run. */
  progress?: (text: string) => void;
}

/** Lets the contenders of a benchmark take turns. */
export async function hold(
  benchmark: Benchmark,
  options: ContestOptions,
): Promise<BenchmarkResult> {
  const { contenders, ...described } = benchmark;
  const { runs, warmups = 0, progress } = options;
  const measuredAt = new Date().toISOString();
  const entries = contenders.map((contender) => newEntry(contender));
  for (let round = -warmups; round < runs; round++) {
    for (const index of turns(contenders.length, round)) {
      const [contender, entry] = [contenders[index], entries[index]];
      if (contender === undefined || entry === undefined) throw new Error("no such contender");
      const point = contender.at === undefined ? "" : ` (${contender.at})`;
      const turn = round < 0 ? "warming up" : `run ${round + 1} of ${runs}`;
      progress?.(`${benchmark.id}: ${contender.name}${point}, ${turn}`);
      const run = await contender.run();
      if (round >= 0) note(entry, run);
    }
  }
  return { ...described, entries, measuredAt };
}

function turns(contenders: number, round: number): number[] {
  const order = Array.from({ length: contenders }, (_, index) => index);
  return round % 2 === 0 ? order : order.reverse();
}

function newEntry({ name, program, at }: Contender): Entry {
  return { name, program, at: at ?? null, values: {}, latencyBuckets: null };
}

function note(entry: Entry, { values, latencyBuckets }: Run): void {
  for (const [figure, value] of Object.entries(values)) {
    (entry.values[figure] ??= []).push(value);
  }
  if (latencyBuckets === undefined) return;
  const sums = (entry.latencyBuckets ??= Array.from({ length: MICROSECOND_BUCKETS }, () => 0));
  for (const [bucket, count] of latencyBuckets.entries())
    sums[bucket] = (sums[bucket] ?? 0) + count;
}
