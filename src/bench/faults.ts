/**
 * How long a guest waits for a page that is not there yet, while everything else is being pushed: at
 * full speed, and at a limited one.
 */
import type { Benchmark, Contender, Run } from "./contest.ts";
import { bucketPercentile } from "./latency.ts";
import { OUR_PROGRAM, OURS } from "./names.ts";
import type { Figure } from "./result.ts";
import { moveStress } from "./stress-move.ts";

const MEMORY_MIB = 512;
const QUICK_MEMORY_MIB = 128;

/** Limits of the push in MB/s; 0: none. */
export const PUSH_LIMITS = [0, 200] as const;

export const PUSH_AXIS = { title: "Limit of the push", unit: "MB/s (0: none)" } as const;

export const FAULT_FIGURES: Figure[] = [
  { id: "mean", title: "Remote fault, mean", unit: "us", better: "less" },
  { id: "p50", title: "Remote fault, median", unit: "us", better: "less" },
  { id: "p99", title: "Remote fault, 99th percentile", unit: "us", better: "less" },
  { id: "faults", title: "Remote faults", unit: "count", better: "less" },
  { id: "bulk", title: "Postcopy, all pages", unit: "bytes/s", better: "more" },
];

/** Memory of the guests, in MiB. */
export function faultsMemoryMib(quick: boolean): number {
  return quick ? QUICK_MEMORY_MIB : MEMORY_MIB;
}

/** Figures of QEMU's kind of histogram, and of what was moved meanwhile. */
export function faultsRun(
  latencyBuckets: readonly number[],
  meanNs: number,
  bulkBytesPerSecond: number,
): Run {
  const values = {
    mean: meanNs / 1000,
    p50: bucketPercentile(latencyBuckets, 50),
    p99: bucketPercentile(latencyBuckets, 99),
    faults: latencyBuckets.reduce((sum, count) => sum + count, 0),
    bulk: bulkBytesPerSecond,
  };
  return { values, latencyBuckets };
}

/** What limits the push of `source` to so many MB/s. */
export function limitFlags(limit: number): string[] {
  return limit === 0 ? [] : ["--max-postcopy-bandwidth", `${limit}MB/s`];
}

/** A guest with one processor that writes to pages at random, as fast as it gets them. */
async function faultAtRandom(memoryMib: number, sourceFlags: readonly string[]): Promise<Run> {
  const settings = `size=${memoryMib}MiB,workers=1,zero=0,rate=unlimited,hot-share=0,discard=0,duration=10ms`;
  const flags = ["--switchover", "now", ...sourceFlags];
  const { source, dest } = await moveStress(`stress:${settings}`, flags);
  const { latencyNs } = dest.faults;
  if (latencyNs === null || source.rates.postcopy === null) throw new Error("no faults");
  return faultsRun(latencyNs.buckets, latencyNs.mean, source.rates.postcopy);
}

/** This program with itself, at each limit of the push. */
export function oursToOurs(memoryMib: number): Contender[] {
  return PUSH_LIMITS.map((limit) => ({
    name: OURS,
    program: OUR_PROGRAM,
    at: limit,
    run: () => faultAtRandom(memoryMib, limitFlags(limit)),
  }));
}

/** The benchmark of what needs nobody else. */
export function faults({ quick }: { quick: boolean }): Promise<Benchmark> {
  const memoryMib = faultsMemoryMib(quick);
  return Promise.resolve({
    id: "faults",
    title: "Remote faults",
    setting:
      `A guest of ${memoryMib} MiB, none of it zero, moves by post-copy alone over loopback tcp, ` +
      "and writes to pages at random as fast as it gets them.",
    axis: PUSH_AXIS,
    figures: FAULT_FIGURES,
    contenders: oursToOurs(memoryMib),
    targets: [],
    notes: [
      "A remote fault lasts from when the fault thread learns of it to when the page is in place.",
      "Percentiles are interpolated from powers of two of µs, as QEMU tells no more.",
    ],
  });
}
