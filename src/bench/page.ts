/** The page of what was measured: a plot for each figure of each benchmark, and all values as tables. */
import { pageDocument } from "../report/page/document.ts";
import type { Section } from "../report/page/document.ts";
import { latencyPlots } from "../report/page/latency-plots.ts";
import { linePlot } from "../report/page/lines.ts";
import { html } from "../report/page/markup.ts";
import type { Content, Markup } from "../report/page/markup.ts";
import { colourOf } from "../report/page/palette.ts";
import type { Colour } from "../report/page/palette.ts";
import { spreadPlot } from "../report/page/spread.ts";
import { folded, table, tiles } from "../report/page/tables.ts";
import type { Tile } from "../report/page/tables.ts";
import { formatSpread } from "./figures.ts";
import type { BenchmarkResult, BenchResults, Figure } from "./result.ts";
import { formatResults } from "./results.ts";
import { spread, verdicts } from "./statistics.ts";
import { describeMachine, describeVerdict, formatPoint, runsOf } from "./table.ts";

/** An axis whose last point is so many times its first is logarithmic. */
const LOG_FROM = 16;

/** The page as the text of a file. */
export function benchPage(results: BenchResults): string {
  const { startedAt, program, machine, benchmarks } = results;
  return pageDocument({
    title: "Benchmarks of postcopy",
    subtitle: `${startedAt.slice(0, 10)} · postcopy ${program} · ${describeMachine(machine)}`,
    lead: tiles(tilesOf(benchmarks)),
    sections: [
      ...targetSection(benchmarks),
      ...benchmarks.map(sectionOf),
      {
        id: "json",
        title: "For programs",
        body: folded("The results as JSON", "report", formatResults(results)),
      },
    ],
    footer:
      "All that is compared took turns, run by run. Dots are medians, lines go from the least to the greatest. Rest on a plot to read its values.",
  });
}

function tilesOf(benchmarks: readonly BenchmarkResult[]): Tile[] {
  const outcomes = benchmarks.flatMap((benchmark) =>
    verdicts(benchmark).map((verdict) => describeVerdict(verdict, benchmark).outcome),
  );
  const count = (outcome: string): number => outcomes.filter((each) => each === outcome).length;
  return [
    { label: "Benchmarks", value: benchmarks.length },
    { label: "Targets met", value: count("met") },
    { label: "Targets not met", value: count("not met") },
    { label: "Targets not measured", value: count("not measured") },
  ];
}

/** Every target in one table; nothing where there is none. */
function targetSection(benchmarks: readonly BenchmarkResult[]): Section[] {
  const rows = benchmarks.flatMap((benchmark) =>
    verdicts(benchmark).map((verdict): Content[] => {
      const { figure, point, wanted, came, peer, outcome } = describeVerdict(verdict, benchmark);
      const kind = outcome === "met" ? "good" : outcome === "not met" ? "bad" : "";
      const verdictText = html`<span class="${kind}">${outcome}</span>`;
      const of = `${verdict.target.of}${point}`;
      return [benchmark.id, figure, of, peer, wanted, came, verdictText];
    }),
  );
  if (rows.length === 0) return [];
  const head = ["benchmark", "figure", "of", "divided by that of", "target", "came to", ""];
  const caption = "Medians and their ratios, beside what they are meant to be";
  return [
    {
      id: "targets",
      title: "Targets",
      body: table({ caption, id: "target-table", head, rows, textColumns: 5 }),
    },
  ];
}

function sectionOf(benchmark: BenchmarkResult): Section {
  const { id, title, setting, figures, notes } = benchmark;
  const colours = coloursOf(benchmark);
  const plots = figures.map((figure) => {
    return benchmark.axis === null
      ? spreadOf(benchmark, figure, colours)
      : linesOf(benchmark, figure, colours);
  });
  const body = html`<p>${setting}</p>
    ${benchmark.axis === null ? plots : html`<div class="plots">${plots}</div>`}
    ${latenciesOf(benchmark, colours)}${valuesOf(benchmark)}
    <ul>
      ${notes.map((note) => html`<li>${note}</li> `)}
    </ul>`;
  return { id, title, body };
}

/** The same colour for the same name in every plot of a benchmark. */
function coloursOf({ entries }: BenchmarkResult): ReadonlyMap<string, Colour> {
  const names = [...new Set(entries.map(({ name }) => name))];
  return new Map(names.map((name, index) => [name, colourOf(index)]));
}

type Colours = ReturnType<typeof coloursOf>;

function spreadOf({ entries }: BenchmarkResult, figure: Figure, colours: Colours): Markup {
  const { id, title, unit, better } = figure;
  const rows = entries.map(({ name, values }) => {
    return { name, colour: colours.get(name) ?? "slate", ...spread(values[id] ?? []) };
  });
  return spreadPlot({ title, rows, unit, better });
}

function linesOf(benchmark: BenchmarkResult, figure: Figure, colours: Colours): Markup {
  const { entries, axis } = benchmark;
  const { id, title, unit, better } = figure;
  const series = [...colours].map(([name, colour]) => {
    const points = entries.flatMap((entry) => {
      const { median: y, least, greatest } = spread(entry.values[id] ?? []);
      if (entry.name !== name || entry.at === null || Number.isNaN(y)) return [];
      return [{ x: entry.at, y, least, greatest }];
    });
    return { name, colour, points: points.toSorted((a, b) => a.x - b.x) };
  });
  return linePlot({
    title,
    caption: better === "less" ? "Less is better." : "More is better.",
    series,
    x: { title: axisTitle(axis), unit: "count", scale: scaleOf(entries) },
    y: { title, unit, scale: "linear" },
    shape: "line",
  });
}

/** Points that lie far apart, as 1, 4 and 16 do, are spread evenly. */
function scaleOf(entries: BenchmarkResult["entries"]): "linear" | "log" {
  const points = entries.flatMap(({ at }) => at ?? []);
  const least = Math.min(...points);
  return least > 0 && Math.max(...points) / least >= LOG_FROM ? "log" : "linear";
}

function axisTitle(axis: BenchmarkResult["axis"]): string {
  if (axis === null) return "";
  return axis.unit === "" ? axis.title : `${axis.title}, ${axis.unit}`;
}

/** Distributions, of those entries that have one. */
function latenciesOf(benchmark: BenchmarkResult, colours: Colours): Markup | undefined {
  const series = benchmark.entries.flatMap(({ name, at, latencyBuckets }) => {
    if (latencyBuckets === null) return [];
    const point = at === null ? "" : ` (${formatPoint(at, benchmark.axis?.unit ?? "")})`;
    const colour = colours.get(name) ?? "slate";
    return [{ name: `${name}${point}`, colour, buckets: latencyBuckets }];
  });
  if (series.length === 0) return undefined;
  const caption = "Of all runs together.";
  return latencyPlots({ title: "Latencies", caption, counted: "latencies", series });
}

function valuesOf({ id, axis, figures, entries }: BenchmarkResult): Markup {
  const head = [
    "",
    ...(axis === null ? [] : [axis.title]),
    ...figures.map(({ title }) => title),
    "program",
  ];
  const rows = entries.map((entry) => [
    entry.name,
    ...(axis === null ? [] : [formatPoint(entry.at, axis.unit)]),
    ...figures.map((figure) => formatSpread(entry.values[figure.id] ?? [], figure.unit)),
    entry.program,
  ]);
  const caption = `bun test bench -t ${id}, ${runsOf(entries)}: the median, and in brackets the least and the greatest`;
  return table({ caption, id: `${id}-values`, head, rows });
}
