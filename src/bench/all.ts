/** The benchmarks that need nothing but this program: `postcopy bench` runs them anywhere. */
import type { ListedBenchmark } from "./contest.ts";
import { primitives } from "./primitives.ts";

export const OWN_BENCHMARKS: readonly ListedBenchmark[] = [{ id: "primitives", make: primitives }];
