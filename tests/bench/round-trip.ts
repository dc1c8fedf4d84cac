/** The way of a fault with nothing else on the way: what a page that is asked for takes at least. */
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import type { Figure } from "../../src/bench/result.ts";
import { needCompiler, needUserfaultfd } from "../helpers/need.ts";
import { runLimit } from "./c-program.ts";
import { C, C_PROGRAM, OUR_PROGRAM, OURS } from "./names.ts";
import { isHere } from "./needs.ts";
import { moveStress } from "../../src/bench/stress-move.ts";

const MEMORY_MIB = 128;
const QUICK_MEMORY_MIB = 16;

/** Next to no push: pages come because they are asked for. */
const PUSH = ["--max-postcopy-bandwidth", "256KiB/s"];

const FIGURES: Figure[] = [
  { id: "mean", title: "mean", unit: "us", better: "less" },
  { id: "p50", title: "median", unit: "us", better: "less" },
  { id: "p99", title: "99th percentile", unit: "us", better: "less" },
];

/** Our own ends beside plain C, which spins on both sides or is parked on both. */
export async function roundTrip({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isHere("round-trip", needUserfaultfd())) return undefined;
  const memoryMib = quick ? QUICK_MEMORY_MIB : MEMORY_MIB;
  const inC = isHere("round-trip in C", needCompiler())
    ? (["spinning", "parked"] as const).map((way) => limit(way, memoryMib))
    : [];
  return {
    id: "round-trip",
    title: "The way of one fault, with an idle link",
    setting:
      `One thread touches the pages of ${memoryMib} MiB at random, and each is fetched from another ` +
      "process over TCP on the loopback when it is touched; next to nothing is pushed.",
    axis: null,
    figures: FIGURES,
    contenders: [{ name: OURS, program: OUR_PROGRAM, run: () => ours(memoryMib) }, ...inC],
    targets: [],
    notes: [
      "From the fault's event to the page placed, as the thread sees it that serves the faults.",
      "Spinning takes two cores for as long as it lasts; with a guest that runs they are not to be had.",
    ],
  };
}

/** What C says, in µs. */
interface Latencies {
  mean: number;
  p50: number;
  p99: number;
  buckets: number[];
}

function limit(way: "spinning" | "parked", memoryMib: number): Contender {
  const touches = (memoryMib * 256) / 2;
  return {
    name: `${C}, ${way}`,
    program: C_PROGRAM,
    run: async () => {
      const words = ["faults", String(memoryMib), String(touches), way];
      const { servedUs } = await runLimit<{ servedUs: Latencies }>(...words);
      return runOf(servedUs);
    },
  };
}

async function ours(memoryMib: number): Promise<Run> {
  const settings = "workers=1,zero=0,rate=unlimited,hot-share=0,discard=0,duration=10ms";
  const { dest } = await moveStress(`stress:size=${memoryMib}MiB,${settings}`, [
    "--switchover",
    "now",
    ...PUSH,
  ]);
  const { latencyNs } = dest.faults;
  if (latencyNs === null) throw new Error("no fault was remote");
  const { mean, p50, p99, buckets } = latencyNs;
  return runOf({ mean: mean / 1000, p50: p50 / 1000, p99: p99 / 1000, buckets });
}

function runOf({ mean, p50, p99, buckets }: Latencies): Run {
  return { values: { mean, p50, p99 }, latencyBuckets: buckets };
}
