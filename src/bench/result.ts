/**
 * What a run of benchmarks found: one schema for the table, the JSON, the page and the document
 * that are made of it. Every value of every run is kept; medians and ratios are computed by whoever
 * shows them (`src/bench/statistics.ts`), so that none can disagree with what was measured.
 */
import * as z from "zod";
import { MICROSECOND_BUCKETS } from "../report/histogram.ts";

/** Raised when a field changes its meaning or goes; new fields do not raise it. */
export const BENCH_VERSION = 1;

const count = z.int().nonnegative();

export const machineSchema = z.strictObject({
  processor: z.string(),
  cores: count,
  memoryBytes: count,
  kernel: z.string(),
});

/** One thing that is measured in every run of a benchmark. */
export const figureSchema = z.strictObject({
  id: z.string(),
  title: z.string(),
  unit: z.enum(["ms", "us", "ns", "bytes/s", "s/GiB", "%", "bytes", "count"]),
  better: z.enum(["less", "more"]),
});

/** One of those that take turns, at one point of the axis where the benchmark has one. */
export const entrySchema = z.strictObject({
  name: z.string(),
  program: z.string().describe("What was run, with its version"),
  at: z.number().nullable().describe("Where on the axis; null without one"),
  values: z
    .record(z.string(), z.array(z.number().nonnegative()))
    .describe("By figure: one value a run, in the order of the runs"),
  latencyBuckets: z
    .array(count)
    .length(MICROSECOND_BUCKETS)
    .nullable()
    .describe("Counts of [2^N, 2^(N+1)) µs over all runs"),
});

/**
 * What the ratio of two medians is meant to be, the first entry's divided by the second's; or what a
 * median is meant to be by itself.
 */
export const targetSchema = z.strictObject({
  figure: z.string(),
  of: z.string().describe("Name of an entry"),
  to: z
    .string()
    .nullable()
    .describe("Name of the entry that it is compared with; null where the figure itself is meant"),
  bound: z.enum(["at most", "at least"]),
  ratio: z.number().positive().describe("With nothing to compare with: in the figure's unit"),
});

export const benchmarkResultSchema = z.strictObject({
  id: z.string(),
  title: z.string(),
  setting: z.string().describe("What is done, in a sentence or two"),
  axis: z.strictObject({ title: z.string(), unit: z.string() }).nullable(),
  figures: z.array(figureSchema).min(1),
  entries: z.array(entrySchema),
  targets: z.array(targetSchema),
  notes: z.array(z.string()).describe("What has to be known to read the values"),
  measuredAt: z.iso.datetime().describe("When the first run began"),
});

export const benchResultsSchema = z
  .strictObject({
    version: z.literal(BENCH_VERSION),
    program: z.string().describe("Version of postcopy"),
    startedAt: z.iso.datetime(),
    machine: machineSchema,
    benchmarks: z.array(benchmarkResultSchema),
  })
  .meta({ title: "postcopy benchmark results" });

export type Machine = z.infer<typeof machineSchema>;
export type Figure = z.infer<typeof figureSchema>;
export type Entry = z.infer<typeof entrySchema>;
export type Target = z.infer<typeof targetSchema>;
export type BenchmarkResult = z.infer<typeof benchmarkResultSchema>;
export type BenchResults = z.infer<typeof benchResultsSchema>;
