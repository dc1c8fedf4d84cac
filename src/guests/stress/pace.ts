/**
 * Keeps a worker to its share of the guest's write rate: every dirtied page moves the time at which
 * the next is due, and a worker that is ahead of it waits. It writes in short bursts, as waking
 * for each page would cost more than the page.
 */
import { STRESS_PAGE_BYTES, type StressParameters } from "./parameters.ts";

/** How far a worker may run ahead before it waits: the length of a burst. */
const BURST_MS = 1;
/** How much of a lag (a stall, a pause) is made up for; the rest of the rate is forgone. */
const CATCH_UP_MS = 5;

export class Pace {
  readonly #pageMs: number;
  #dueMs = Number.NEGATIVE_INFINITY;

  constructor(parameters: StressParameters) {
    const { rate, workers } = parameters;
    this.#pageMs = rate === 0 ? 0 : (STRESS_PAGE_BYTES * workers * 1000) / rate;
  }

  /** A page was dirtied; returns the milliseconds to wait before the next, often 0. */
  charge(): number {
    if (this.#pageMs === 0) return 0;
    const nowMs = performance.now();
    this.#dueMs = Math.max(this.#dueMs, nowMs - CATCH_UP_MS) + this.#pageMs;
    const ahead = this.#dueMs - nowMs;
    return ahead > BURST_MS ? ahead : 0;
  }
}
