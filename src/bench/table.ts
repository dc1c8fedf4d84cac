/** A benchmark's result as lines on a terminal. */
import { alignColumns } from "../report/columns.ts";
import { formatValue } from "../report/page/units.ts";
import type { Paint } from "../util/terminal.ts";
import { formatBytes } from "../util/units.ts";
import { formatSpread } from "./figures.ts";
import type { BenchmarkResult, Entry, Machine } from "./result.ts";
import { verdicts } from "./statistics.ts";
import type { PlacedVerdict } from "./statistics.ts";

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

/** A verdict in words: what was compared, what was wanted, and what came of it. */
export interface VerdictWords {
  figure: string;
  /** " at 4 GiB", or nothing where there is no axis. */
  point: string;
  /** "at least 1.2 ×". */
  wanted: string;
  /** The ratio of the medians. */
  came: string;
  outcome: "met" | "not met" | "not measured";
}

export function describeVerdict(
  { target, ratio, met, at }: PlacedVerdict,
  { figures, axis }: BenchmarkResult,
): VerdictWords {
  const measured = !Number.isNaN(ratio);
  return {
    figure: figures.find(({ id }) => id === target.figure)?.title ?? target.figure,
    point: at === null ? "" : ` at ${formatPoint(at, axis?.unit ?? "")}`,
    wanted: `${target.bound} ${target.ratio} ×`,
    came: measured ? formatValue(ratio, "ratio") : "–",
    outcome: !measured ? "not measured" : met ? "met" : "not met",
  };
}

function renderVerdict(verdict: PlacedVerdict, benchmark: BenchmarkResult, paint: Paint): string {
  const { figure, point, wanted, came, outcome } = describeVerdict(verdict, benchmark);
  const { of, to } = verdict.target;
  const text = `  ${figure} of ${of}${point}, ${wanted} that of ${to}: ${came}, ${outcome}`;
  if (outcome === "not measured") return paint.dim(text);
  return outcome === "met" ? paint.green(text) : paint.red(text);
}
