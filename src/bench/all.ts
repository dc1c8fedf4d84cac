/** The benchmarks that need nothing but this program: `postcopy bench` runs them anywhere. */
import type { ListedBenchmark } from "./contest.ts";
import { ownDowntime } from "./downtime.ts";
import { faults } from "./faults.ts";
import { growthOfDirtyRate, growthOfMemory, growthOfWorkers } from "./growth.ts";
import { primitives } from "./primitives.ts";

export const OWN_BENCHMARKS: readonly ListedBenchmark[] = [
  { id: "primitives", make: primitives },
  { id: "downtime", make: ownDowntime, runs: 9 },
  { id: "faults", make: faults },
  { id: "growth-memory", make: growthOfMemory },
  { id: "growth-rate", make: growthOfDirtyRate },
  { id: "growth-workers", make: growthOfWorkers },
];
