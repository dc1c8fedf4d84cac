/**
 * Makes docs/performance.md of docs/performance.json, and of what people have written about each
 * benchmark in docs/performance/ID.md:
 *
 *     bun test bench                       measures, into .cache/bench/results.json
 *     bun scripts/performance.ts --take    takes those results over, then makes the document
 *     bun scripts/performance.ts           makes the document anew, after its prose was edited
 *
 * A test checks that the document is what its parts say.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { BenchmarkResult, BenchResults, Entry } from "../src/bench/result.ts";
import { formatSpread } from "../src/bench/figures.ts";
import { formatResults, parseResults } from "../src/bench/results.ts";
import { verdicts } from "../src/bench/statistics.ts";
import { describeMachine, describeVerdict, formatPoint, runsOf } from "../src/bench/table.ts";

const ROOT = join(import.meta.dir, "..");
const PROSE = join(ROOT, "docs", "performance");
const TAKEN = join(ROOT, "docs", "performance.json");
const MEASURED = join(ROOT, ".cache", "bench", "results.json");
export const DOCUMENT = join(ROOT, "docs", "performance.md");

/** What stands before the first benchmark. */
const INTRODUCTION = "introduction";

/** Texts by benchmark: Markdown below a title of their own. */
export type Prose = ReadonlyMap<string, string>;

/** The text of the document. */
export function performanceDocument(results: BenchResults, prose: Prose): string {
  const { machine, program, benchmarks } = results;
  const parts = [
    "# Performance",
    "<!-- Made by `npm run performance` of docs/performance.json and docs/performance/*.md. -->",
    bodyOf(prose.get(INTRODUCTION)),
    `Measured with postcopy ${program} on ${describeMachine(machine)}.`,
    summaryOf(benchmarks),
    ...benchmarks.map((benchmark) => sectionOf(benchmark, prose.get(benchmark.id))),
  ];
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

/** A text without its title, its links seen from one directory further up. */
function bodyOf(text = ""): string {
  return text
    .replace(/^# .*\n/, "")
    .replaceAll("](../", "](")
    .trim();
}

/** Every target, met or not. */
function summaryOf(benchmarks: readonly BenchmarkResult[]): string {
  const rows = benchmarks.flatMap((benchmark) =>
    verdicts(benchmark).map((verdict) => {
      const { figure, point, wanted, came, peer, outcome } = describeVerdict(verdict, benchmark);
      const of = `${verdict.target.of}${point}`;
      return [benchmark.id, figure, of, peer, wanted, came, outcome];
    }),
  );
  if (rows.length === 0) return "";
  const head = ["benchmark", "figure", "of", "divided by that of", "target", "came to", ""];
  return `## Targets\n\n${markdownTable([head, ...rows])}`;
}

function sectionOf(benchmark: BenchmarkResult, text: string | undefined): string {
  const { title, id, setting, notes, entries, measuredAt } = benchmark;
  const parts = [
    `## ${title}`,
    setting,
    `\`bun test bench -t ${id}\`, ${runsOf(entries)}, ${timeOf(measuredAt)}: the median, and in brackets ` +
      "the least and the greatest.",
    markdownTable(rowsOf(benchmark)),
    notes.map((note) => `- ${note}`).join("\n"),
    bodyOf(text),
  ];
  return parts.filter((part) => part !== "").join("\n\n");
}

/** To the minute: results of one day may be of different states of the program. */
function timeOf(instant: string): string {
  return instant.slice(0, 16).replace("T", " ");
}

function rowsOf({ axis, figures, entries }: BenchmarkResult): string[][] {
  const axisTitle = axis === null ? [] : [axis.title];
  const head = ["", ...axisTitle, ...figures.map(({ title }) => title), "program"];
  const row = (entry: Entry): string[] => [
    entry.name,
    ...(axis === null ? [] : [formatPoint(entry.at, axis.unit)]),
    ...figures.map(({ id, unit }) => formatSpread(entry.values[id] ?? [], unit)),
    entry.program,
  ];
  return [head, ...entries.map(row)];
}

/** A table whose columns are as wide as their widest cell; the first row is its head. */
function markdownTable(rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = (cells[0] ?? []).map((_, column) => {
    return Math.max(3, ...cells.map((row) => Bun.stringWidth(row[column] ?? "")));
  });
  const line = (row: readonly string[]): string => {
    const padded = row.map((cell, column) => {
      return cell + " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell));
    });
    return `| ${padded.join(" | ")} |`;
  };
  const rule = widths.map((width) => "-".repeat(width));
  return [cells[0] ?? [], rule, ...cells.slice(1)].map(line).join("\n");
}

/** What people have written, by benchmark. */
export async function readProse(): Promise<Prose> {
  const prose = new Map<string, string>();
  for (const name of new Bun.Glob("*.md").scanSync({ cwd: PROSE })) {
    prose.set(name.replace(/\.md$/, ""), await Bun.file(join(PROSE, name)).text());
  }
  return prose;
}

/** The results that the document is made of. */
export async function takenResults(): Promise<BenchResults> {
  return await readResults(TAKEN);
}

async function readResults(path: string): Promise<BenchResults> {
  const results = parseResults(await Bun.file(path).text());
  if (results === undefined) throw new Error(`${path} holds no results of benchmarks`);
  return results;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { take: { type: "boolean", default: false } } });
  if (values.take) await Bun.write(TAKEN, formatResults(await readResults(MEASURED)));
  await Bun.write(DOCUMENT, performanceDocument(await takenResults(), await readProse()));
}
