/** Medians, spreads and ratios of what benchmarks measured. */
import type { BenchmarkResult, Entry, Target } from "./result.ts";

/** The middle and the ends of some values; all NaN of none. */
export interface Spread {
  median: number;
  least: number;
  greatest: number;
}

/** The mean of the two in the middle where the values are even in number. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const lower = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

export function spread(values: readonly number[]): Spread {
  if (values.length === 0) return { median: Number.NaN, least: Number.NaN, greatest: Number.NaN };
  return { median: median(values), least: Math.min(...values), greatest: Math.max(...values) };
}

/** How a target was met. */
export interface Verdict {
  target: Target;
  /** The ratio of the medians, or the one median; NaN where one of them was not measured, or both are 0. */
  ratio: number;
  met: boolean;
}

/** A verdict at one point of the axis, or of a benchmark without one. */
export type PlacedVerdict = Verdict & { at: number | null };

/** The ratio of every target of a benchmark, for each point of its axis that its first entry has. */
export function verdicts(benchmark: BenchmarkResult): PlacedVerdict[] {
  return benchmark.targets.flatMap((target) => {
    const ours = benchmark.entries.filter(({ name }) => name === target.of);
    return ours.map((entry) => {
      const peer = benchmark.entries.find(({ name, at }) => name === target.to && at === entry.at);
      return { ...verdict(target, entry, peer), at: entry.at };
    });
  });
}

function verdict(target: Target, entry: Entry, peer: Entry | undefined): Verdict {
  const of = median(entry.values[target.figure] ?? []);
  const to = target.to === null ? 1 : median(peer?.values[target.figure] ?? []);
  const ratio = of / to;
  const met = target.bound === "at most" ? ratio <= target.ratio : ratio >= target.ratio;
  return { target, ratio, met };
}
