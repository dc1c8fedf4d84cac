/** What was seen of a migration beside what its report says: for the page of `--report FILE.html`. */
import type { Histogram } from "./histogram.ts";
import type { Movement } from "./movement.ts";

/** Something that happened, in ns of the monotonic clock. */
export interface ObservedMoment {
  name: string;
  atNs: number;
}

export interface Observations {
  /** What times are counted from: the begin of the report's durations. */
  zeroNs: number;
  moments: readonly ObservedMoment[];
  /** How memory moved; undefined where that was not watched. */
  movement: Movement | undefined;
  /** Latencies in more detail than a report has: of remote faults, or of answers to requests. */
  latencies: Histogram | undefined;
}
