/** The way of a fault in plain C, with threads that sleep, while all else is pushed. */
import type { Contender, Run } from "../../src/bench/contest.ts";
import { faultsRun } from "../../src/bench/faults.ts";
import { needCompiler } from "../helpers/need.ts";
import { runLimit } from "./c-program.ts";
import { C_PARKED, C_PROGRAM } from "./names.ts";
import { isHere } from "./needs.ts";

/** What C says of faults beside a push; times are in µs. */
interface PushedFaults {
  bytesPerSecond: number;
  servedUs: { mean: number; buckets: number[] };
}

/** Plain C with threads that sleep, beside the same push. */
export async function faultsInC(
  memoryMib: number,
  pages: "small" | "huge",
  limit: number,
): Promise<Run> {
  const words = ["pushed-faults", String(memoryMib), pages, String(limit)];
  const { servedUs, bytesPerSecond } = await runLimit<PushedFaults>(...words);
  return faultsRun(servedUs.buckets, servedUs.mean * 1000, bytesPerSecond);
}

/** Whether it can be built; says what is missing. */
export function hasC(benchmark: string): boolean {
  return isHere(`${benchmark} in C`, needCompiler());
}

/** Its contenders at each limit of the push. */
export function parkedInC(memoryMib: number, limits: readonly number[]): Contender[] {
  if (!hasC("faults")) return [];
  return limits.map((limit) => ({
    name: C_PARKED,
    program: C_PROGRAM,
    at: limit,
    run: () => faultsInC(memoryMib, "small", limit),
  }));
}

/** What has to be known of C. */
export const C_NOTE =
  "C has a guest that does nothing but write to pages at random, and two connections: its threads do " +
  "what has to be done for a fault, and nothing else. From the poll that found the fault to the page placed.";
