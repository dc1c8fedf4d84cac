/** A benchmark's result as lines on a terminal. */
import { alignColumns } from "../report/columns.ts";
import type { Paint } from "../util/terminal.ts";
import { formatBytes, threeDigits } from "../util/units.ts";
import { formatSpread } from "./figures.ts";
import type { BenchmarkResult, BenchResults, Entry, Machine } from "./result.ts";
import { verdicts } from "./statistics.ts";
import type { PlacedVerdict } from "./statistics.ts";

/** Everything: the machine, then one table a benchmark. */
export function renderResults(results: BenchResults, paint: Paint): string {
  const tables = results.benchmarks.map((benchmark) => renderBenchmark(benchmark, paint));
  return [describeMachine(results.machine), ...tables].join("\n\n");
}

/** "AMD EPYC, 2 cores, 24 GiB, Linux 6.1.0". */
export function describeMachine({ processor, cores, memoryBytes, kernel }: Machine): string {
  return `${processor}, ${cores} cores, ${formatBytes(memoryBytes)}, Linux ${kernel}`;
}

/** Title, one line an entry, one line a target. */
export function renderBenchmark(benchmark: BenchmarkResult, paint: Paint): string {
  const { id, title, axis, figures, entries } = benchmark;
  const axisTitle = axis === null ? [] : [axis.title];
  const head = ["", ...axisTitle, ...figures.map((figure) => figure.title)];
  const rows = entries.map((entry) => [
    entry.name,
    ...(axis === null ? [] : [formatPoint(entry.at, axis.unit)]),
    ...figures.map(({ id: figure, unit }) => formatSpread(entry.values[figure] ?? [], unit)),
  ]);
  const [headLine = "", ...lines] = alignColumns([head, ...rows], 1);
  return [
    `${paint.bold(title)} ${paint.dim(`(${id}, ${runsOf(entries)})`)}`,
    paint.dim(headLine),
    ...lines,
    ...verdicts(benchmark).map((verdict) => renderVerdict(verdict, benchmark, paint)),
  ].join("\n");
}

/** "5 runs each". */
export function runsOf(entries: readonly Entry[]): string {
  const counts = entries.flatMap(({ values }) => Object.values(values).map((list) => list.length));
  const runs = Math.max(0, ...counts);
  return `${runs} ${runs === 1 ? "run" : "runs"} each`;
}

/** A point of an axis with its unit; the unit may be empty. */
export function formatPoint(at: number | null, unit: string): string {
  return at === null ? "" : `${at} ${unit}`.trim();
}

/** "rate of ours → ours at least 1.2 × that of QEMU 11.1 → QEMU 11.1: 1.35, met". */
export function describeVerdict(
  { target, ratio, met, at }: PlacedVerdict,
  { figures, axis }: BenchmarkResult,
): string {
  const figure = figures.find(({ id }) => id === target.figure)?.title ?? target.figure;
  const point = at === null ? "" : ` at ${formatPoint(at, axis?.unit ?? "")}`;
  const wanted = `${figure} of ${target.of}${point}, ${target.bound} ${target.ratio} × that of ${target.to}`;
  if (Number.isNaN(ratio)) return `${wanted}: not measured`;
  return `${wanted}: ${threeDigits(ratio)}, ${met ? "met" : "not met"}`;
}

function renderVerdict(verdict: PlacedVerdict, benchmark: BenchmarkResult, paint: Paint): string {
  const text = `  ${describeVerdict(verdict, benchmark)}`;
  if (Number.isNaN(verdict.ratio)) return paint.dim(text);
  return verdict.met ? paint.green(text) : paint.red(text);
}
